"""String formats of OpenAPI that Kubernetes checks."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import ipaddress
import re
import uuid
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

_DATE_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})\Z")
_DURATION = re.compile(r"[+-]?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+\Z|0\Z")


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return check


def parse_date_time(text: str) -> dt.datetime:
    """RFC 3339. Raises ValueError."""
    if not _DATE_TIME.match(text):
        raise ValueError(f"{text!r} is no RFC 3339 time")
    return dt.datetime.fromisoformat(text.upper())


def parse_duration(text: str) -> dt.timedelta:
    """A Go duration (``1h30m``). Raises ValueError."""
    if not _DURATION.match(text):
        raise ValueError(f"{text!r} is no duration")
    unit = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    parts = re.findall(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)", text)
    seconds = sum(float(number) * unit[name] for number, name in parts)
    return dt.timedelta(seconds=-seconds if text.startswith("-") else seconds)


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def is_uri(text: str) -> bool:
    parts = urlsplit(text)
    return bool(parts.scheme) or text.startswith("/")


CHECKS: Mapping[str, Callable[[str], bool]] = {
    "date-time": _parses(parse_date_time),
    "date": _parses(dt.date.fromisoformat),
    "duration": _parses(parse_duration),
    "byte": _parses(_base64),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": _parses(lambda text: ipaddress.ip_interface(text) if "/" in text else int("")),
    "uuid": _parses(uuid.UUID),
    "uri": _parses(lambda text: None if is_uri(text) else int("")),
    "mac": lambda text: bool(re.match(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\Z", text)),
}
"""Formats not named here (``int32``, ``password``, …) restrict nothing."""
