"""Quantities, times and lists by key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from crds.base import (
    Condition,
    ListMap,
    Model,
    Quantity,
    Timestamp,
    format_quantity,
    parse_quantity,
)

UNITS = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip


@given(st.integers(0, 10**9), st.integers(0, 999), st.sampled_from(sorted(UNITS)))
def test_a_quantity_is_exact_but_for_a_byte_s_fraction(whole: int, part: int, unit: str) -> None:
    exact = (whole + Fraction(part, 1000)) * UNITS[unit]
    assert parse_quantity(f"{whole}.{part:03}{unit}") == exact.numerator // exact.denominator


@given(st.integers(0, 2**70))
def test_plain_numbers_are_bytes(size: int) -> None:
    assert parse_quantity(size) == size
    assert parse_quantity(str(size)) == size


@given(st.integers(0, 2**62))
def test_a_quantity_for_people_is_near(size: int) -> None:
    assert abs(parse_quantity(format_quantity(size)) - size) <= size * 0.05


@given(st.integers(1, 1023), st.sampled_from(["Ki", "Mi", "Gi", "Ti"]))
def test_a_round_quantity_is_written_as_it_was(amount: int, unit: str) -> None:
    assert format_quantity(parse_quantity(f"{amount}{unit}")) == f"{amount}{unit}"


@pytest.mark.parametrize(
    "bad",
    ["", "Gi", "1K", "1 Gi", "-1", "1e3", "inf", "nan", ".5", "1.", "1Gi\n", "0x10", "9" * 25,
     True, None, 1.5, [], {}, "½", "\u0661"],
)  # fmt: skip
def test_what_is_no_quantity_says_how_to_write_one(bad: object) -> None:
    with pytest.raises(ValueError, match="write bytes as 512Mi, 10Gi or 1000000"):
        parse_quantity(bad)


def test_a_negative_quantity_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        TypeAdapter(Quantity).validate_python(-1)


class Moment(Model):
    at: Timestamp


@pytest.mark.parametrize(
    ("given_", "wire"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00.999+02:00", "2026-01-31T10:00:00Z"),
        ("2026-01-31T12:00:00", "2026-01-31T12:00:00Z"),
        (datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=-5))), "2026-01-31T17:00:00Z"),
        (datetime(99, 1, 31, 12, tzinfo=UTC), "0099-01-31T12:00:00Z"),
    ],
)
def test_times_are_utc_on_the_wire(given_: object, wire: str) -> None:
    assert Moment.model_validate({"at": given_}).wire() == {"at": wire}


def test_a_time_assigned_in_another_zone_is_utc_on_the_wire() -> None:
    moment = Moment(at=datetime(2026, 1, 1, tzinfo=UTC))
    moment.at = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert moment.wire() == {"at": "2026-01-01T00:00:00Z"}


def test_a_time_that_utc_does_not_have_is_refused() -> None:
    with pytest.raises(ValidationError, match="outside the years"):
        Moment.model_validate({"at": "0001-01-01T00:00:00+10:00"})


def test_a_list_map_has_no_doubles() -> None:
    conditions = TypeAdapter(Annotated[list[Condition], ListMap("type")])
    ready = {"type": "Ready", "status": "True", "reason": "Ready"}
    assert len(conditions.validate_python([ready, {**ready, "type": "Stalled"}])) == 2
    with pytest.raises(ValidationError, match="type 'Ready' is given twice"):
        conditions.validate_python([ready, ready])
