"""Copies of the store: consistent under writes, refused where they would harm; the schema."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from controller.apiserver.store import (
    ChangeType,
    CorruptStore,
    ObjectKey,
    Store,
    StoreInUse,
    backup,
    schema,
)
from controller.apiserver.store import log as store_log

RESOURCE = "example.com/widgets"


def key(name: str) -> ObjectKey:
    return ObjectKey(RESOURCE, "ns", name)


def body(value: Any) -> Any:
    return lambda version: orjson.dumps({"v": value, "rv": version})


def state(store: Store) -> dict[str, tuple[int, bytes]]:
    shelf = store.shelf(RESOURCE)
    keys = shelf.keys()
    return {k[1]: (e.version, e.body) for k, e in zip(keys, shelf.entries(keys), strict=True)}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    found = Store(tmp_path / "db", "OFF")
    await found.start()
    yield found
    await found.close()


async def opened(path: Path) -> Store:
    found = Store(path, "OFF")
    await found.start()
    return found


async def test_a_backup_is_the_state_at_one_moment(store: Store, tmp_path: Path) -> None:
    """Every write changes two objects alike, one after the other."""
    going = True

    async def write() -> None:
        for number in range(10_000):
            if not going:
                break
            for name in ("a", "b"):
                type_ = ChangeType.MODIFIED if number else ChangeType.ADDED
                await store.write(type_, key(name), body(number))

    writer = asyncio.create_task(write())
    await asyncio.sleep(0.05)
    found = await asyncio.to_thread(backup.backup, tmp_path / "db", tmp_path / "copy")
    before = store.version
    while store.version == before:  # it goes on
        await asyncio.sleep(0.01)
    going = False
    await writer
    assert found.objects == 2
    assert found.version <= before
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0
    copy = await opened(tmp_path / "copy")
    values = {name: orjson.loads(raw)["v"] for name, (_, raw) in state(copy).items()}
    assert 0 <= values["a"] - values["b"] <= 1
    assert copy.version == found.version
    await copy.close()


async def test_a_backup_does_not_overwrite(store: Store, tmp_path: Path) -> None:
    (tmp_path / "copy").write_text("precious")
    with pytest.raises(FileExistsError, match="choose another name"):
        backup.backup(tmp_path / "db", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "precious"
    with pytest.raises(FileNotFoundError):
        backup.backup(tmp_path / "none", tmp_path / "other")
    assert not (tmp_path / "other").exists()


async def test_restored_objects_have_versions_of_their_own(tmp_path: Path) -> None:
    """What clients saw after the backup must not be taken for what is written after the restore."""
    store = await opened(tmp_path / "db")
    await store.write(ChangeType.ADDED, key("a"), body("kept"))
    summary = backup.backup(tmp_path / "db", tmp_path / "copy")
    await store.write(ChangeType.MODIFIED, key("a"), body("lost"))
    await store.write(ChangeType.ADDED, key("b"), body("lost"))
    seen = store.version
    await store.close()
    assert backup.restore(tmp_path / "copy", tmp_path / "db") == summary
    again = await opened(tmp_path / "db")
    assert [orjson.loads(raw)["v"] for _, raw in state(again).values()] == ["kept"]
    assert again.version > seen
    with pytest.raises(KeyError):  # 410 for watchers: they list again
        async for _ in again.resume(RESOURCE, seen):
            pass
    entry = await again.write(ChangeType.ADDED, key("c"), body(1))
    assert entry.version > seen
    await again.close()
    kept = tmp_path / "db.before-restore"
    old = await opened(kept)
    assert sorted(state(old)) == ["a", "b"]
    await old.close()


async def test_a_restore_to_nothing(tmp_path: Path) -> None:
    store = await opened(tmp_path / "db")
    await store.write(ChangeType.ADDED, key("a"), body(1))
    backup.backup(tmp_path / "db", tmp_path / "copy")
    await store.close()
    backup.restore(tmp_path / "copy", tmp_path / "new" / "db")
    again = await opened(tmp_path / "new" / "db")
    assert sorted(state(again)) == ["a"]
    await again.close()


async def test_a_damaged_database_can_be_replaced(tmp_path: Path) -> None:
    store = await opened(tmp_path / "db")
    await store.write(ChangeType.ADDED, key("a"), body(1))
    backup.backup(tmp_path / "db", tmp_path / "copy")
    await store.close()
    (tmp_path / "db").write_bytes(b"no database" * 1000)
    backup.restore(tmp_path / "copy", tmp_path / "db")
    again = await opened(tmp_path / "db")
    assert sorted(state(again)) == ["a"]
    await again.close()


async def test_a_running_server_is_not_replaced(store: Store, tmp_path: Path) -> None:
    await store.write(ChangeType.ADDED, key("a"), body(1))
    backup.backup(tmp_path / "db", tmp_path / "copy")
    with pytest.raises(StoreInUse, match=f"in use by process {os.getpid()}"):
        backup.restore(tmp_path / "copy", tmp_path / "db")
    with pytest.raises(StoreInUse):
        await Store(tmp_path / "db", "OFF").start()
    await store.write(ChangeType.MODIFIED, key("a"), body(2))


@pytest.mark.parametrize("content", [b"", b"hello" * 1000])
def test_what_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "copy").write_bytes(content)
    with pytest.raises(CorruptStore, match=r"no (sound )?backup"):
        backup.restore(tmp_path / "copy", tmp_path / "db")
    assert not (tmp_path / "db").exists()


async def test_damage_is_found(tmp_path: Path) -> None:
    store = await opened(tmp_path / "db")
    for number in range(300):
        await store.write(ChangeType.ADDED, key(f"n{number}"), body("x" * 500))
    await store.close()
    raw = bytearray((tmp_path / "db").read_bytes())
    page = 3 * store_log.PAGE_BYTES
    raw[page : page + 512] = b"\xff" * 512
    (tmp_path / "db").write_bytes(raw)
    with pytest.raises(CorruptStore, match=r"damaged .*\(kumulus restore"):
        await opened(tmp_path / "db")
    (tmp_path / "copy").write_bytes(raw)
    with pytest.raises(CorruptStore):
        backup.restore(tmp_path / "copy", tmp_path / "db")
    with pytest.raises(CorruptStore):
        backup.backup(tmp_path / "db", tmp_path / "other")
    assert not (tmp_path / "other").exists()


async def test_the_check_ends_in_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = await opened(tmp_path / "db")
    for number in range(2000):
        store.write(ChangeType.ADDED, key(f"n{number}"), body("x" * 1000))
    await store.close()
    with closing(sqlite3.connect(tmp_path / "db")) as connection:
        assert schema.check(connection, tmp_path / "db", 0.0) is False
        assert schema.check(connection, tmp_path / "db") is True
    assert "not checked to its end" in caplog.text


# The schema


async def test_a_newer_database_is_a_clear_error(tmp_path: Path) -> None:
    await (await opened(tmp_path / "db")).close()
    with closing(sqlite3.connect(tmp_path / "db")) as connection:
        connection.execute(f"PRAGMA user_version={schema.SCHEMA_VERSION + 1}")
    with pytest.raises(CorruptStore, match=r"newer Kumulus \(schema 2, this one knows 1\)"):
        await opened(tmp_path / "db")
    with pytest.raises(CorruptStore, match="schema 2"):
        backup.restore(tmp_path / "db", tmp_path / "other")


NEXT = {
    **schema.STEPS,
    2: ("ALTER TABLE log ADD COLUMN author TEXT NOT NULL DEFAULT 'nobody'",),
    3: ("CREATE INDEX by_author ON log (author)",),
}


async def test_an_older_database_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "db"
    store = await opened(path)
    await store.write(ChangeType.ADDED, key("a"), body(1))
    await store.close()
    with closing(store_log.open_reader(path)) as connection:
        connection.execute("PRAGMA query_only=0")
        schema.migrate(connection, path, NEXT)
        assert schema.version_of(connection) == 3
        assert connection.execute("SELECT author FROM log").fetchall() == [("nobody",)]
    kept = await opened(tmp_path / "db.schema-1")
    assert sorted(state(kept)) == ["a"]
    await kept.close()


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db"
    await (await opened(path)).close()
    broken = {**NEXT, 3: ("CREATE INDEX by_nothing ON log (nothing)",)}
    with closing(store_log.open_reader(path)) as connection:
        connection.execute("PRAGMA query_only=0")
        with pytest.raises(sqlite3.OperationalError):
            schema.migrate(connection, path, broken)
    await (await opened(path)).close()
