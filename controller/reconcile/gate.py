"""May the actuator run? Not before what the object refers to is there and Ready."""

from __future__ import annotations

from typing import Any

from controller.errors import Waiting
from controller.keys import Key
from controller.reconcile.actuator import Actuator
from controller.watch.store import ObjectStore, key_of
from crds.base import Resource
from crds.refs import Reference

NAMED = 3
"""How many objects a message names before it says how many more there are."""


def check_references(obj: Resource, actuator: Actuator[Any], store: ObjectStore) -> None:
    """Raise Waiting, naming what is missing, not ready or going away.

    An object that holds on to something that is being deleted passes in any case: it has to let
    go, and waiting here for what goes away would hold up both for ever.
    """
    if lets_go(obj, actuator, store):
        return
    problems = []
    for reference, target in store.targets(key_of(obj)):
        if reference.wait:
            problem = _problem(target, store)
            if problem and actuator.waits_for(obj, reference):
                problems.append(problem)
    if problems:
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise Waiting("; ".join(dict.fromkeys(problems[:NAMED])) + more)


def lets_go(obj: Resource, actuator: Actuator[Any], store: ObjectStore) -> bool:
    """Does ``obj`` hold on to anything that is being deleted and that it should let go?"""
    return any(
        reference.on_delete in ("detach", "stop")
        and store.deleting(target)
        and holding(obj, actuator, reference, target, store)
        for reference, target in store.targets(key_of(obj))
    )


def holding(
    obj: Resource | None,
    actuator: Actuator[Any] | None,
    reference: Reference,
    target: Key,
    store: ObjectStore,
) -> bool:
    """Does a referring object still hold on to ``target``? The actuator knows, if it overrides
    the default; what cannot be parsed is judged by the default, too."""
    if actuator is None or type(actuator).holds is Actuator.holds:
        return reference.path[0] == "status"
    parsed = store.share(target)
    if obj is None or parsed is None:
        return reference.path[0] == "status"
    return actuator.holds(obj, reference, parsed)


def _problem(target: Key, store: ObjectStore) -> str | None:
    entry = store.entry(target)
    if entry is None:
        return f"{target} does not exist; create it"
    if entry.deleting:
        return f"{target} is being deleted"
    if entry.ready:
        return None
    return f"{target} is not ready{_why(target, store)}"


def _why(target: Key, store: ObjectStore) -> str:
    """Its reason alone: the target's own status tells the rest, and whoever repeated that here
    would have to write it again at each of the target's steps."""
    obj = store.share(target)
    condition = obj.condition("Ready") if obj is not None else None
    if condition is None or condition.status == "True":
        return ""
    return f" ({condition.reason})"
