"""A replica's part in the ring: implements ``base.Sharding``.

Two tasks. One renews the Lease. The other takes turns: it reads the ring, and then the Leases (in
this order, or a member that came back between the two could be taken for dead), makes the next
change to the ring if one is due, and follows what it says. It waits for the ring's watch, for the
next Lease to be over, and at most for ``tick``.

What makes it safe, with D the Lease's duration:

1. A slot is served by its holder alone, and the holder changes only as ``ring`` says.
2. This member acts only until the begin of its last successful renewal + D·2/3. It asks the clock
   at each act, so that being stopped for a while makes no difference.
3. Once that moment has passed, nothing but a compare-and-swap of the ring (``joined``) lets it act
   again: either that fails because it was expelled meanwhile, or it makes the expulsion fail.
4. Nobody expels it before D has passed without a renewal (``leases``).
5. What left this process before (2) came true may arrive late: agents refuse it, since they are
   told the new generation before anything that was taken by force is served (``fence``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from controller.client import NotFound
from controller.errors import Conflict, KumulusError, Terminal
from controller.reconcile.actuator import Clock
from controller.sharding.arcs import NOTHING, Arcs
from controller.sharding.base import Follower, Moved
from controller.sharding.journal import Journal, newest_generation
from controller.sharding.leases import RENEW_SHARE, STOP_SHARE, Leases
from controller.sharding.ring import Ring
from controller.sharding.ring_object import RingObject, Stored
from controller.sharding.table import arcs_of

log = logging.getLogger(__name__)

LEAVE_SECONDS = 5.0
"""For giving everything up at the end; after that the Lease has to run out."""
GRACE = 0.3
"""Seconds that work under way has to end by itself before its arcs are handed over."""
WATCH_PAUSE = 1.0


class _Lapsed(Exception):
    """The Lease ran out, or the ring was lost, while a turn was under way."""


async def _no_fence(generation: int) -> None:
    return None


@dataclass
class Member:
    """``run`` it, then ``leave``. ``fence`` tells all agents to refuse older generations."""

    ring: RingObject
    leases: Leases
    clock: Clock
    fence: Callable[[int], Awaitable[None]] = _no_fence
    grace: float = GRACE
    keys: Callable[[Arcs], int] = lambda _: 0
    _followers: list[Follower] = field(default_factory=list, init=False)
    _renewed: float = field(default=float("-inf"), init=False)
    _life: int = field(default=0, init=False)
    """Counts lapses: what was found out in an earlier life does not count."""
    _joined: str = field(default="", init=False)
    _known: Ring = field(default_factory=lambda: Ring(0), init=False)
    _serving: Arcs = field(default=NOTHING, init=False)
    _held: Arcs = field(default=NOTHING, init=False)
    _loading: Arcs = field(default=NOTHING, init=False)
    _lost: Arcs = field(default=NOTHING, init=False)
    """What a lapse took: it is to be drained before anything else is done."""
    _fenced: int = field(default=-1, init=False)
    _poked: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _limit: asyncio.Timeout | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(self.clock.monotonic, self.keys)

    # -- Sharding

    @property
    def name(self) -> str:
        return self.leases.name

    @property
    def alive(self) -> bool:
        """May this member act at all, now?"""
        return self._left() > 0 and bool(self._joined)

    @property
    def generation(self) -> int:
        if not self.alive:
            raise Moved("this controller's Lease has run out; its work goes on elsewhere")
        return self._known.generation

    @property
    def arcs(self) -> Arcs:
        return self._serving if self.alive else NOTHING

    def owns(self, uid: str) -> bool:
        return self.alive and self._serving.covers(uid)

    def check(self, uid: str) -> None:
        if not (self.alive and self._held.covers(uid)):
            raise Moved("the ring has given this object to another controller")

    def follow(self, follower: Follower) -> None:
        self._followers.append(follower)

    @property
    def known(self) -> Ring:
        """The ring as this member saw it last."""
        return self._known

    # -- life

    async def run(self) -> None:
        """For ever; cancel it, then leave(). Raises Superseded, and what should not be."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renewing(), name="lease")
            tasks.create_task(self._turning(), name="ring")
            tasks.create_task(self._watching(), name="ring watch")

    def poke(self) -> None:
        """The ring may have changed: look."""
        self._poked.set()

    async def leave(self) -> None:
        """Give everything up and let others go on at once. Raises nothing."""
        began = self.clock.monotonic()
        self._serving = NOTHING
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                clean = await self._tell_drain(self._held | self._loading, self.grace)
                self._held = NOTHING
                await self._sign_off(clean)
                await self.leases.drop()
        except (KumulusError, TimeoutError) as error:
            log.warning("not signed off; the Lease has to run out", extra={"why": str(error)})
        finally:
            self._renewed = float("-inf")
        log.info("left the ring", extra={"seconds": round(self.clock.monotonic() - began, 3)})

    async def _sign_off(self, clean: bool) -> None:
        stored = await self.ring.read() if self.alive else None
        while stored is not None and self.name in stored.ring.members and self.alive:
            try:
                await self.ring.swap(stored, stored.ring.without([self.name], forced=not clean))
            except (Conflict, NotFound):
                await asyncio.sleep(_jittered(0.02))
                stored = await self.ring.read()
            else:
                return

    # -- the Lease

    async def _renewing(self) -> None:
        while True:
            await self._renew()
            await asyncio.sleep(self.leases.duration * RENEW_SHARE)

    async def _renew(self) -> None:
        began = self.clock.monotonic()
        try:
            # Not longer than this member may go on without knowing; but try, when it may not.
            async with asyncio.timeout(max(self.leases.duration * RENEW_SHARE, self._left())):
                await self.leases.renew(self.journal.written(self._known, self.arcs))
        except Terminal:
            self._lapse("the Lease was taken over")
            raise
        except (KumulusError, TimeoutError) as error:
            log.warning("lease not renewed", extra={"why": str(error) or "the API is too slow"})
            return
        except Exception:
            # An answer that makes no sense renews nothing; whether to stop, the clock decides.
            log.exception("lease not renewed")
            return
        if self._left() <= 0:
            self._lapse("the Lease could not be renewed in time")
            self.poke()
        self._renewed = began
        self._set_limit()

    def _left(self) -> float:
        """Seconds for which this member may act."""
        return self._renewed + self.leases.duration * STOP_SHARE - self.clock.monotonic()

    def _set_limit(self) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self._left())

    def _lapse(self, why: str) -> None:
        """Nothing that was true of this member counts any more."""
        self._life += 1
        if self._joined:
            log.error("work stops: %s", why)
            self.journal.lapsed()
        self._lost |= self._held | self._loading
        self._joined, self._serving, self._held, self._loading = "", NOTHING, NOTHING, NOTHING

    # -- the ring

    async def _watching(self) -> None:
        while True:
            try:
                async with contextlib.aclosing(self.ring.changes()) as changes:
                    async for _ in changes:
                        self.poke()
            except KumulusError as error:
                log.debug("ring not watched", extra={"why": error.message})
            self.poke()
            await asyncio.sleep(_jittered(WATCH_PAUSE))

    async def _turning(self) -> None:
        pause, failures = 0.0, 0
        while True:
            self._poked.clear()
            try:
                pause = await self._limited(self._turn(pause))
                await self._limited(self._wait(pause))
                pause, failures = 0.0, 0
            except Conflict:
                pause = _jittered(0.02)  # somebody else was first: read what came of it
            except _Lapsed:
                pause = _jittered(0.1)
            except (KumulusError, TimeoutError) as error:
                why = str(error) or "the API server is too slow"
                log.warning("the ring is not followed now", extra={"why": why})
                pause = _jittered(min(2.0, 0.25 * 2.0**failures))
                failures = min(failures + 1, 8)

    async def _limited(self, work: Awaitable[float]) -> float:
        """``work``, cut off when this member may act no longer. Raises _Lapsed."""
        if not self._joined:
            return await work
        try:
            async with asyncio.timeout(max(0.0, self._left())) as self._limit:
                return await work
        except TimeoutError:
            self._lapse("the Lease could not be renewed in time")
            raise _Lapsed from None
        finally:
            self._limit = None

    async def _wait(self, seconds: float) -> float:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._poked.wait()
        return 0.0

    async def _turn(self, pause: float) -> float:
        """One look at the ring, and at most one change of it; seconds until the next look."""
        await asyncio.sleep(pause)
        if not self._joined:
            await self._lose_all()
        if self._left() <= 0:
            return self.leases.duration * RENEW_SHARE  # not before the Lease is renewed
        async with self._patience():
            stored = await self.ring.read()
            over, due = await self.leases.look(_concerned(stored))
        if stored is None:
            await self._found_ring()
            return 0.0
        if stored.uid != self._joined or self.name not in stored.ring.members:
            await self._join(stored)
            return 0.0
        if over:
            await self._expel(stored, over)
            return 0.0
        await self._obey(stored)
        return min(due, self.leases.duration * RENEW_SHARE)

    async def _found_ring(self) -> None:
        """There is no ring. Those who may still work under one that was deleted come first."""
        self._lapse("the ring object is gone")
        others = {*self._known.members, *self._known.unsettled, *self.leases.known} - {self.name}
        newest = max(self._known.generation, newest_generation(self.leases.known))
        ring = Ring(max(newest, int(self.clock.now())), unsettled=frozenset(others))
        async with self._patience():
            await self.ring.create(ring)
        log.info("made the ring", extra={"generation": ring.generation})

    async def _join(self, stored: Stored) -> None:
        if self._joined:
            self._lapse("another controller has expelled this one, or the ring was made anew")
            raise _Lapsed
        life = self._life
        async with self._patience():
            joined = await self.ring.swap(stored, stored.ring.joined(self.name))
        if life != self._life or self._left() <= 0:
            raise _Lapsed
        self._joined, self._known = joined.uid, joined.ring
        log.info("joined the ring", extra={"generation": joined.ring.generation})

    async def _expel(self, stored: Stored, over: frozenset[str]) -> None:
        self._joined_still(stored)
        silence = max(self.leases.silence(name) for name in over)
        async with self._patience():
            expelled = await self.ring.swap(stored, stored.ring.without(over, forced=True))
        self.journal.took_over(silence)
        log.warning(
            "took over from members whose Leases are over",
            extra={"members": sorted(over), "generation": expelled.ring.generation},
        )
        for name in over:
            with contextlib.suppress(KumulusError):
                await self.leases.drop(name)

    async def _obey(self, stored: Stored) -> None:
        """Give up what is to be given up, then take what there is to take."""
        life, ring = self._life, stored.ring
        self._joined_still(stored)
        self._known = ring
        mine = arcs_of(ring.serving(self.name))
        self.journal.expect(arcs_of(ring.awaited(self.name)))
        self._serving &= mine
        losing = (self._held | self._loading) - mine
        clean = True
        if losing:
            began = self.clock.monotonic()
            clean = await self._tell_drain(losing, self.grace)
            self._check_life(life)
            self._held, self._loading = self._held - losing, self._loading - losing
            self.journal.drained(self.clock.monotonic() - began)
        if ring.outgoing(self.name):
            async with self._patience():
                stored = await self.ring.swap(stored, ring.released(self.name, forced=not clean))
            self._check_life(life)
            self._known = stored.ring
        await self._gain(mine - self._serving, life)

    async def _gain(self, gained: Arcs, life: int) -> None:
        if not gained:
            return
        began, ring = self.clock.monotonic(), self._known
        if ring.fence > self._fenced:
            await self.fence(ring.generation)
            self._check_life(life)
            self._fenced = ring.fence
        self._loading |= gained
        await asyncio.gather(*(each.gain(gained, ring.generation) for each in self._followers))
        self._check_life(life)
        self._held, self._serving = self._held | gained, self._serving | gained
        self._loading = NOTHING
        self.journal.gained(gained, began)
        for follower in self._followers:
            follower.serve(gained)

    async def _lose_all(self) -> None:
        """After a lapse: end what still runs."""
        await self._tell_drain(self._lost, 0.0)
        self._lost = NOTHING

    async def _tell_drain(self, arcs: Arcs, grace: float) -> bool:
        if not arcs:
            return True
        return all(await asyncio.gather(*(each.drain(arcs, grace) for each in self._followers)))

    def _patience(self) -> asyncio.Timeout:
        """For one thing that the API server is asked."""
        return asyncio.timeout(self.leases.duration)

    def _joined_still(self, stored: Stored) -> None:
        if self._joined != stored.uid:
            raise _Lapsed

    def _check_life(self, life: int) -> None:
        if life != self._life or self._left() <= 0:
            raise _Lapsed


def _concerned(stored: Stored | None) -> frozenset[str]:
    return frozenset() if stored is None else stored.ring.unsettled | frozenset(stored.ring.members)


def _jittered(seconds: float) -> float:
    return seconds * (0.5 + random.random())  # noqa: S311 - jitter, no secret
