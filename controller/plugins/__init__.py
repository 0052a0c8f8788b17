"""Plugins of the controller: found, loaded, contained.

``interface`` is what plugins are written against. ``catalog`` loads what is installed
(``crds.plugins`` finds it) and says what is wrong with what cannot be used: such a plugin is left
out, whole, and everything else goes on. ``room`` is where a plugin's code runs: a thread and an
event loop of its own, so that what blocks, hangs, raises or leaks there holds up nobody else.
``guarded`` puts a plugin's actuators, steps, allocators and observers behind its room; ``bridge``
is how they reach the controller from there. ``weave`` inserts steps into flows.

What this cannot contain: memory that a plugin does not give back, a C extension that never lets go
of the interpreter, and what it does while it is imported or within ``watches`` and
``waits_for``, which are asked in the controller's own loop.
"""
