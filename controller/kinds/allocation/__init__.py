"""How a host is chosen for a VM.

``gather`` reads the store and the ledger into a Request and Candidates, ``filters`` drop those
that do not fit and say why, a strategy (``strategies``, a plugin point) sorts the rest. All but
gather is pure. Whether there really is room is decided later, by the claim in the ledger.
"""
