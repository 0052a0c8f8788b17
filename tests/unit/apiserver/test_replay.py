"""Whatever is written while watches come and go: what each has seen adds up to a list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.apiserver.catalog import Resource
from controller.apiserver.listing import ListOptions, list_page
from controller.apiserver.schema.structural import Node
from controller.apiserver.selectors import Selection, parse_fields, parse_labels
from controller.apiserver.store import ChangeType, ObjectKey, Store
from controller.apiserver.store.store import Limits
from controller.apiserver.streams import Watch, WatchOptions

RESOURCE = Resource(
    "x.y", "v1", "Thing", "things", "thing", True, Node(preserve=True),
    storage="x.y/things", stored_as="x.y/v1",
)  # fmt: skip
LAST = "zz"
SELECTIONS = {
    "all": Selection(),
    "labels": Selection(labels=parse_labels("tier in (1,2),!off")),
    "not": Selection(labels=parse_labels("tier!=1")),
    "name": Selection(fields=parse_fields("metadata.name!=a")),
}
HOW = ("list", "initial", "list, outlet", "initial, outlet")
"""How a watch begins, and whether it has an outlet."""
NAMES = st.sampled_from("abc")
LABELS = st.sampled_from(
    [{}, {"tier": "1"}, {"tier": "2"}, {"tier": "3"}, {"tier": "1", "off": ""}]
)
STEPS = st.one_of(
    st.tuples(st.just("put"), NAMES, LABELS),
    st.tuples(st.just("put"), NAMES, LABELS),
    st.tuples(st.just("drop"), NAMES, st.none()),
    st.tuples(st.just("watch"), st.sampled_from(sorted(SELECTIONS)), st.sampled_from(HOW)),
    st.tuples(st.just("watch"), st.sampled_from(sorted(SELECTIONS)), st.sampled_from(HOW)),
    st.tuples(st.just("read"), st.integers(0, 3), st.none()),
)


class Watcher:
    """A client: lists or has the existing objects sent, then follows."""

    def __init__(self, store: Store, selection: str) -> None:
        self.selection = SELECTIONS[selection]
        self._store = store
        self.seen: dict[str, Any] = {}
        self.version = 0
        self.done = False
        self.direct = 0
        self._lines: AsyncGenerator[bytes, None] | None = None
        self._reading: asyncio.Future[None] | None = None

    async def start(self, *, listing: bool, outlet: bool) -> None:
        version = None
        if listing:
            page = await list_page(self._store, RESOURCE, self._list())
            self.seen = {
                o["metadata"]["name"]: o for o in (entry.object() for entry in page.entries)
            }
            self.version = version = page.version
        options = WatchOptions(
            "ns", self.selection, version, initial=not listing, initial_end=not listing, seconds=60
        )
        watch = Watch(self._store, RESOURCE, options, None)
        watch.outlet = self._send if outlet else None
        self._lines = watch.lines()

    async def read(self, turns: int) -> None:
        """For some turns of the loop; what is being waited for then goes on next time."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._follow())
        for _ in range(turns):
            await asyncio.sleep(0)
        if self._reading.done():
            await self._reading

    async def _follow(self) -> None:
        assert self._lines is not None
        async for chunk in self._lines:
            self._read(chunk)
            if self.done:
                return

    def _send(self, chunk: bytes) -> bool:
        """As an outlet that is behind now and then."""
        self._read(chunk)
        self.direct += 1
        return self.direct % 3 != 0 and not self.done

    def _read(self, chunk: bytes) -> None:
        for line in chunk.splitlines():
            self._take(orjson.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        wire, type_ = event["object"], event["type"]
        assert type_ != "ERROR", wire
        version = int(wire["metadata"]["resourceVersion"])
        if type_ == "BOOKMARK":
            self.version = max(self.version, version)
            return
        name = wire["metadata"]["name"]
        if type_ == "DELETED":
            del self.seen[name]  # nothing goes that was not there
        else:
            assert (type_ == "ADDED") == (name not in self.seen)
            self.seen[name] = wire
        self.version = max(self.version, version)
        self.done = self.done or name == LAST

    async def agree(self) -> None:
        """Read to the last object; then what was seen is what a list of that version has."""
        await self.read(0)
        assert self._reading is not None
        await asyncio.wait_for(self._reading, 10)
        page = await list_page(self._store, RESOURCE, self._list(self.version))
        assert self.seen == {
            o["metadata"]["name"]: o for o in (entry.object() for entry in page.entries)
        }

    def _list(self, version: int | None = None) -> ListOptions:
        match = "Exact" if version else ""
        return ListOptions("ns", self.selection, version=version, match=match)

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._lines is not None:
            await self._lines.aclose()


async def _put(store: Store, name: str, labels: dict[str, str]) -> None:
    key = ObjectKey(RESOURCE.storage, "ns", name)
    type_ = ChangeType.MODIFIED if store.head(key) else ChangeType.ADDED

    def body(version: int) -> bytes:
        metadata = {
            "name": name, "namespace": "ns", "labels": labels, "resourceVersion": str(version),
        }  # fmt: skip
        return orjson.dumps({"apiVersion": "x.y/v1", "kind": "Thing", "metadata": metadata})

    await store.write(type_, key, body)


async def _drop(store: Store, name: str) -> None:
    key = ObjectKey(RESOURCE.storage, "ns", name)
    old = store.head(key)
    if old is None:
        return

    def body(version: int) -> bytes:
        wire = old.object()
        wire["metadata"]["resourceVersion"] = str(version)
        return orjson.dumps(wire)

    await store.write(ChangeType.DELETED, key, body)


async def _play(directory: Path, steps: list[Any]) -> list[Watcher]:
    """The watches that there were."""
    store = Store(directory / "db", "OFF", Limits(ring_changes=3))
    await store.start()
    watchers: list[Watcher] = []
    await _put(store, "first", {})  # no list of a server has version 0, which means any
    try:
        for verb, what, how in steps:
            if verb == "put":
                await _put(store, what, how)
            elif verb == "drop":
                await _drop(store, what)
            elif verb == "watch":
                watchers.append(Watcher(store, what))
                await watchers[-1].start(listing="list" in how, outlet="outlet" in how)
            elif what < len(watchers):
                await watchers[what].read(5)
        await _put(store, LAST, {"tier": "2"})
        for watcher in watchers:
            await watcher.agree()
    finally:
        for watcher in watchers:
            await watcher.close()
        await store.close()
    return watchers


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, min_size=10, max_size=30))
def test_every_watch_adds_up_to_a_list(tmp_path_factory: Any, steps: list[Any]) -> None:
    asyncio.run(_play(tmp_path_factory.mktemp("replay"), steps))


def test_what_is_read_while_nothing_comes_is_sent_directly(tmp_path: Path) -> None:
    """So that the test above is one of outlets, too."""
    read = ("read", 0, None)
    steps: list[Any] = [("watch", "all", "list, outlet"), read, *([("put", "a", {}), read] * 4)]
    (watcher,) = asyncio.run(_play(tmp_path, steps))
    assert watcher.direct >= 4
