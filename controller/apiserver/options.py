"""Query parameters and option bodies, checked as Kubernetes checks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.apiserver import errors
from controller.apiserver.admission import User
from controller.apiserver.catalog import Resource
from controller.apiserver.decoding import FieldValidation
from controller.apiserver.errors import FieldError
from controller.apiserver.listing import ListOptions
from controller.apiserver.selectors import Selection, check_fields, parse_fields, parse_labels
from controller.apiserver.shards import parse_shards
from controller.apiserver.streams import WatchOptions
from controller.apiserver.writes import DeleteOptions, WriteOptions

Query = Mapping[str, str]
_VALIDATIONS: dict[str, FieldValidation] = {
    "": "Warn",
    "Ignore": "Ignore",
    "Strict": "Strict",
    "Warn": "Warn",
}
_PROPAGATIONS = ("Foreground", "Background", "Orphan")
_MANAGER_BYTES = 128
_MAX_WATCH_SECONDS = 24 * 3600


def is_true(query: Query, key: str) -> bool:
    """Whether a flag is set: present and not false or 0."""
    return key in query and query[key] not in ("false", "0", "False", "f", "F")


def write_options(
    query: Query, user: User, kind: str, agent: str = "", *, apply: bool = False
) -> WriteOptions:
    """``kind`` names the options in errors: CreateOptions, UpdateOptions, PatchOptions.

    ``agent``: the User-Agent, which names the field manager if nothing else does. ``apply``: the
    patch is a server-side apply.
    """
    problems: list[FieldError] = []
    dry_run = _dry_run(query.get("dryRun"), problems)
    validation = _VALIDATIONS.get(query.get("fieldValidation", ""))
    if validation is None:
        supported = ("", "Ignore", "Strict", "Warn")
        problems.append(
            errors.not_supported("fieldValidation", query["fieldValidation"], supported)
        )
    manager = query.get("fieldManager", "")
    problems.extend(_manager_problems(manager))
    if apply and not manager:
        problems.append(errors.required("fieldManager", "is required for apply patch"))
    if kind == "PatchOptions" and not apply and "force" in query:
        problems.append(errors.forbidden_field("force", "may not be specified for non-apply patch"))
    if problems:
        raise errors.invalid_options(kind, problems)
    found = manager or _from_agent(agent) or "unknown"
    return WriteOptions(user, dry_run, validation or "Warn", manager=found, applied=apply)


def _manager_problems(manager: str) -> list[FieldError]:
    found = []
    if len(manager.encode()) > _MANAGER_BYTES:
        found.append(errors.too_long("fieldManager", _MANAGER_BYTES))
    for at, char in enumerate(manager):
        if not char.isprintable():
            text = f"invalid character U+{ord(char):04X} (at position {at})"
            found.append(errors.invalid("fieldManager", manager, text))
    return found


def _from_agent(agent: str) -> str:
    """A manager's name from a User-Agent: what is before the first slash."""
    name = "".join(char for char in agent.partition("/")[0] if char.isprintable())
    return name.encode()[:_MANAGER_BYTES].decode(errors="ignore")


def _dry_run(value: str | None, problems: list[FieldError]) -> bool:
    if value is None:
        return False
    if value != "All":
        problems.append(errors.not_supported("dryRun", [value], ("All",)))
    return True


def delete_options(
    query: Query, body: Mapping[str, Any], user: User
) -> tuple[DeleteOptions, WriteOptions]:
    """From the body, or the query where there is none."""
    problems: list[FieldError] = []
    if "gracePeriodSeconds" in query:
        _integer(query["gracePeriodSeconds"])
    runs = body.get("dryRun") or ([query["dryRun"]] if "dryRun" in query else [])
    dry_run = False
    for run in runs:
        dry_run = _dry_run(run, problems)
    preconditions = body.get("preconditions") or {}
    propagation = _propagation(query, body, problems)
    if problems:
        raise errors.invalid_options("DeleteOptions", problems)
    options = DeleteOptions(
        propagation, preconditions.get("uid"), preconditions.get("resourceVersion")
    )
    return options, WriteOptions(user, dry_run)


def _propagation(query: Query, body: Mapping[str, Any], problems: list[FieldError]) -> str | None:
    found = body.get("propagationPolicy") or query.get("propagationPolicy")
    orphan = body.get("orphanDependents")
    if orphan is None and "orphanDependents" in query:
        orphan = is_true(query, "orphanDependents")
    if found and orphan is not None:
        problems.append(
            errors.invalid(
                "propagationPolicy", found,
                "orphanDependents and deletionPropagation cannot be both set",
            )
        )  # fmt: skip
    elif found and found not in _PROPAGATIONS:
        problems.append(errors.not_supported("propagationPolicy", found, (*_PROPAGATIONS, "nil")))
    if orphan is not None:
        return "Orphan" if orphan else "Background"
    return found


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise errors.bad_request(
            f"strconv.ParseInt: parsing {errors.render(text)}: invalid syntax"
        ) from None


def version_of(query: Query) -> int | None:
    """The resourceVersion that is asked for; None if there is none. Raises ApiError."""
    text = query.get("resourceVersion", "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise errors.bad_request(
            f"invalid resource version: resourceVersion: Invalid value: {errors.render(text)}: "
            f"strconv.ParseUint: parsing {errors.render(text)}: invalid syntax"
        )
    return int(text)


def _selection(resource: Resource, query: Query, *, watch: bool) -> Selection:
    """Selectors are read and options checked in the order that Kubernetes does it in."""
    labels = parse_labels(query.get("labelSelector", ""))
    fields = parse_fields(query.get("fieldSelector", ""))
    match = query.get("resourceVersionMatch", "")
    problems = _match_problems(query, match, watch=watch)
    if problems:
        raise errors.invalid_options("ListOptions", problems)
    version_of(query)
    check_fields(fields, resource.fields)
    return Selection(labels, fields, parse_shards(query.get("shardSelector", "")))


def list_options(resource: Resource, namespace: str, query: Query) -> ListOptions:
    """Raises ApiError for what does not go together."""
    limit = _integer(query["limit"]) if query.get("limit") else 0
    selection = _selection(resource, query, watch=False)
    version = version_of(query)
    match = query.get("resourceVersionMatch", "")
    return ListOptions(
        _narrowed(resource, namespace, selection),
        selection,
        max(limit, 0),
        query.get("continue", ""),
        version,
        match,
    )


def _narrowed(resource: Resource, namespace: str, selection: Selection) -> str:
    """A field selector may name the namespace."""
    if namespace or not resource.namespaced:
        return namespace
    return selection.fields.exact("metadata.namespace") or ""


def _match_problems(query: Query, match: str, *, watch: bool) -> list[FieldError]:
    found = []
    initial = "sendInitialEvents" in query
    path = "resourceVersionMatch"
    version = query.get("resourceVersion", "")
    supported = ("NotOlderThan",) if watch else ("Exact", "NotOlderThan", "")
    if initial and not watch:
        found.append(
            errors.forbidden_field("sendInitialEvents", "sendInitialEvents is forbidden for list")
        )
    elif initial and match != "NotOlderThan":
        detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        found.append(errors.forbidden_field(path, detail))
    elif match and watch and not initial:
        detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        found.append(errors.forbidden_field(path, detail))
    elif match and not watch and not version:
        detail = "resourceVersionMatch is forbidden unless resourceVersion is provided"
        found.append(errors.forbidden_field(path, detail))
    elif match == "Exact" and version == "0" and not watch:
        detail = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        found.append(errors.forbidden_field(path, detail))
    if match and match not in supported:
        found.append(errors.not_supported(path, match, supported))
    if match and query.get("continue"):
        detail = "resourceVersionMatch is forbidden when continue is provided"
        found.append(errors.forbidden_field(path, detail))
    return found


def watch_options(resource: Resource, namespace: str, query: Query) -> WatchOptions:
    """Raises ApiError for what does not go together."""
    selection = _selection(resource, query, watch=True)
    version = version_of(query)
    seconds = _integer(query["timeoutSeconds"]) if query.get("timeoutSeconds") else 0
    bookmarks = is_true(query, "allowWatchBookmarks")
    explicit = "sendInitialEvents" in query
    initial = is_true(query, "sendInitialEvents") if explicit else not version
    return WatchOptions(
        namespace=_narrowed(resource, namespace, selection),
        selection=selection,
        version=version,
        initial=initial,
        initial_end=initial and bookmarks,
        bookmarks=bookmarks,
        seconds=float(min(max(seconds, 0), _MAX_WATCH_SECONDS)),
    )
