"""What an object has outside of the API: in the ledger, and on machines.

``kumulus audit`` compares what the objects say they have with what is really there. An actuator
tells by ``holdings``; the default, None, stands for whatever carries the object's uid.
"""

from __future__ import annotations

from dataclasses import dataclass

LEDGER = "ledger"
POOLS = "pools"
"""The ledger's area of pools, beside the scopes of claims."""


def host_place(name: str) -> str:
    return f"host/{name}"


def store_place(name: str) -> str:
    return f"store/{name}"


@dataclass(frozen=True)
class Holding:
    """One thing that an object has, or may have.

    place: LEDGER, ``host/<name>`` or ``store/<name>``. area: a claim's scope, POOLS, or a field of
    agents.wire.Inventory. item: a claim's owner, a pool's scope, or what the inventory lists.
    ``place`` and ``area`` may be empty or end with ``/``: then they stand for all that begin so.
    needed: it must be there; otherwise it may.
    """

    place: str
    area: str
    item: str
    needed: bool = True
