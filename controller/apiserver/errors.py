"""Errors as the API server answers them: ``metav1.Status`` with its causes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson


def render(value: Any) -> str:
    """A value as error texts show it: JSON."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


@dataclass(frozen=True)
class FieldError:
    """One cause: what is wrong with one field. ``reason`` is metav1's cause type."""

    reason: str
    path: str
    body: str

    def __str__(self) -> str:
        return f"{self.path}: {self.body}"

    def cause(self) -> dict[str, str]:
        return {"reason": self.reason, "message": self.body, "field": self.path}


def required(path: str, detail: str = "") -> FieldError:
    body = f"Required value: {detail}" if detail else "Required value"
    return FieldError("FieldValueRequired", path, body)


def invalid(path: str, value: Any, detail: str) -> FieldError:
    return FieldError("FieldValueInvalid", path, f"Invalid value: {render(value)}: {detail}")


def type_invalid(path: str, value: Any, detail: str) -> FieldError:
    return FieldError("FieldValueTypeInvalid", path, f"Invalid value: {render(value)}: {detail}")


def not_supported(path: str, value: Any, supported: Sequence[str]) -> FieldError:
    values = ", ".join(render(item) for item in supported)
    body = f"Unsupported value: {render(value)}: supported values: {values}"
    return FieldError("FieldValueNotSupported", path, body)


def duplicate(path: str, value: Any) -> FieldError:
    return FieldError("FieldValueDuplicate", path, f"Duplicate value: {render(value)}")


def forbidden_field(path: str, detail: str) -> FieldError:
    return FieldError("FieldValueForbidden", path, f"Forbidden: {detail}")


def too_long(path: str, limit: int) -> FieldError:
    return FieldError("FieldValueTooLong", path, f"Too long: may not be more than {limit} bytes")


def too_many(path: str, count: int, limit: int) -> FieldError:
    body = f"Too many: {count}: must have at most {limit} items"
    return FieldError("FieldValueTooMany", path, body)


_BODIES = {
    "FieldValueInvalid": "Invalid value: ",
    "FieldValueRequired": "Required value: ",
    "FieldValueForbidden": "Forbidden: ",
    "FieldValueDuplicate": "Duplicate value: ",
    "FieldValueNotFound": "Not found: ",
    "FieldValueNotSupported": "Unsupported value: ",
}


def cause(reason: str, path: str, message: str) -> FieldError:
    """A field error without the value (rules, admission)."""
    return FieldError(reason, path, _BODIES.get(reason, "") + message)


@dataclass
class ApiError(Exception):
    """An answer other than success. ``status()`` is its body, ``warnings`` go beside it."""

    code: int
    reason: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            found["reason"] = self.reason
        if self.details or self.reason == "Invalid":
            found["details"] = self.details
        found["code"] = self.code
        return found


def _target(group: str, kind: str, name: str = "") -> dict[str, Any]:
    found = {"name": name, "group": group, "kind": kind}
    return {key: value for key, value in found.items() if value}


def qualified(group: str, resource: str) -> str:
    return f"{resource}.{group}" if group else resource


def not_found(group: str, resource: str, name: str) -> ApiError:
    message = f'{qualified(group, resource)} "{name}" not found'
    return ApiError(404, "NotFound", message, _target(group, resource, name))


def already_exists(group: str, resource: str, name: str) -> ApiError:
    message = f'{qualified(group, resource)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _target(group, resource, name))


MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


def conflict(group: str, resource: str, name: str, why: str = MODIFIED) -> ApiError:
    message = f'Operation cannot be fulfilled on {qualified(group, resource)} "{name}": {why}'
    return ApiError(409, "Conflict", message, _target(group, resource, name))


@contextmanager
def warned(warnings: Sequence[str]) -> Iterator[None]:
    """An error raised within carries ``warnings`` (what they are by then)."""
    try:
        yield
    except ApiError as error:
        error.warnings = (*warnings, *error.warnings)
        raise


def invalid_object(group: str, kind: str, name: str, errors: Iterable[FieldError]) -> ApiError:
    found = list(errors)
    texts = list(dict.fromkeys(str(error) for error in found))
    text = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details = _target(group, kind, name)
    details["causes"] = [error.cause() for error in found]
    message = f'{qualified(group, kind)} "{name}" is invalid: {text}'
    return ApiError(422, "Invalid", message, details)


def invalid_options(kind: str, errors: Iterable[FieldError]) -> ApiError:
    return invalid_object("meta.k8s.io", kind, "", errors)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def forbidden(
    group: str, resource: str, name: str, why: str, causes: Sequence[dict[str, str]] = ()
) -> ApiError:
    subject = f'{qualified(group, resource)} "{name}"' if name else qualified(group, resource)
    details = _target(group, resource, name)
    if causes:
        details["causes"] = list(causes)
    text = f"{subject} is forbidden: {why}" if resource else f"forbidden: {why}"
    return ApiError(403, "Forbidden", text, details)


def method_not_allowed() -> ApiError:
    return ApiError(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
    )


def unsupported_media(accepted: Sequence[str]) -> ApiError:
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted)
    )
    return ApiError(415, "UnsupportedMediaType", message)


def not_acceptable(accepted: Sequence[str]) -> ApiError:
    message = "only the following media types are accepted: " + ", ".join(accepted)
    return ApiError(406, "NotAcceptable", message)


LIST_TOO_SLOW = "What was to be listed was compacted away meanwhile. Start a new list."


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def too_old(wanted: int, oldest: int) -> ApiError:
    return expired(f"too old resource version: {wanted} ({oldest})")


def too_large_version(wanted: int, current: int) -> ApiError:
    details = {
        "causes": [
            {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        ],
        "retryAfterSeconds": 1,
    }  # fmt: skip
    message = f"Timeout: Too large resource version: {wanted}, current: {current}"
    return ApiError(504, "Timeout", message, details)


def too_large_body(limit: int) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def internal(message: str) -> ApiError:
    return ApiError(
        500,
        "InternalError",
        f"Internal error occurred: {message}",
        {"causes": [{"message": message}]},
    )


def unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message, {"retryAfterSeconds": 1})


def bad_patch(patched: bytes, why: str) -> ApiError:
    """What a patch made is no object of this kind."""
    return invalid_object("", "", "", [invalid("patch", patched.decode(), why)])
