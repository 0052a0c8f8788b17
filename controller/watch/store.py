"""The local copy of the API's objects, with the index of who refers to whom.

Objects are kept as compact JSON, a fifth of what a parsed object takes. Who is going to change an
object gets one parsed anew (``load``): that is 3.6 times cheaper than a deep copy of a parsed one
(73 against 265 microseconds for a virtual machine). Those who only look (``get``, ``list``,
``referrers``) share the parsed objects that were looked at last.

Kinds that replicas divide among themselves are *held* in part: in full the objects that lie on
this replica's arcs (``hold``), those that these refer to, and those that these have made. Of the
others there is an Entry without JSON, and their references: a host, a network or a storage sees by
them who still uses it, whoever works on that. ``lacking`` says what is to be read before work on
an object begins.

What the status writer gets back from the API goes in at once (``own``); the same or an older
version that the watch brings later is dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from pydantic import ValidationError

from controller import metrics
from controller.errors import Elsewhere
from controller.keys import Key
from controller.sharding.arcs import EVERYTHING, Arcs
from controller.watch.base import Change, Raw
from controller.watch.changed import PROTECT, Changed
from controller.watch.entry import Entry, entry_of, owners_of, vanishing, version_of
from controller.watch.index import Edge, Edges, RefIndex
from crds.base import Resource
from crds.refs import Reference, held

TOMBSTONES = 8192
ASKED = 256
"""Objects held because somebody asked for them by name."""
SOON = 0.1
"""Seconds."""
SHARED = 1024
"""Parsed objects kept for readers; about 10 KB each."""
DELAY = "Delay"


class ObjectStore:
    """Implements reconcile.actuator.Store. Every method is quick and does no I/O.

    ``quiet`` names the status fields of a kind whose change concerns nobody else; ``divided`` the
    kinds that are held in part. All is held until the first hold().
    """

    def __init__(
        self,
        models: Mapping[str, type[Resource]],
        quiet: Mapping[str, frozenset[str]] | None = None,
        divided: frozenset[str] = frozenset(),
    ) -> None:
        self._models = dict(models)
        self._quiet = dict(quiet or {})
        self._divided = divided
        self._arcs = EVERYTHING
        self._namespaced = {kind: model.INFO.namespaced for kind, model in models.items()}
        self._entries: dict[str, dict[str, dict[str, Entry]]] = {kind: {} for kind in models}
        self._sizes = dict.fromkeys(models, 0)
        self._index = RefIndex()
        self._edges_to: dict[tuple[Reference, str], Edge] = {}
        self._owned: dict[str, tuple[Key, ...]] = {}
        self._protected = 0
        self._dead: OrderedDict[str, None] = OrderedDict()
        self._asked: OrderedDict[Key, None] = OrderedDict()
        self._shared: OrderedDict[Key, tuple[Entry, Any]] = OrderedDict()
        # Looking up a metric's labels costs more than counting.
        self._counts = {
            (kind, done): metrics.WATCH_EVENTS.labels(kind, "applied" if done else "stale")
            for kind in models
            for done in (True, False)
        }
        for kind in models:
            metrics.OBJECTS.labels(kind).set_function(partial(self._sizes.__getitem__, kind))
        self._listeners: list[Callable[[Changed], None]] = []

    def subscribe(self, listener: Callable[[Changed], None]) -> None:
        """Call ``listener`` after every change, within apply()."""
        self._listeners.append(listener)

    # -- writing

    def apply(self, change: Change, kind: str, raw: Raw, *, own: bool = False) -> bool:
        """Take in what a source or (``own``) the status writer brings; False: it was old news."""
        meta = raw["metadata"]
        if kind not in self._models:
            return False
        key = Key(kind, meta.get("namespace") or "", meta["name"])
        gone = change is Change.GONE or vanishing(meta)
        done = self._remove(key, raw, own) if gone else self._put(key, raw, own)
        self._counts[kind, done].inc()
        return done

    def _put(self, key: Key, raw: Raw, own: bool) -> bool:
        old, meta = self.entry(key), raw["metadata"]
        uid, version = str(meta.get("uid", "")), version_of(meta)
        if uid in self._dead:
            return False
        held = self._is_needed(key, uid, owners_of(meta))
        if old and version and version <= old.version:
            missing = held and not old.held
            if not (missing and version == old.version):
                return False
        key = old.key if old else key
        new = entry_of(key, raw, self._quiet.get(key.kind, frozenset()), held=held)
        self._enter(key, old, new)
        known = old is not None and (old.uid, old.content) == (new.uid, new.content)
        edges = self._index.targets(key) if known else self._edges(key, raw)
        self._tell(key, raw, edges, own=own, old=old, new=new)
        return True

    def _remove(self, key: Key, raw: Raw, own: bool) -> bool:
        uid = str(raw["metadata"].get("uid", ""))
        self._bury(uid)
        old = self.entry(key)
        if old is None or old.uid != uid:
            return False
        self._enter(key, old, None)
        self._tell(key, raw, (), own=own, old=old, new=None)
        return True

    def _enter(self, key: Key, old: Entry | None, new: Entry | None) -> None:
        """Replace an entry, and what is counted and indexed of it."""
        spaces = self._entries[key.kind]
        if old is None or new is None or old.owners != new.owners:
            self._set_owners(key, old.owners if old else (), new.owners if new else ())
        self._protected += int(new is not None and new.policy == PROTECT)
        self._protected -= int(old is not None and old.policy == PROTECT)
        self._sizes[key.kind] += int(new is not None) - int(old is not None)
        if new is not None:
            spaces.setdefault(key.namespace, {})[key.name] = new
        else:
            self._shared.pop(key, None)
            del spaces[key.namespace][key.name]
            if not spaces[key.namespace]:
                del spaces[key.namespace]

    def _set_owners(self, key: Key, old: tuple[str, ...], new: tuple[str, ...]) -> None:
        for owner in old:
            left = tuple(one for one in self._owned.pop(owner) if one != key)
            if left:
                self._owned[owner] = left
        for owner in new:
            self._owned[owner] = (*self._owned.get(owner, ()), key)

    def forget(self, key: Key) -> None:
        """Drop what other replicas look after now. It is not gone: nobody is told, and it may come
        back."""
        old = self.entry(key)
        if old is not None:
            self._enter(key, old, None)
            self._index.set(key, ())

    def _bury(self, uid: str) -> None:
        """Remember a dead uid for a while: its late events must not bring the object back."""
        self._dead[uid] = None
        if len(self._dead) > TOMBSTONES:
            self._dead.popitem(last=False)

    def _tell(
        self, key: Key, raw: Raw, edges: Edges, *, own: bool, old: Entry | None, new: Entry | None
    ) -> None:
        fresh = old is None or new is None or old.uid != new.uid
        loud = fresh or old.digest != new.digest  # type: ignore[union-attr]
        news = fresh or old.content != new.content  # type: ignore[union-attr]
        before = self._index.set(key, edges)
        owners = self._owners(key, raw["metadata"])
        changed = Changed(key, own, loud, news, old, new, before, edges, owners, raw)
        for listener in self._listeners:
            listener(changed)

    def _owners(self, key: Key, meta: Mapping[str, Any]) -> frozenset[Key]:
        owners = meta.get("ownerReferences") or ()
        return frozenset(
            Key(o["kind"], key.namespace if self._namespaced[o["kind"]] else "", o["name"])
            for o in owners
            if o.get("kind") in self._models
        )

    def _edges(self, key: Key, raw: Raw) -> Edges:
        namespace = key.namespace
        return tuple(
            self._edge(reference, namespace, name)
            for reference, name in held(raw, self._models[key.kind])
        )

    def _edge(self, reference: Reference, namespace: str, name: str) -> Edge:
        if self._namespaced.get(reference.target, True):
            return reference, self._canonical(Key(reference.target, namespace, name))
        # Infrastructure is referred to by all: one and the same for everybody.
        edge = self._edges_to.get((reference, name))
        if edge is None:
            edge = reference, Key(reference.target, "", name)
            self._edges_to[reference, name] = edge
        return edge

    def _canonical(self, key: Key) -> Key:
        entry = self.entry(key)
        return entry.key if entry else key

    # -- what is held

    def hold(self, arcs: Arcs) -> None:
        """Of the divided kinds, hold what lies in ``arcs``. What is lost is let go of at once;
        what is gained has to be read again."""
        lost = self._arcs - arcs
        self._arcs = arcs
        for entry in self._divided_entries() if lost else ():
            if entry.held and not self._is_needed(entry.key, entry.uid, entry.owners):
                entry.raw = b""
                self._shared.pop(entry.key, None)

    def lacking(self, key: Key) -> list[Key]:
        """What work on ``key`` may look at, and is not held here: itself, what it refers to, what
        it has made, and what was asked for by name."""
        if not self._divided:
            return []
        wanted = {
            key,
            *(target for reference, target in self._index.targets(key) if _looks(reference)),
            *self.owned(key),
            *self._asked,
        }
        return [one for one in wanted if (entry := self.entry(one)) and not entry.held]

    def _is_needed(self, key: Key, uid: str, owners: tuple[str, ...]) -> bool:
        if key.kind not in self._divided or self._arcs == EVERYTHING or key in self._asked:
            return True
        covers = self._arcs.covers
        return covers(uid) or any(map(covers, owners)) or self._is_used(key)

    def _is_used(self, key: Key) -> bool:
        """Does anything that lies on our arcs refer to it?"""
        for source, found in self._index.referrers(key).items():
            entry = self.entry(source)
            if entry is not None and entry.place in self._arcs and any(map(_looks, found)):
                return True
        return False

    def _ask(self, key: Key) -> None:
        self._asked[key] = None
        if len(self._asked) > ASKED:
            self._asked.popitem(last=False)

    def _divided_entries(self) -> Iterator[Entry]:
        for kind in self._divided:
            for space in self._entries[kind].values():
                yield from space.values()

    # -- reading: reconcile.actuator.Store

    def get(self, kind: str, name: str, namespace: str = "") -> Any:
        key = Key(kind, namespace if self._namespaced.get(kind, True) else "", name)
        entry = self.entry(key)
        if entry is not None and not entry.held:
            self._ask(key)
            raise Elsewhere(f"{key} is being read", retry_after=SOON)
        return self.share(key)

    def list(self, kind: str, namespace: str | None = None) -> Iterator[Any]:
        for key in self.keys(kind, namespace):
            obj = self.share(key)
            if obj is not None:
                yield obj

    def referrers(
        self, target: Resource, kind: str | None = None
    ) -> Iterator[tuple[Any, Reference]]:
        for key, reference in self.users(key_of(target), kind):
            obj = self.share(key)
            if obj is not None:
                yield obj, reference

    def users(self, target: Key, kind: str | None = None) -> Iterator[tuple[Key, Reference]]:
        for key, found in dict(self._index.referrers(target)).items():
            if kind in (None, key.kind):
                yield from ((key, reference) for reference in found)

    def with_uid(self, kind: str, uid: str) -> Key | None:
        for space in self._entries[kind].values():
            for entry in space.values():
                if entry.uid == uid:
                    return entry.key
        return None

    def doomed(self, obj: Resource) -> bool:
        return obj.deleting or self.doomed_key(key_of(obj))

    def share(self, key: Key) -> Any:
        """As load(), but nobody may change it: others look at the same one."""
        entry = self.entry(key)
        if entry is None:
            return None
        found = self._shared.get(key)
        if found is not None and found[0] is entry:
            self._shared.move_to_end(key)
            return found[1]
        parsed = self.parse(key.kind, entry)
        if parsed is not None:
            self._shared[key] = (entry, parsed)
            if len(self._shared) > SHARED:
                self._shared.popitem(last=False)
        return parsed

    # -- reading: the core's own

    def load(self, key: Key) -> Any:
        """A fresh copy; None if it is not here, or cannot be parsed (``Entry.invalid``)."""
        entry = self.entry(key)
        return None if entry is None else self.parse(key.kind, entry)

    def parse(self, kind: str, entry: Entry) -> Any:
        """As load(), of an entry that may no longer be in the store."""
        if entry.invalid is not None or not entry.held:
            return None
        try:
            return self._models[kind].model_validate_json(entry.raw)
        except ValidationError as error:
            entry.invalid = explain(error)
            return None

    def entry(self, key: Key) -> Entry | None:
        space = self._entries.get(key.kind, _EMPTY).get(key.namespace)
        return space.get(key.name) if space is not None else None

    def keys(self, kind: str, namespace: str | None = None) -> tuple[Key, ...]:
        spaces = self._entries.get(kind, _EMPTY)
        if namespace is not None:
            return tuple(entry.key for entry in spaces.get(namespace, {}).values())
        return tuple(entry.key for space in spaces.values() for entry in space.values())

    def dependents(self, key: Key) -> Mapping[Key, tuple[Reference, ...]]:
        """What refers to ``key``, parsed or not, and by which references."""
        return self._index.referrers(key)

    def owned(self, key: Key) -> tuple[Key, ...]:
        """What names the object that ``key`` is now as its owner."""
        entry = self.entry(key)
        return self._owned.get(entry.uid, ()) if entry else ()

    def protected(self, key: Key) -> bool:
        """Is its ``spec.deletionPolicy`` Protect?"""
        return self._has_policy(key, PROTECT)

    def delayed(self, key: Key) -> bool:
        """Is its ``spec.deletionPolicy`` Delay?"""
        return self._has_policy(key, DELAY)

    def protects(self) -> bool:
        """Is anything protected at all?"""
        return self._protected > 0

    def _has_policy(self, key: Key, policy: str) -> bool:
        entry = self.entry(key)
        return entry is not None and entry.policy == policy

    def targets(self, key: Key) -> Edges:
        return self._index.targets(key)

    def deleting(self, key: Key) -> bool:
        entry = self.entry(key)
        return entry is not None and entry.deleting

    def doomed_key(self, key: Key) -> bool:
        """True if it, or anything that it is deleted with, is being deleted."""
        return any(self.deleting(one) for one in self.line(key))

    def goes_along(self, obj: Resource) -> bool:
        """Is anything that it is deleted with being deleted, other than itself?"""
        key = key_of(obj)
        return any(self.deleting(one) for one in self.line(key) if one != key)

    def line(self, key: Key) -> Iterator[Key]:
        """``key`` and everything that it is deleted with, transitively."""
        seen, todo = {key}, [key]
        while todo:
            current = todo.pop()
            yield current
            above = {t for r, t in self._index.targets(current) if r.on_delete == "cascade"}
            todo += above - seen
            seen |= above


_EMPTY: dict[str, dict[str, Entry]] = {}


def _looks(reference: Reference) -> bool:
    """Does who has such a reference look at its target? Where nothing happens to it when the
    target is deleted, it only names it."""
    return reference.on_delete != "keep"


def key_of(obj: Resource) -> Key:
    """The key of a parsed object."""
    return Key(obj.kind or type(obj).__name__, obj.metadata.namespace or "", obj.metadata.name)


def explain(error: ValidationError) -> str:
    """What is wrong, naming the fields, without the values (they may be secret)."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in problems[:8]
    )
