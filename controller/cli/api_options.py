"""Options of the embedded API server, for the commands that start it or hand them on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from controller.up.options import ApiOptions


class Level(StrEnum):
    METADATA = "Metadata"
    REQUEST = "Request"


class Synchronous(StrEnum):
    FULL = "FULL"
    NORMAL = "NORMAL"
    OFF = "OFF"


TokenFile = Annotated[
    Path | None,
    typer.Option(help='Bearer tokens of users: a line token,user,uid,"group1,group2" for each.'),
]
AuditLog = Annotated[
    Path | None, typer.Option(help="Write a line of JSON for every request to the API here.")
]
AuditLevel = Annotated[
    Level | None,
    typer.Option(case_sensitive=False, help="Request: with what was sent. Default: Metadata."),
]
Sync = Annotated[
    Synchronous | None,
    typer.Option(
        case_sensitive=False,
        help="FULL (default): what was acknowledged survives a power loss. NORMAL: kill -9. "
        "OFF: for tests.",
    ),
]
BodyLimit = Annotated[
    int | None, typer.Option(min=1024, help="Largest request in bytes. Default: 3 MiB.")
]


def api_options(
    *,
    token_file: TokenFile = None,
    audit_log: AuditLog = None,
    audit_level: AuditLevel = None,
    synchronous: Sync = None,
    body_limit: BodyLimit = None,
) -> ApiOptions:
    """Raises CommandFailed for what can be seen to be wrong before anything starts."""
    from controller.cli.output import CommandFailed  # noqa: PLC0415 `kumulus --help` is quick

    if token_file is not None and not token_file.is_file():
        raise CommandFailed(f"there is no file {token_file}; correct --token-file")
    if audit_level is not None and audit_log is None:
        raise CommandFailed("--audit-level says how much is logged; say where with --audit-log")
    return ApiOptions(
        token_file.absolute() if token_file else None,
        audit_log.absolute() if audit_log else None,
        audit_level.value if audit_level else None,
        synchronous.value if synchronous else None,
        body_limit,
    )


_OPTIONS = inspect.signature(api_options, eval_str=True).parameters


def takes_api_options(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` as typer reads it: with these options, which it gets together, as ``api``."""

    @wraps(command)
    def run(**given: Any) -> None:
        mine = {name: given.pop(name) for name in _OPTIONS}
        command(**given, api=api_options(**mine))

    read = inspect.signature(command, eval_str=True)
    others = [each for name, each in read.parameters.items() if name != "api"]
    run.__signature__ = read.replace(parameters=[*others, *_OPTIONS.values()])  # type: ignore[attr-defined]
    return run
