"""The kinds: one module with the actuator (and the workflow steps) of each.

A kind is found by being here: the registry imports every module of this package and takes the
Actuator and Step classes that it finds. Adding a kind touches no file but its own.

====================  ==========================================================================
``<kind>.py``         the actuator, and the steps that only its flows use
``vm_*.py``           the virtual machine's decisions and steps, by area
``allocation/``       how a host is chosen: candidates, filters, strategies (a plugin point)
``support.py``        what several kinds need: agent calls, names, when to try again
``heartbeat.py``      pinging agents: of hosts and of backup storages
====================  ==========================================================================
"""
