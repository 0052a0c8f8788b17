"""The work queue: one worker a key, nothing lost, fair, bounded."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.keys import Key
from controller.queue.backoff import Backoff
from controller.queue.lane import RESYNC_SHARE, Lanes, Priority
from controller.queue.queue import Verdict, WorkQueue
from tests.unit.core.fakes import in_virtual_time

keys = st.builds(Key, st.just("K"), st.sampled_from("abc"), st.sampled_from("12345"))


def key(name: str, namespace: str = "ns") -> Key:
    return Key("K", namespace, name)


class Recorder:
    """A worker that notes what it does. ``twice``: keys that two worked on at once; a queue
    survives what its worker raises, so tests must look."""

    def __init__(
        self,
        seconds: float | Callable[[Key], float] = 0.0,
        verdicts: dict[Key, list[Verdict]] | None = None,
    ):
        self.seconds = seconds
        self.verdicts = verdicts or {}
        self.began: list[tuple[float, Key]] = []
        self.active: set[Key] = set()
        self.twice: list[Key] = []
        self.most = 0

    async def __call__(self, key: Key) -> Verdict:
        if key in self.active:
            self.twice.append(key)
        self.active.add(key)
        self.most = max(self.most, len(self.active))
        self.began.append((asyncio.get_running_loop().time(), key))
        try:
            await asyncio.sleep(self.seconds(key) if callable(self.seconds) else self.seconds)
        finally:
            self.active.discard(key)
        return self.verdicts[key].pop(0) if self.verdicts.get(key) else Verdict()

    @property
    def order(self) -> list[Key]:
        assert self.twice == []
        return [key for _, key in self.began]


def queue(worker: Recorder, concurrency: int = 1, **given: float) -> WorkQueue:
    backoff = Backoff(spread=lambda: 0.0, **given)
    made = WorkQueue("K", worker, concurrency=concurrency, backoff=backoff)
    made.start()
    return made


@pytest.mark.looptime
async def test_what_is_added_many_times_before_it_runs_runs_once() -> None:
    worker = Recorder(1.0)
    q = queue(worker)
    for _ in range(10):
        q.add(key("busy"))
        q.add(key("x"))
    await asyncio.sleep(5)
    # The first one ran at once; its repetition came while it ran.
    assert Counter(worker.order) == {key("busy"): 2, key("x"): 1}


@pytest.mark.looptime
async def test_what_is_added_while_it_runs_runs_again_afterwards() -> None:
    worker = Recorder(1.0)
    q = queue(worker, concurrency=8)
    q.add(key("x"))
    await asyncio.sleep(0.5)
    q.add(key("x"))
    q.add(key("x"))
    await asyncio.sleep(5)
    assert [when for when, _ in worker.began] == [0.0, 1.0]


@pytest.mark.looptime
async def test_namespaces_take_turns() -> None:
    worker = Recorder(1.0)
    q = queue(worker)
    q.add(key("first", "noisy"))
    for n in range(100):
        q.add(key(str(n), "noisy"))
    q.add(key("only", "quiet"))
    await asyncio.sleep(3.5)
    assert key("only", "quiet") in worker.order[:3]
    await q.stop(0)


@pytest.mark.looptime
async def test_changes_go_before_resyncs_but_do_not_starve_them() -> None:
    worker = Recorder(1.0)
    q = queue(worker)
    q.add(key("first"))
    q.add(key("resync"), Priority.RESYNC)
    for n in range(3 * RESYNC_SHARE):
        q.add(key(f"change{n}"))
    await asyncio.sleep(200)
    place = worker.order.index(key("resync"))
    assert 2 < place <= RESYNC_SHARE


@pytest.mark.looptime
async def test_a_resync_that_becomes_a_change_moves_up() -> None:
    worker = Recorder(1.0)
    q = queue(worker)
    q.add(key("first"))
    for n in range(50):
        q.add(key(f"r{n}"), Priority.RESYNC)
    q.add(key("r40"))
    await asyncio.sleep(2.5)
    assert worker.order[1] == key("r40")
    await asyncio.sleep(100)
    assert Counter(worker.order)[key("r40")] == 1


@pytest.mark.looptime
async def test_back_off_grows_to_a_limit_and_success_resets_it() -> None:
    fails = [Verdict("retry")] * 6
    worker = Recorder(verdicts={key("x"): [*fails, Verdict(), Verdict("retry"), Verdict()]})
    q = queue(worker, first=1.0, most=8.0)
    q.add(key("x"))
    await asyncio.sleep(60)
    assert [when for when, _ in worker.began] == [0, 1, 3, 7, 15, 23, 31]
    q.add(key("x"))
    await asyncio.sleep(60)
    assert worker.began[-1][0] - worker.began[-2][0] == 1


@pytest.mark.looptime
async def test_a_worker_that_raises_is_backed_off() -> None:
    class Bad(Recorder):
        async def __call__(self, key: Key) -> Verdict:
            await super().__call__(key)
            raise ValueError("a defect")

    worker = Bad()
    q = queue(worker, first=1.0)
    q.add(key("x"))
    await asyncio.sleep(4)
    assert [when for when, _ in worker.began] == [0, 1, 3]
    await q.stop(0)


@pytest.mark.looptime
async def test_appointments_are_kept_and_an_earlier_look_serves_them() -> None:
    worker = Recorder(verdicts={key("x"): [Verdict(after=10.0)]})
    q = queue(worker)
    q.add(key("x"))
    await asyncio.sleep(4)
    q.add(key("x"))
    await asyncio.sleep(30)
    assert [when for when, _ in worker.began] == [0, 4]
    q.add_after(key("y"), 5)
    q.add_after(key("y"), 2)
    q.add_after(key("y"), 9)
    await asyncio.sleep(30)
    assert [when for when, who in worker.began if who == key("y")] == [36]


@pytest.mark.looptime
async def test_draining_ends_the_work_on_some_keys_and_leaves_the_others_alone() -> None:
    """One ends within the grace, one is cancelled; appointments go, and nothing comes again."""
    quick, slow, other = key("quick"), key("slow"), key("other")
    worker = Recorder({quick: 2.0, slow: 90.0, other: 90.0}.__getitem__)
    q = queue(worker, concurrency=3)
    for each in (quick, slow, other):
        q.add(each)
    await asyncio.sleep(1)
    q.add(slow)  # again, once it has ended
    q.add_after(key("later"), 50)
    began = asyncio.get_running_loop().time()
    await q.drain(lambda one: one != other, 3.0)
    assert asyncio.get_running_loop().time() - began == 3.0
    assert worker.active == {other}
    await asyncio.sleep(200)
    assert Counter(worker.order) == {quick: 1, slow: 1, other: 1}


@pytest.mark.looptime
async def test_stop_lets_work_end_within_its_grace() -> None:
    quick, slow = Recorder(1.0), Recorder(100.0)
    for worker, ended in ((quick, 1.0), (slow, 3.0)):
        q = queue(worker)
        q.add(key("x"))
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        await q.stop(3.0)
        assert asyncio.get_running_loop().time() - began == ended
        q.add(key("late"))
        await asyncio.sleep(5)
        assert worker.order == [key("x")]


@given(
    st.lists(st.tuples(st.floats(0, 3), keys, st.sampled_from(Priority)), max_size=60),
    st.integers(1, 4),
    st.integers(0, 2**32),
)
def test_every_key_is_worked_on_after_it_was_last_added(
    plan: list[tuple[float, Key, Priority]], concurrency: int, seed: int
) -> None:
    """Whatever fails, however long it takes: nothing is lost, nobody works twice at once."""
    rng = random.Random(seed)

    class Erratic(Recorder):
        calm = False

        async def __call__(self, key: Key) -> Verdict:
            self.seconds = rng.random()
            await super().__call__(key)
            if self.calm:
                return Verdict()
            if rng.random() < 0.2:
                raise RuntimeError("now and then")
            return rng.choice([Verdict(), Verdict("retry"), Verdict(after=rng.random())])

    async def scenario() -> None:
        worker = Erratic()
        q = queue(worker, concurrency=concurrency)
        added: dict[Key, float] = {}
        for pause, name, priority in plan:
            await asyncio.sleep(pause)
            q.add(name, priority)
            added[name] = asyncio.get_running_loop().time()
        worker.calm = True
        await asyncio.sleep(200)
        last = {name: when for when, name in worker.began}
        assert all(last[name] >= when for name, when in added.items())
        assert worker.most <= concurrency and worker.twice == []
        await q.stop(0)

    in_virtual_time(scenario)


@given(st.lists(st.one_of(st.none(), st.tuples(keys, st.sampled_from(Priority))), max_size=80))
def test_lanes_are_a_set_with_an_order(steps: list[tuple[Key, Priority] | None]) -> None:
    """None pops. Against the simplest model: a dict from key to its strongest priority."""
    lanes, model = Lanes(), dict[Key, Priority]()
    for now, step in enumerate(steps):
        if step is None:
            popped = lanes.pop()
            assert (popped is None) == (not model)
            if popped is not None:
                model.pop(popped[0])
        else:
            name, priority = step
            lanes.push(name, priority, now)
            model[name] = min(priority, model.get(name, priority))
        assert len(lanes) == len(model)
        assert all(name in lanes for name in model)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=2))
def test_no_namespace_waits_longer_than_a_round(sizes: dict[str, int]) -> None:
    lanes = Lanes()
    for namespace, size in sizes.items():
        for n in range(size):
            lanes.push(key(str(n), namespace), Priority.CHANGE, 0)
    order = []
    while (popped := lanes.pop()) is not None:
        order.append(popped[0].namespace)
    for turn in range(max(sizes.values())):
        still = {namespace for namespace, size in sizes.items() if size > turn}
        at = sum(min(size, turn) for size in sizes.values())
        assert set(order[at : at + len(still)]) == still


@given(st.integers(0, 200), st.floats(0, 1, exclude_max=True))
def test_back_off_stays_within_its_bounds(count: int, luck: float) -> None:
    backoff = Backoff(first=0.1, most=60.0, spread=lambda: luck)
    delays = [backoff.next(key("x")) for _ in range(count + 1)]
    assert all(0.05 <= delay <= 60.0 for delay in delays)
    assert delays == sorted(delays)
