"""Quantities: https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-quantity-library

A quantity is kept in billionths, the smallest unit that Kubernetes has, as decimal text: it may be
more than an integer of CEL can be.
"""

from __future__ import annotations

import re
from decimal import ROUND_UP, Context, Decimal, DecimalException
from typing import Any

from controller.apiserver.cel.functions import Function, Opaque, T, member, plain

QUANTITY = Opaque("kubernetes.Quantity")
_FORM = re.compile(
    r"([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:[eE]([+-]?\d{1,9})|([numkMGTPE]|[KMGTPE]i)?)\Z", re.ASCII
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_NANO = 10**9
_LARGEST = 2**63 - 1
_EXACT = Context(prec=400, Emax=999_999_999_999, Emin=-999_999_999_999, rounding=ROUND_UP)


def parse(text: str) -> int:
    """In billionths: what is finer is rounded up, what is more than 2⁶³-1 is cut to that.
    Raises ValueError."""
    match = _FORM.match(text) if len(text) <= 256 else None
    if match is None:
        raise ValueError(
            "quantities must match the regular expression "
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    sign, digits, exponent, suffix = match.groups()
    found = _EXACT.create_decimal(digits)
    if suffix in _BINARY:
        found = _EXACT.multiply(found, Decimal(1024 ** _BINARY[suffix]))
    else:
        power = int(exponent) if exponent else _DECIMAL[suffix or ""]
        found = _EXACT.scaleb(found, power)
    return -_nano(found) if sign == "-" else _nano(found)


def _nano(found: Decimal) -> int:
    if found >= _LARGEST:
        return _LARGEST * _NANO
    try:
        return int(found.scaleb(9, _EXACT).quantize(Decimal(1), ROUND_UP, _EXACT))
    except DecimalException:
        raise ValueError("unable to parse quantity's suffix") from None


def is_quantity(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _make(nano: int) -> Any:
    return QUANTITY.wrap(str(nano))


def number(value: Any) -> int:
    """A quantity in billionths; an integer of CEL stands for itself."""
    return value * _NANO if isinstance(value, int) else int(QUANTITY.unwrap(value))


def compare(one: Any, other: Any) -> int:
    left, right = number(one), number(other)
    return (left > right) - (left < right)


def _is_integer(value: Any) -> bool:
    return number(value) % _NANO == 0 and abs(number(value)) <= _LARGEST * _NANO


def _as_integer(value: Any) -> int:
    if not _is_integer(value):
        raise ValueError("cannot convert value to integer")
    return number(value) // _NANO


_Q, _I = QUANTITY.type, T.INT
FUNCTIONS: tuple[Function, ...] = (
    plain("quantity", lambda text: _make(parse(text)), ("string_to_quantity", _Q, (T.STRING,))),
    plain("isQuantity", is_quantity, ("is_quantity_string", T.BOOL, (T.STRING,))),
    plain("sign", lambda v: compare(v, 0), ("quantity_sign", _I, (_Q,))),
    member("isInteger", _is_integer, ("quantity_is_integer", T.BOOL, (_Q,))),
    member("asInteger", _as_integer, ("quantity_get_int", _I, (_Q,))),
    member("asApproximateFloat", lambda v: number(v) / _NANO,
           ("quantity_get_float", T.DOUBLE, (_Q,))),
    member("add", lambda a, b: _make(number(a) + number(b)), ("quantity_add", _Q, (_Q, _Q)),
           ("quantity_add_int", _Q, (_Q, _I))),
    member("sub", lambda a, b: _make(number(a) - number(b)), ("quantity_sub", _Q, (_Q, _Q)),
           ("quantity_sub_int", _Q, (_Q, _I))),
)  # fmt: skip
