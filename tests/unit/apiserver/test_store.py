"""The store: order, history, failures; every watcher's replay equals a list."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.apiserver.store import (
    Change,
    ChangeType,
    CorruptStore,
    ObjectKey,
    Store,
    StoreFailure,
)
from controller.apiserver.store import log as store_log
from controller.apiserver.store.memory import Shelf
from controller.apiserver.store.store import Limits

RESOURCE = "example.com/widgets"
SMALL = Limits(ring_changes=4, history_seconds=0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    found = Store(tmp_path / "db", "OFF", SMALL)
    await found.start()
    yield found
    await found.close()


def key(name: str, namespace: str = "ns") -> ObjectKey:
    return ObjectKey(RESOURCE, namespace, name)


def body(value: Any) -> Any:
    return lambda version: orjson.dumps({"v": value, "rv": version})


async def put(store: Store, name: str, value: Any) -> int:
    type_ = ChangeType.MODIFIED if store.head(key(name)) else ChangeType.ADDED
    return (await store.write(type_, key(name), body(value))).version


async def drop(store: Store, name: str) -> int:
    return (await store.write(ChangeType.DELETED, key(name), body(None))).version


def state(store: Store) -> dict[str, Any]:
    shelf = store.shelf(RESOURCE)
    keys = shelf.keys()
    return {
        name: orjson.loads(entry.body)["v"]
        for (_, name), entry in zip(keys, shelf.entries(keys), strict=True)
    }


async def replay(store: Store, version: int, start: dict[str, Any]) -> dict[str, Any]:
    """``start``, which was the state at ``version``, after all changes since."""
    found, last = dict(start), version
    async for changes, subscription in store.resume(RESOURCE, version):
        for change in changes:
            assert change.version > last
            last = change.version
            if change.type is ChangeType.DELETED:
                del found[change.key.name]
            else:
                found[change.key.name] = orjson.loads(change.entry.body)["v"]
        if subscription is not None:
            store.unsubscribe(RESOURCE, subscription)
    return found


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "drop", "compact"]), st.sampled_from("abc"), st.integers(0, 9)
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=40)
@given(OPERATIONS)
def test_every_replay_equals_the_list(tmp_path_factory: Any, operations: Any) -> None:
    asyncio.run(_replays(tmp_path_factory.mktemp("store") / "db", operations))


async def _replays(path: Path, operations: list[tuple[str, str, int]]) -> None:
    store = Store(path, "OFF", SMALL)
    await store.start()
    model: dict[str, Any] = {}
    history = {store.version: {}}
    for what, name, value in operations:
        if what == "put":
            version = await put(store, name, value)
            model[name] = value
            history[version] = dict(model)
        elif what == "drop" and name in model:
            version = await drop(store, name)
            del model[name]
            history[version] = dict(model)
        elif what == "compact":
            store.compact_to(store.version - value)
        assert state(store) == model
    await _check_history(store, history, model)
    await store.close()
    again = Store(path, "OFF", SMALL)
    await again.start()
    assert state(again) == model
    assert again.version == store.version
    assert again.floor == store.floor
    await _check_history(again, history, model)
    await again.close()


async def _check_history(
    store: Store, history: dict[int, dict[str, Any]], model: dict[str, Any]
) -> None:
    for version, then in history.items():
        if version < store.floor:
            with pytest.raises(KeyError):
                await replay(store, version, then)
            continue
        assert await replay(store, version, then) == model
        undone = await store.undo(RESOURCE, version)
        found = dict(model)
        for (_, name), entry in undone.items():
            if entry is None:
                found.pop(name, None)
            else:
                found[name] = orjson.loads(entry.body)["v"]
        assert found == then


async def test_reads_see_what_is_committed_and_head_what_is_under_way(store: Store) -> None:
    future = store.write(ChangeType.ADDED, key("a"), body(1))
    assert store.get(key("a")) is None
    assert store.head(key("a")) is not None
    entry = await future
    assert store.get(key("a")) == entry


async def test_writes_that_come_together_share_a_transaction(store: Store) -> None:
    entries = await asyncio.gather(
        *(store.write(ChangeType.ADDED, key(f"n{i}"), body(i)) for i in range(200))
    )
    versions = [entry.version for entry in entries]
    assert versions == list(range(versions[0], versions[0] + 200))


async def test_a_failed_write_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(store, "a", 1)
    real = store_log.append
    monkeypatch.setattr(store_log, "append", _fail)
    first = store.write(ChangeType.MODIFIED, key("a"), body(2))
    second = store.write(ChangeType.MODIFIED, key("a"), body(3))
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert all(isinstance(result, StoreFailure) for result in results)
    assert "disk is full" in str(results[0])
    assert state(store) == {"a": 1}
    assert store.head(key("a")) == store.get(key("a"))
    monkeypatch.setattr(store_log, "append", real)
    await put(store, "a", 4)
    assert state(store) == {"a": 4}


def _fail(*_: Any) -> None:
    raise sqlite3.OperationalError("database or disk is full")


async def test_a_slow_watcher_is_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path / "db", "OFF", Limits(watcher_queue=3))
    await store.start()
    slow, quick = store.subscribe(RESOURCE), store.subscribe(RESOURCE)
    got = []
    for at in range(5):
        await put(store, "a", at)
        got += quick.take()
    assert slow.overflowed
    assert slow.take() == []
    assert [orjson.loads(c.entry.body)["v"] for c in got] == [0, 1, 2, 3, 4]
    await store.close()


async def test_a_watcher_of_large_objects_is_dropped_by_their_size(tmp_path: Path) -> None:
    store = Store(tmp_path / "db", "OFF", Limits(watcher_bytes=100))
    await store.start()
    slow, quick = store.subscribe(RESOURCE), store.subscribe(RESOURCE)
    for at in range(9):
        await put(store, f"a{at}", 10**15)
        assert len(quick.take()) == 1
    assert slow.overflowed
    assert not quick.overflowed
    await store.close()


async def test_a_sink_gets_what_was_committed_together_at_once(store: Store) -> None:
    subscription = store.subscribe(RESOURCE)
    got: list[list[str]] = []
    subscription.sink = lambda changes: got.append([change.key.name for change in changes])
    await asyncio.gather(*(put(store, name, 1) for name in "abc"))
    await asyncio.sleep(0)
    assert got == [["a", "b", "c"]]
    assert subscription.take() == []
    assert not await subscription.wait(0)


async def test_what_a_sink_leaves_is_there_for_who_waits(store: Store) -> None:
    subscription = store.subscribe(RESOURCE)
    got: list[str] = []

    def once(changes: list[Change]) -> None:
        got.extend(change.key.name for change in changes)
        subscription.sink = None
        subscription.wake()

    subscription.sink = once
    await put(store, "a", 1)
    assert await subscription.wait(1)
    assert subscription.take() == []
    await put(store, "b", 1)
    assert await subscription.wait(1)
    assert (got, [change.key.name for change in subscription.take()]) == (["a"], ["b"])


async def test_a_sink_that_goes_before_its_turn_misses_nothing(store: Store) -> None:
    subscription = store.subscribe(RESOURCE)
    subscription.sink = lambda changes: pytest.fail("it is gone")
    subscription.push(Change(ChangeType.ADDED, key("a"), store_entry(1), None))
    subscription.sink = None
    subscription.deliver()
    assert await subscription.wait(0)
    assert len(subscription.take()) == 1


async def test_waiting_ends_with_a_change_the_time_or_the_server(store: Store) -> None:
    subscription = store.subscribe(RESOURCE)
    assert not await subscription.wait(0.01)
    await put(store, "a", 1)
    assert await subscription.wait(1)
    assert len(subscription.take()) == 1
    store.end_subscriptions()
    assert await subscription.wait(1)
    assert subscription.closed


async def test_versions_never_go_back_when_the_last_row_is_compacted(tmp_path: Path) -> None:
    store = Store(tmp_path / "db", "OFF", SMALL)
    await store.start()
    await put(store, "a", 1)
    last = await drop(store, "a")
    store.compact_to(last)
    await store.close()
    again = Store(tmp_path / "db", "OFF", SMALL)
    await again.start()
    assert again.version == last
    assert await put(again, "b", 1) > last
    await again.close()


async def test_a_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_bytes(b"this is no database" * 500)
    with pytest.raises(CorruptStore, match="restore a backup"):
        await Store(path).start()


async def test_a_newer_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(CorruptStore, match="newer Kumulus"):
        await Store(path).start()


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab"), st.sampled_from("abcd"))))
def test_a_shelf_is_a_sorted_map(operations: list[tuple[bool, str, str]]) -> None:
    shelf, model = Shelf(), {}
    for add, namespace, name in operations:
        if add:
            entry = store_entry(random.Random(0).randrange(9))
            shelf.put(namespace, name, entry)
            model[(namespace, name)] = entry
        else:
            shelf.remove(namespace, name)
            model.pop((namespace, name), None)
    assert shelf.keys() == sorted(model)
    assert shelf.entries(shelf.keys()) == [model[k] for k in sorted(model)]
    for namespace in "ab":
        assert shelf.keys(namespace) == sorted(k for k in model if k[0] == namespace)
    after = ("a", "b")
    assert shelf.keys(after=after) == sorted(k for k in model if k > after)


def store_entry(version: int) -> Any:
    from controller.apiserver.store import Entry

    return Entry(version, b"{}")


@settings(max_examples=30, deadline=None)
@given(OPERATIONS)
def test_a_start_finds_what_was_there(tmp_path_factory: Any, operations: Any) -> None:
    async def play(path: Path) -> None:
        store = Store(path, "OFF", SMALL)
        await store.start()
        for verb, name, value in operations:
            if verb == "put":
                await put(store, name, value)
            elif verb == "drop" and store.head(key(name)):
                await drop(store, name)
        before, version = state(store), store.version
        await store.close()
        again = Store(path, "OFF", SMALL)
        await again.start()
        assert (state(again), again.version) == (before, version)
        again.compact_to(again.version)  # what was history before the start goes, and no more
        await again.close()
        with closing(store_log.open_reader(path)) as connection:
            assert len(list(store_log.heads(connection))) == len(before)

    asyncio.run(play(tmp_path_factory.mktemp("start") / "db"))
