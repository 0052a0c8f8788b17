"""The feed of a partitioned kind: whatever the server does, the store ends as the server is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from controller.client import ApiUnavailable
from controller.objects import resource_of
from controller.sharding.arcs import EVERYTHING, NOTHING, SPACE, Arcs
from controller.watch.base import Change
from controller.watch.feed import CHUNK, PATIENCE, Feed
from controller.watch.lines import LONGEST, Lines
from controller.watch.store import ObjectStore
from tests.support.faulty_api import Faults, FaultyApi
from tests.unit.core.fakes import MODELS, Leaf, in_virtual_time

HALF, REST = Arcs.of([(0, SPACE // 2)]), Arcs.of([(SPACE // 2, SPACE)])


@dataclass
class Bench:
    """A feed on a faulty server. ``heard``: what reached the sink."""

    api: FaultyApi
    heard: list[tuple[Change, str]] = field(default_factory=list)
    feed: Feed = field(init=False)

    def __post_init__(self) -> None:
        self.store = ObjectStore({model.__name__: model for model in MODELS})
        self.feed = Feed(
            self.api, "Leaf", resource_of(Leaf), self.store, self._hear, random.Random(1)
        )

    def _hear(self, change: Change, kind: str, raw: Any) -> object:
        self.heard.append((change, raw["metadata"]["name"]))
        return self.store.apply(change, kind, raw)

    def known(self) -> dict[str, int]:
        """Name to version, as the store has it."""
        keys = self.store.keys("Leaf")
        return {key.name: entry.version for key in keys if (entry := self.store.entry(key))}

    def real(self) -> dict[str, int]:
        """As the server has it, on the arcs that are wanted."""
        return {
            name: int(obj["metadata"]["resourceVersion"])
            for (_, name), obj in self.api.objects.items()
            if self.feed.wanted.covers(obj["metadata"]["uid"])
        }

    def lists(self) -> list[dict[str, str]]:
        """Queries of the lists, first pages only, without the probe's."""
        return [
            query for verb, query in self.api.requests
            if verb == "list" and query.get("limit") != "1" and "continue" not in query
        ]  # fmt: skip

    def watches(self) -> list[dict[str, str]]:
        return [query for verb, query in self.api.requests if verb == "watch"]


@asynccontextmanager
async def running(
    seed: int = 0, arcs: Arcs = EVERYTHING, leaves: int = 0, **faults: Any
) -> AsyncIterator[Bench]:
    api = FaultyApi(seed, Faults(**faults))
    for n in range(leaves):
        api.put(f"l{n}")
    bench = Bench(api)
    bench.feed.gain(arcs)
    task = asyncio.create_task(bench.feed.run())
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert asyncio.all_tasks() == {asyncio.current_task()}, "every task ends with the feed"


@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    st.integers(0, 2**32),
    st.builds(
        Faults,
        answers=st.floats(0, 0.4),
        cuts=st.floats(0, 0.4),
        repeats=st.floats(0, 0.5),
        lag=st.floats(0, 3),
        memory=st.integers(1, 30),
        shards=st.booleans(),
        leaky=st.floats(0, 0.3),
    ),
)
def test_whatever_the_server_does_the_store_ends_as_its_list(seed: int, faults: Faults) -> None:
    dice = random.Random(seed)

    def churn(bench: Bench) -> None:
        name = f"l{dice.randrange(15)}"
        there = ("default", name) in bench.api.objects
        if there and dice.random() < 0.4:
            bench.api.remove(name, finalized=dice.random() < 0.5)
        else:
            bench.api.put(name, number=dice.random())

    def turn(bench: Bench) -> None:
        ends = sorted(dice.randrange(SPACE) for _ in range(4))
        arcs = Arcs.of([(ends[0], ends[1]), (ends[2], ends[3])])
        bench.feed.gain(arcs) if dice.random() < 0.5 else bench.feed.lose(arcs)

    async def scenario() -> None:
        async with running(seed, **vars(faults)) as bench:
            for _ in range(80):
                churn(bench)
                if dice.random() < 0.1:
                    turn(bench)
                await asyncio.sleep(dice.random() * 2)
            # The server recovers: from then on, it takes no longer than the longest back-off.
            calm = bench.api.faults
            calm.answers = calm.cuts = calm.repeats = 0.0
            await asyncio.sleep(200)
            await asyncio.wait_for(bench.feed.settled(), 100)
            assert bench.known() == bench.real()

    in_virtual_time(scenario)


@pytest.mark.looptime
async def test_it_goes_on_from_bookmarks_without_listing_again() -> None:
    async with running(leaves=20) as bench:
        await asyncio.sleep(10)
        bench.api.faults.cuts = 1.0
        bench.api.compact()  # what the bookmark named is all that the server still knows
        await asyncio.sleep(3)
        bench.api.faults.cuts = 0.0
        bench.api.put("l1", number=2)
        await asyncio.sleep(60)
        assert bench.known() == bench.real()
        assert len(bench.lists()) == 1
        assert len(bench.watches()) > 1


@pytest.mark.looptime
async def test_a_410_lists_again_and_finds_what_was_deleted_meanwhile() -> None:
    async with running(leaves=20) as bench:
        await bench.feed.settled()
        bench.api.faults.answers = 1.0
        await asyncio.sleep(2)
        bench.api.remove("l3")
        bench.api.put("l4", number=7)
        bench.api.compact()
        bench.api.faults.answers = 0.0
        await asyncio.sleep(90)
        assert (Change.GONE, "l3") in bench.heard
        assert bench.known() == bench.real()
        assert len(bench.lists()) >= 2


@pytest.mark.looptime
async def test_lists_come_in_chunks_until_the_server_cannot_keep_up() -> None:
    async with running(leaves=30) as bench:
        await bench.feed.settled()
        pages = [query for verb, query in bench.api.requests if verb == "list"]
        assert len(pages) == 5
        assert all(query["limit"] == str(CHUNK) for query in pages)
    api = FaultyApi()

    async def expire(*_: Any) -> None:
        api._snapshots.clear()

    api._arrive = expire  # type: ignore[method-assign]
    for n in range(30):
        api.put(f"l{n}")
    bench = Bench(api)
    bench.feed.gain(EVERYTHING)
    task = asyncio.create_task(bench.feed.run())
    await asyncio.wait_for(bench.feed.settled(), 60)
    task.cancel()
    await asyncio.wait([task])
    assert bench.known() == bench.real(), "in the end by one page"


@pytest.mark.looptime
async def test_only_what_was_gained_is_listed_and_what_was_lost_forgotten() -> None:
    async with running(arcs=HALF, leaves=200) as bench:
        bench.api.page_size = 1000
        await bench.feed.settled()
        half = bench.known()
        assert half == bench.real()
        assert 50 < len(half) < 150
        bench.api.sent = 0
        bench.heard.clear()
        bench.feed.gain(REST)
        await bench.feed.settled()
        assert len(bench.known()) == 200
        assert bench.api.sent == 200 - len(half), "nothing is sent that was known"
        assert {change for change, _ in bench.heard} == {Change.PRESENT}
        bench.heard.clear()
        bench.feed.lose(HALF)
        assert bench.known() == bench.real(), "at once"
        await bench.feed.settled()
        assert bench.heard == [], "forgotten is not gone: nobody is told"
        assert bench.watches()[-1]["shardSelector"] == REST.selector()
        bench.feed.gain(HALF)
        await bench.feed.settled()
        assert len(bench.known()) == 200, "what was forgotten may come back"
        assert not any(query.get("shardSelector") is None for query in bench.lists())


@pytest.mark.looptime
async def test_what_is_gained_is_read_after_the_gain() -> None:
    """The replica before has written until a moment ago, and our watch may lag behind that."""
    async with running(leaves=50) as bench:
        await bench.feed.settled()
        count = len(bench.lists())
        bench.feed.gain(HALF)
        await bench.feed.settled()
        assert [query["shardSelector"] for query in bench.lists()[count:]] == [HALF.selector()]


@pytest.mark.looptime
async def test_events_between_the_old_watch_and_the_gained_list_are_not_lost() -> None:
    async with running(arcs=HALF, leaves=100, lag=2.0) as bench:
        for turn in range(20):
            (bench.feed.lose if turn % 2 else bench.feed.gain)(REST)
            for n in range(10):
                bench.api.put(f"l{(turn * 7 + n * 3) % 100}", number=turn)
            bench.api.remove(f"l{turn}", finalized=bool(turn % 3))
            bench.api.put(f"l{turn}")
            await asyncio.sleep(1.3)
        await asyncio.sleep(500)
        assert bench.known() == bench.real()
        assert len(bench.lists()) <= 1 + 20, "gains alone are listed"


@pytest.mark.looptime
async def test_foreign_objects_are_dropped_before_the_sink() -> None:
    for faults in ({"shards": False}, {"leaky": 0.5}):
        async with running(arcs=HALF, leaves=60, **faults) as bench:
            await bench.feed.settled()
            for n in range(60):
                bench.api.put(f"l{n}", number=1)
            await asyncio.sleep(5)
            assert bench.known() == bench.real()
            assert {name for _, name in bench.heard} == set(bench.real())


@pytest.mark.looptime
async def test_a_server_without_shards_is_not_asked_for_any() -> None:
    async with running(arcs=HALF, leaves=10, shards=False) as bench:
        await bench.feed.settled()
        await asyncio.sleep(1)
        probes = [q for _, q in bench.api.requests if q.get("shardSelector")]
        assert [query["shardSelector"] for query in probes] == ["malformed"]
        assert all("shardSelector" not in query for query in bench.watches())


@pytest.mark.looptime
async def test_deleted_means_left_until_the_object_is_known_to_be_gone() -> None:
    async with running(leaves=3) as bench:
        await asyncio.sleep(2)
        l0 = bench.api.objects["default", "l0"]
        ghostly = {**l0, "metadata": {**l0["metadata"], "resourceVersion": "103"}}
        bench.api.version += 1
        bench.api._history.append((bench.api.version, "DELETED", ghostly))
        await asyncio.sleep(3)
        assert "l0" in bench.known(), "it is still there: only our view has lost it"
        assert (Change.GONE, "l0") not in bench.heard
        bench.api.remove("l1")
        await asyncio.sleep(3)
        assert "l1" not in bench.known()
        gets = sum(verb == "get" for verb, _ in bench.api.requests)
        bench.api.remove("l2", finalized=True)
        await asyncio.sleep(3)
        assert "l2" not in bench.known()
        assert sum(verb == "get" for verb, _ in bench.api.requests) == gets, "known at once"


@pytest.mark.looptime
async def test_a_doubt_lasts_as_long_as_the_server_does_not_answer() -> None:
    async with running(leaves=3) as bench:
        await asyncio.sleep(2)
        answers = bench.api.get

        async def silent(*_: Any) -> Any:
            raise ApiUnavailable("no answer")

        bench.api.get = silent  # type: ignore[assignment, method-assign]
        bench.api.remove("l1")
        await asyncio.sleep(20)
        assert "l1" in bench.known()
        bench.api.get = answers  # type: ignore[method-assign]
        await asyncio.sleep(40)
        assert "l1" not in bench.known()


@pytest.mark.looptime
async def test_a_server_that_went_back_in_time_is_believed() -> None:
    async with running(leaves=5) as bench:
        await bench.feed.settled()
        backup = dict(bench.api.objects), bench.api.version
        for n in range(9):
            bench.api.put(f"l{n}", number=1)
        await asyncio.sleep(5)
        bench.api.go_back(backup[1], backup[0])
        bench.api.put("l2", number=3)
        bench.api.faults.cuts = 1.0
        await asyncio.sleep(2)
        bench.api.faults.cuts = 0.0
        await asyncio.sleep(60 * PATIENCE)
        assert bench.known() == bench.real()


@pytest.mark.looptime
async def test_an_outage_is_waited_for_and_costs_no_list() -> None:
    async with running(leaves=20) as bench:
        await asyncio.sleep(5)

        class Down(Exception):
            pass

        async def refuse(*_: Any) -> None:
            bench.api.requests.append(("refused", {}))
            raise ApiUnavailable("connection refused")

        arrive = bench.api._arrive
        bench.api._arrive = refuse  # type: ignore[method-assign]
        bench.api.faults.cuts = 1.0
        await asyncio.sleep(600)
        refused = sum(verb == "refused" for verb, _ in bench.api.requests)
        assert 15 < refused < 60, "with back-off, and never given up"
        bench.api._arrive = arrive  # type: ignore[method-assign]
        bench.api.faults.cuts = 0.0
        bench.api.put("l0", number=1)
        await asyncio.sleep(40)
        assert bench.known() == bench.real()
        assert len(bench.lists()) == 1


@pytest.mark.looptime
async def test_a_server_is_not_asked_sooner_than_it_wants() -> None:
    async with running(leaves=1) as bench:
        await asyncio.sleep(2)
        times: list[float] = []

        async def busy(*_: Any) -> None:
            times.append(asyncio.get_running_loop().time())
            raise ApiUnavailable("too many requests", retry_after=20.0)

        bench.api._arrive = busy  # type: ignore[method-assign]
        bench.api.faults.cuts = 1.0
        await asyncio.sleep(300)
        assert len(times) > 5
        assert all(later - before >= 20 for before, later in pairwise(times))


@pytest.mark.looptime
async def test_without_arcs_nothing_is_asked() -> None:
    async with running(arcs=NOTHING, leaves=5) as bench:
        await bench.feed.settled()
        await asyncio.sleep(60)
        assert bench.api.requests == []
        bench.feed.gain(EVERYTHING)
        await bench.feed.settled()
        assert bench.known() == bench.real()
        bench.feed.lose(EVERYTHING)
        await asyncio.sleep(1)
        count = len(bench.api.requests)
        await asyncio.sleep(60)
        assert bench.known() == {}
        assert len(bench.api.requests) == count


@pytest.mark.looptime
async def test_senseless_events_end_nothing() -> None:
    async with running(leaves=3) as bench:
        await asyncio.sleep(2)
        bench.api.version += 1
        strange = {"metadata": {"resourceVersion": str(bench.api.version)}}
        bench.api._history.append((bench.api.version, "ADDED", strange))
        await asyncio.sleep(30)
        bench.api.put("l9")
        await asyncio.sleep(60)
        assert bench.known() == bench.real()


@pytest.mark.looptime
async def test_a_sink_that_fails_hides_no_other_object() -> None:
    async with running(leaves=0) as bench:
        await bench.feed.settled()
        hear = bench.feed.sink

        def fails(change: Change, kind: str, raw: Any) -> object:
            if raw["metadata"]["name"] == "bad":
                raise RuntimeError("no")
            return hear(change, kind, raw)

        bench.feed.sink = fails
        for name in ("l1", "bad", "l2"):
            bench.api.put(name)
        await asyncio.sleep(5)
        assert set(bench.known()) == {"l1", "l2"}
        assert len(bench.watches()) == 1


@given(st.lists(st.binary(max_size=12)), st.data())
def test_lines_come_out_as_they_went_in(parts: list[bytes], data: st.DataObject) -> None:
    wanted = [part.replace(b"\n", b"x") for part in parts if part.strip()]
    wanted = [line for line in wanted if line.strip()]
    whole = b"".join(line + b"\n" for line in wanted)
    lines, found, at = Lines(), [], 0
    while at < len(whole):
        step = data.draw(st.integers(1, 9))
        found += list(lines.feed(whole[at : at + step]))
        at += step
    assert found == wanted


def test_a_line_without_end_is_refused() -> None:
    lines = Lines()
    with pytest.raises(ApiUnavailable, match="without end"):
        for _ in range(LONGEST // 2**20 + 2):
            list(lines.feed(b"x" * 2**20))
