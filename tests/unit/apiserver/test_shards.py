"""Shard selectors: the hash, what is understood, and that ranges partition what there is."""

from __future__ import annotations

import itertools
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.apiserver.errors import ApiError
from controller.apiserver.shards import END, ShardSelector, fnv1a_64, parse_shards


def term(start: int, end: int, field: str = "uid") -> str:
    return f"shardRange(object.metadata.{field}, '{start:#018x}', '{end:#018x}')"


def parsed(text: str) -> ShardSelector:
    found = parse_shards(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 0xCBF29CE484222325),
        ("a", 0xAF63DC4C8601EC8C),
        ("foobar", 0x85944171F73967E8),
    ],
)
def test_the_hash_is_the_published_one(text: str, value: int) -> None:
    assert fnv1a_64(text) == value


@given(
    st.lists(st.integers(1, END - 1), unique=True, max_size=6),
    st.lists(st.integers(0, 2**128 - 1), max_size=20),
)
def test_every_object_is_in_one_of_the_shards(cuts: list[int], numbers: list[int]) -> None:
    edges = [0, *sorted(cuts), END]
    shards = [parsed(term(*pair)) for pair in itertools.pairwise(edges)]
    whole = parsed(" || ".join(shard.text for shard in shards))
    assert whole.bounds == (0, END)
    for number in numbers:
        uid = str(uuid.UUID(int=number))
        assert sum(shard.holds(uid) for shard in shards) == 1
        assert whole.matches({"metadata": {"uid": uid}})


def test_a_start_is_inside_and_an_end_is_not() -> None:
    uid = "8f7c10b3-6dac-4f51-a5d0-87078622ab56"
    at = fnv1a_64(uid)
    assert parsed(term(at, at + 1)).holds(uid)
    assert not parsed(term(at + 1, END)).holds(uid)
    assert not parsed(term(0, at)).holds(uid)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=8))
def test_ranges_may_overlap(pairs: list[tuple[int, int]]) -> None:
    unit = END // 64
    ranges = [(low * unit, high * unit) for low, high in pairs if low < high] or [(0, unit)]
    found = parsed(" || ".join(term(*pair) for pair in ranges))
    assert list(found.bounds) == sorted(set(found.bounds))
    for number in range(40):
        uid = str(number)
        inside = any(low <= fnv1a_64(uid) < high for low, high in ranges)
        assert found.holds(uid) == inside


def test_the_namespace_may_decide() -> None:
    at = fnv1a_64("tenant")
    found = parsed(term(at, at + 1, "namespace"))
    assert found.matches({"metadata": {"namespace": "tenant", "uid": "x"}})
    assert not found.matches({"metadata": {"namespace": "other", "uid": "x"}})


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "foo",
        "true",
        term(0, 1, "name"),
        term(1, 1),
        term(2, 1),
        term(END, END),
        f"{term(0, 1)} || {term(1, 2, 'namespace')}",
        f"{term(0, 1)} && {term(1, 2)}",
        f"{term(0, 1)} ||",
        f"({term(0, 1)}",
        f"{term(0, 1)})",
        f"!{term(0, 1)}",
        "shardRange()",
        "shardRange(object.metadata.uid, '0x0', '0x8')",
        "shardRange(object.metadata.uid, '0x0000000000000000')",
        "shardRange(object.metadata.uid, 0x0000000000000000, 0x8000000000000000)",
        "shardRange(object.metadata.uid, '0x0000000000000000', '0xABCD000000000000')",
        "shardRange(object.metadata.uid, '0x0000000000000000', '0x20000000000000000')",
        "shardRange(object.metadata.uid, '8000000000000000', '0x9000000000000000')",
    ],
)
def test_what_is_malformed_is_a_bad_request(text: str) -> None:
    with pytest.raises(ApiError, match="invalid shard selector: ") as found:
        parse_shards(text)
    assert found.value.code == 400


@given(st.text("shardRnge(),|'\"0x8objct.mdaui \n\0é", max_size=60) | st.text(max_size=20))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        parse_shards(text)
    except ApiError as error:
        assert error.code == 400
