"""The embedded cloud on one machine: ``kumulus up`` and ``kumulus down``.

A supervisor process (``supervisor``) owns three children and starts each again when it dies: the
API server on SQLite, a controller, and a simulator agent that poses as every simulated host.
``layout`` says where things lie in the data directory, ``plan`` what is started with which ports
and certificates, ``state`` how a running cloud is found again, ``apply`` and ``progress`` bring
manifests in and tell what is ready.
"""
