"""Named formats: https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-format-library"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from controller.apiserver import meta
from controller.apiserver.cel import urls
from controller.apiserver.cel.functions import Function, Opaque, T, member, plain
from controller.apiserver.schema.formats import CHECKS
from controller.apiserver.selectors import label_key_error, label_value_error

FORMAT = Opaque("kubernetes.NamedFormat")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_TEXT_1035 = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
    "regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
Problem = Callable[[str], str]
"""What is wrong with a text; empty if nothing is."""


def _label_1035(text: str) -> str:
    if len(text) > 63:
        return "must be no more than 63 characters"
    return "" if _LABEL_1035.match(text) else _TEXT_1035


def _prefix(check: Problem) -> Problem:
    """Of what a name begins with: a hyphen at its end will be followed by something."""
    return lambda text: check(text[:-1] + "a" if text.endswith("-") and len(text) > 1 else text)


def _named(format_name: str, why: str) -> Problem:
    return lambda text: "" if CHECKS[format_name](text) else why


def _uri(text: str) -> str:
    try:
        urls.parse(text)
    except ValueError as error:
        return str(error)
    return ""


def _dns_label(text: str) -> str:
    return meta.name_error(text, "label")


def _dns_subdomain(text: str) -> str:
    return meta.name_error(text, "subdomain")


_FORMATS: Mapping[str, Problem] = {
    "dns1123Label": _dns_label,
    "dns1123Subdomain": _dns_subdomain,
    "dns1035Label": _label_1035,
    "qualifiedName": label_key_error,
    "dns1123LabelPrefix": _prefix(_dns_label),
    "dns1123SubdomainPrefix": _prefix(_dns_subdomain),
    "dns1035LabelPrefix": _prefix(_label_1035),
    "labelValue": label_value_error,
    "uri": _uri,
    "uuid": _named("uuid", "does not match the UUID format"),
    "byte": _named("byte", "invalid base64"),
    "date": _named("date", "invalid date"),
    "datetime": _named("date-time", "invalid datetime"),
}
OPTIONAL = frozenset(("validate", "format.named"))
"""Functions whose results become optionals (``checked``)."""


def _by_name(name: str) -> dict[str, Any]:
    """Empty if there is none: that becomes ``optional.none()``."""
    return FORMAT.wrap(name) if name in _FORMATS else {}


def _validate(named: Any, text: str) -> list[str]:
    why = _FORMATS[FORMAT.unwrap(named)](text)
    return [why] if why else []


def _constant(name: str) -> Function:
    return plain(f"format.{name}", lambda: FORMAT.wrap(name), (f"format.{name}", FORMAT.type, ()))


FUNCTIONS: tuple[Function, ...] = (
    *map(_constant, _FORMATS),
    # The library has no name for types of optionals: the checker does not look into these.
    plain("format.named", _by_name, ("format-named", T.DYN, (T.STRING,))),
    member("validate", _validate, ("format-validate", T.DYN, (FORMAT.type, T.STRING))),
)
