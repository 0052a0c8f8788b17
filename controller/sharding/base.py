"""Which objects this replica works on. (Contract; ``member.Member`` implements Sharding.)

A replica serves arcs of the ring; an object belongs to the one whose arcs cover its uid, whatever
its kind. When the ring changes, what this replica gains and loses is told to its *followers*:

::

    gain(arcs)  ──►  they have all that lies there as fresh as now  ──►  owns() is true  ──► serve()
    owns() is false  ──►  drain(arcs): nothing works on it any more  ──►  the next one may gain it

So at no time do two replicas serve one position, and who gains it has seen what the one before
wrote. ``owns`` is asked at the door of the queue; ``check`` right before everything that leaves
the process (an agent's command, a claim, a write to the API server).
"""

from __future__ import annotations

from typing import Protocol

from controller.errors import Transient
from controller.sharding.arcs import Arcs


class Moved(Transient):
    """The object is another replica's by now, or this one's Lease ran out: it must not act."""

    default_reason = "Moved"


class Sharding(Protocol):
    @property
    def generation(self) -> int:
        """The ring's generation: a fencing token that every agent command carries. Raises Moved
        while this replica may not act at all."""

    @property
    def arcs(self) -> Arcs:
        """What this replica serves now; nothing while it may not act."""

    def owns(self, uid: str) -> bool:
        """May this replica begin work on the object with this uid, now?"""

    def check(self, uid: str) -> None:
        """Raises Moved unless work on this uid, begun while owns() was true, may go on now: until
        it is drained, it may."""

    def follow(self, follower: Follower) -> None:
        """Tell it of every change from now on. Followers are told together, one change after
        another."""


class Follower(Protocol):
    """Must be idempotent: after a failed attempt, the same or other arcs may come again. What is
    gained and never served, since the ring changed meanwhile, is drained."""

    async def gain(self, arcs: Arcs, generation: int) -> None:
        """Bring in all objects in ``arcs``, read from the API server after this was called.
        owns() is false for them until every follower has returned. KumulusError: tried again."""

    def serve(self, arcs: Arcs) -> None:
        """owns() is true for them from now on: begin. Quick, raises nothing."""

    async def drain(self, arcs: Arcs, grace: float) -> bool:
        """End all work on ``arcs``, for which owns() is false already: let it end for ``grace``
        seconds, then cancel it. Returns when none is left; then forget what lies there. To return
        is to acknowledge: another replica begins. False: something may still arrive somewhere; the
        agents are told to refuse it before another replica begins. Raises nothing but
        CancelledError. Grace 0: this replica lost them against its will and must stop at once."""
