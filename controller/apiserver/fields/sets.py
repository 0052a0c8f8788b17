"""Sets of field paths, in the form in which managedFields has them (FieldsV1).

A set is a tree of dicts: ``{"f:spec": {"f:size": {}}}`` has the one path ``.spec.size``. A node
that is empty, or has the key ".", is itself in the set. The empty dict at the root is the empty
set. Sets are never changed: what an operation leaves as it was, it shares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

Set = dict[str, Any]
SELF = "."


def is_member(node: Set) -> bool:
    """Whether a node (not the root) is itself in the set."""
    return not node or SELF in node


def member(children: Set) -> Set:
    """A node that is in the set, with what is below it."""
    return {SELF: {}, **children} if children and SELF not in children else children


def union(left: Set, right: Set) -> Set:
    """What is in either."""
    if left is right or not right:
        return left
    if not left:
        return right
    found = dict(left)
    for key, node in right.items():
        before = found.get(key)
        found[key] = node if before is None else _union_node(before, node)
    return found


def _union_node(left: Set, right: Set) -> Set:
    if not left or not right:
        return member(left or right)
    return union(left, right)


def difference(left: Set, right: Set) -> Set:
    """What is in ``left`` and not in ``right``: ``left`` itself if they have nothing in common."""
    found: Set | None = None
    for key in right.keys() & left.keys():
        node = left[key]
        rest = _difference_node(node, right[key])
        if rest is node:
            continue
        if found is None:
            found = dict(left)
        if rest is None:
            del found[key]
        else:
            found[key] = rest
    return left if found is None else found


def _difference_node(left: Set, right: Set) -> Set | None:
    """None if nothing is left of the node."""
    taken = is_member(right)
    if not left:
        return None if taken else left
    rest = difference(left, {k: v for k, v in right.items() if k != SELF})
    if taken and SELF in rest:
        rest = {key: node for key, node in rest.items() if key != SELF}
        return rest or None
    if not rest:
        return None
    return {} if len(rest) == 1 and SELF in rest else rest


def intersection(left: Set, right: Set) -> Set:
    """What is in both."""
    found = {}
    for key in left.keys() & right.keys():
        both = _intersect_node(left[key], right[key])
        if both is not None:
            found[key] = both
    return found


def _intersect_node(left: Set, right: Set) -> Set | None:
    below = intersection(left, right)
    below.pop(SELF, None)
    if is_member(left) and is_member(right):
        return member(below)
    return below or None


def paths(found: Set, prefix: str = "") -> Iterator[str]:
    """The paths as error texts show them: those of one level, then those below, each sorted."""
    keys = sorted(key for key in found if key != SELF)
    for key in keys:
        if is_member(found[key]):
            yield prefix + _shown(key)
    for key in keys:
        if found[key]:
            yield from paths(found[key], prefix + _shown(key))


def _shown(key: str) -> str:
    """``.name``, ``[k="a",p=1]``, ``[="x"]`` or ``[3]``."""
    kind, _, text = key.partition(":")
    if kind == "f":
        return f".{text}"
    if kind == "v":
        return f"[={text}]"
    if kind == "k":
        pairs = orjson.loads(text).items()
        return "[" + ",".join(f"{k}={orjson.dumps(v).decode()}" for k, v in pairs) + "]"
    return f"[{text}]"


class BadSet(ValueError):
    """Not a set of fields."""


def decode(value: Any) -> Set:
    """A set that a client sent, made regular. Raises BadSet."""
    return _decode(value) or {}


def _decode(value: Any) -> Set | None:
    """None if nothing of the node remains."""
    if not isinstance(value, dict):
        raise BadSet("a set of fields is made of objects")
    found: Set = {}
    for key, node in value.items():
        if key == SELF:
            found[SELF] = {}
        elif key[:2] in ("f:", "v:", "k:", "i:"):
            below = _decode(node)
            if below is not None:
                found[_regular(key)] = below
    if value and not found:
        return None
    return {} if len(found) == 1 and SELF in found else found


def _regular(key: str) -> str:
    """Keys and values as JSON without spaces, names sorted."""
    if key[0] in "fi":
        return key
    try:
        parsed = orjson.loads(key[2:])
    except orjson.JSONDecodeError as error:
        raise BadSet(str(error)) from None
    if key[0] == "k" and not isinstance(parsed, dict):
        raise BadSet("the key of a list item is an object")
    return key[:2] + orjson.dumps(parsed, option=orjson.OPT_SORT_KEYS).decode()
