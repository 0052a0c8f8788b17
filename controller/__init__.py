"""The controller: makes the world be as the manifests say.

The way of a manifest, in order:

1.  ``crds``                 is what a manifest may say; references are declared on its fields.
2.  ``controller.admission`` refuses what the schema cannot: in the embedded ``apiserver``, or as a
    webhook that another cluster asks.
3.  ``controller.watch``     brings what happens to objects: ``kopf_source`` watches infrastructure,
    and ``comparison`` lists keys to find what that watch has lost; ``informer`` has a ``feed`` for
    each kind that replicas divide among themselves. All put the object into the ``store``, and
    ``wakes`` says whose keys that concerns.
4.  ``controller.sharding``  says whether this replica works on the object: ``member`` follows the
    ring, ``ring`` is what it says, ``handover`` takes objects over and gives them up.
5.  ``controller.queue``     has one queue per kind: a key is in it once, one worker has it,
    failures back off, namespaces take turns.
6.  ``controller.reconcile`` looks at one object: ``gate`` waits for what it refers to, ``deletion``
    sees to its children first (``controller.cascade``), then the kind's actuator
    (``controller.kinds``) does the next thing. ``findings`` and ``conditions`` say how it went.
7.  ``controller.workflow``  runs what takes several steps, as ``flows/*.yaml`` declare it, and
    rolls it back when it fails or is not wanted any more.
8.  ``controller.ledger``    gives out what must be unique or counted: addresses, capacity.
9.  ``controller.agentlink`` calls the agents and takes their callbacks, which only wake a key.
10. ``controller.status``    writes the status: one minimal patch, none when nothing changed.

``controller.plugins`` brings kinds, steps, allocators and observers of others into these parts, and
keeps what they do wrong to themselves.

``core`` joins these parts, ``app`` makes a process of them, ``registry`` finds the kinds,
``client`` and ``objects`` reach the API server, ``events`` tells people, ``settings`` and
``metrics`` are what their names say. ``audit`` finds what nobody owns. ``cli`` and ``up`` start it
all on one machine.
"""
