"""What is not in memory is read from the log, and writes that come together share a commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from controller.apiserver import streams
from controller.apiserver.builtins import builtins
from controller.apiserver.errors import ApiError
from controller.apiserver.listing import ListOptions, bodies, list_page
from controller.apiserver.selectors import Selection, parse_labels
from controller.apiserver.store import ChangeType, Entry, Forgotten, ObjectKey, Store
from controller.apiserver.store import log as store_log
from controller.apiserver.store.log import Row
from controller.apiserver.store.store import Limits

MAPS = next(each for each in builtins() if each.plural == "configmaps")
SMALL = Limits(ring_changes=2, history_changes=0, history_seconds=0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "db", "OFF", SMALL)
    await store.start()
    yield store
    await store.close()


def key(number: int) -> ObjectKey:
    return ObjectKey(MAPS.storage, "default", f"m{number:04}")


def write(store: Store, number: int, value: str = "x") -> asyncio.Future[Entry]:
    there = store.head(key(number)) is not None

    def build(version: int) -> bytes:
        metadata = {
            "name": key(number).name, "namespace": "default", "resourceVersion": str(version),
            "labels": {"odd": str(number % 2)},
        }  # fmt: skip
        wire = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"v": value}}
        return orjson.dumps(wire)

    return store.write(ChangeType.MODIFIED if there else ChangeType.ADDED, key(number), build)


def value(entry: Entry | None) -> Any:
    assert entry is not None
    return entry.object()["data"]["v"]


async def test_what_was_written_long_ago_is_read_from_the_log(store: Store) -> None:
    for number in range(6):
        await write(store, number, f"value {number}")
    entries = [store.get(key(number)) for number in range(6)]
    assert [entry is not None and entry.held is not None for entry in entries] == [
        *[False] * 4, True, True,
    ]  # fmt: skip
    assert [value(entry) for entry in entries] == [f"value {number}" for number in range(6)]


async def test_a_new_start_reads_no_objects_and_has_them_all(store: Store, tmp_path: Path) -> None:
    await asyncio.gather(*(write(store, number, f"value {number}") for number in range(600)))
    await store.close()
    again = Store(tmp_path / "db", "OFF", SMALL)
    await again.start()
    shelf = again.shelf(MAPS.storage)
    entries = shelf.entries(shelf.keys())
    assert all(entry.held is None for entry in entries)
    found = [body async for slice_ in again.bodies(entries) for body in slice_]
    assert [orjson.loads(body)["data"]["v"] for body in found] == [
        f"value {number}" for number in range(600)
    ]
    page = await list_page(again, MAPS, ListOptions(selection=Selection(parse_labels("odd=1"))))
    assert [entry.object()["metadata"]["name"] for entry in page.entries] == [
        key(number).name for number in range(1, 600, 2)
    ]
    await again.close()


async def _forgotten(store: Store) -> Entry:
    """An entry of before, whose version is compacted away."""
    before = await write(store, 0, "before")
    for number in range(4):
        await write(store, number, "after")
    store.compact_to(store.version)
    await write(store, 9)  # behind the compaction in the writer's queue
    return before


async def test_a_version_that_is_compacted_away_is_said_to_be(store: Store) -> None:
    before = await _forgotten(store)
    with pytest.raises(Forgotten):
        _ = before.body
    assert value(store.get(key(0))) == "after"


async def test_lists_and_watches_that_are_too_slow_are_told_410(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await _forgotten(store)
    shelf = store.shelf(MAPS.storage)
    monkeypatch.setattr(type(shelf), "entries", lambda self, keys: [before])
    with pytest.raises(ApiError) as refused:
        await bodies(store, (await list_page(store, MAPS, ListOptions())).entries)
    assert refused.value.code == 410
    watch = streams.Watch(store, MAPS, streams.WatchOptions(initial=True), None)
    lines = [chunk async for chunk in watch.lines()]
    assert [orjson.loads(line)["object"]["code"] for line in lines] == [410]


async def test_writes_that_come_together_share_a_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    append = store_log.append

    def counted(connection: sqlite3.Connection, batch: list[Row]) -> None:
        sizes.append(len(batch))
        append(connection, batch)

    monkeypatch.setattr(store_log, "append", counted)
    await asyncio.gather(*(write(store, number) for number in range(100)))
    assert sizes == [100]


@pytest.mark.parametrize("count", [3, 64, 65, 300])
def test_a_batch_is_stored_whole_or_not_at_all(tmp_path: Path, count: int) -> None:
    connection = store_log.open_log(tmp_path / "db", "OFF")
    rows = [Row(n, 1, "r", "", f"n{n}", 0, b"{}") for n in range(1, count + 1)]
    store_log.append(connection, rows)
    assert list(store_log.bodies(connection, range(1, count + 1))) == [r.version for r in rows]
    more = [Row(n + count, 1, "r", "", "n", 0, b"{}") for n in range(1, count)]
    with pytest.raises(sqlite3.IntegrityError):
        store_log.append(connection, [*more, rows[0]])
    assert len(list(store_log.heads(connection))) == count
    connection.close()
