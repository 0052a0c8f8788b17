"""Is an operation one that this agent can ever do? Answered before it is accepted."""

from __future__ import annotations

from pydantic import ValidationError

from agents.drivers.base import AgentId, DriverError
from agents.wire import ACTIONS, Error, Operation, Wire


def check(agent: AgentId, operation: Operation, where: str) -> Error | None:
    """Why the operation cannot be, naming the field below ``where``; None if it can."""
    try:
        _check_callback(operation.callback)
        parse_args(agent, operation)
    except DriverError as error:
        return Error(code=error.code, message=f"{where}.{error.message}")
    return None


def parse_args(agent: AgentId, operation: Operation) -> Wire:
    """The arguments as their model. Raises DriverError naming the field."""
    if operation.action not in ACTIONS:
        known = ", ".join(sorted(ACTIONS))
        raise DriverError("invalid", f"action: {operation.action!r} is none of {known}")
    role, model, _ = ACTIONS[operation.action]
    if role != agent.role:
        raise DriverError(
            "unsupported",
            f"action: {operation.action} is for agents of role {role}; "
            f"{agent.server_name} is a {agent.role}",
        )
    try:
        return model.model_validate(operation.args)
    except ValidationError as error:
        raise DriverError("invalid", f"args.{describe(error)}") from None


def describe(error: ValidationError) -> str:
    """``field.path: what is wrong`` of each fault, without the values (they may be secret)."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(str(p) for p in f['loc'])}: {f['msg']}" for f in faults)


def _check_callback(callback: str | None) -> None:
    if callback is not None and not callback.startswith("https://"):
        raise DriverError("invalid", "callback: must be an https:// URL")
