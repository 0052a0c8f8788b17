"""What an agent's driver has to bring.

A driver does the work of one agent, for the actions of that agent's role (``agents.wire.ACTIONS``).
The operation table in front of it makes it simple to write: operations on one resource come one
at a time and in order; arguments are already parsed; each call has a timeout and is cancelled
when it runs out. What remains for the driver:

- every action is idempotent, and *converging*: after a kill -9 at any point the same action with
  the same arguments runs again and ends in the same state, leaving nothing half-made;
- creating what exists returns what exists; removing what is absent succeeds;
- failures raise DriverError with a code of ``agents.wire.Error`` and a message that names the
  cause and the fix; any other exception is a bug and is reported as ``internal``;
- the event loop is never blocked: blocking libraries run in threads.

Drivers are found by the entry point group ``kumulus.drivers``: each entry is a DriverFactory.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

from agents.wire import Error, Facts, Inventory, Ping, Role, VmRebootArgs, VmStopArgs, Wire
from agents.wire import server_name as wire_server_name

DRIVERS = "kumulus.drivers"

Code = Literal[
    "invalid",
    "not-found",
    "conflict",
    "checksum",
    "no-space",
    "unreachable",
    "hypervisor",
    "timeout",
    "fenced",
    "unsupported",
    "busy",
    "internal",
]

OPERATION: ContextVar[str] = ContextVar("operation", default="")
"""Id of the operation that is being executed, for logs and records."""

MINUTE = 60.0
TIMEOUTS: Mapping[str, float] = {
    "storage.ensure": MINUTE,
    "storage.remove": 5 * MINUTE,
    "store.ensure": MINUTE,
    "image.add": 120 * MINUTE,
    "image.remove": 2 * MINUTE,
    "image.prune": 2 * MINUTE,
    "volume.create": 120 * MINUTE,
    "volume.delete": 5 * MINUTE,
    "network.ensure": MINUTE,
    "network.release": MINUTE,
    "vm.start": 5 * MINUTE,
    "vm.stop": MINUTE,
    "vm.reboot": MINUTE,
    "vm.pause": MINUTE,
    "vm.resume": MINUTE,
    "vm.destroy": MINUTE,
    "vm.attach-disk": MINUTE,
    "vm.detach-disk": MINUTE,
    "vm.attach-nic": MINUTE,
    "vm.detach-nic": MINUTE,
}
"""Seconds that each action may take. volume.create may have to fetch the image first. For vm.stop
and vm.reboot the guest's own time, which their arguments give, is added: see ``timeout_of``."""


def timeout_of(action: str, args: Wire) -> float:
    """Seconds after which the operation is cancelled and fails with code ``timeout``."""
    guest = args.timeout if isinstance(args, VmStopArgs | VmRebootArgs) else 0.0
    return TIMEOUTS[action] + guest


class DriverError(Exception):
    """The work failed for a reason that a controller or a person can act on."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def wire(self) -> Error:
        return Error(code=self.code, message=self.message)


@dataclass(frozen=True)
class AgentId:
    """Who an agent is. Its TLS identity follows from it."""

    name: str
    role: Role

    @property
    def server_name(self) -> str:
        return wire_server_name(self.name, self.role)


@dataclass(frozen=True)
class DriverContext:
    """What a driver is made with.

    data_dir: the agent's own directory, which exists; the driver may keep what it likes in it.
    client_tls: for requests to other agents (a host fetching an image from a store), presenting
    this agent's certificate and trusting the cloud's CA; None only where nothing is fetched.
    options: the driver's own settings, as its documentation names them (``--option key=value``).
    """

    agent: AgentId
    data_dir: Path
    client_tls: ssl.SSLContext | None = None
    options: Mapping[str, str] = field(default_factory=dict)


class Driver(Protocol):
    """Serves one agent. Made by a DriverFactory; ``open`` is called once before anything else."""

    async def open(self) -> None:
        """Connect and check what the host needs. Raises DriverError when it cannot work here."""

    async def close(self) -> None:
        """Let go of everything. Running guests stay."""

    async def execute(self, action: str, resource: str, args: Wire) -> Wire:
        """Do ``action`` on ``resource``; ``args`` is of ACTIONS[action][1], the answer of [2].

        Raises DriverError. May be cancelled at any await (timeout, shutdown).
        """

    async def ping(self) -> Ping:
        """Cheap: answered from what is known, within a second. Raises DriverError."""

    async def facts(self) -> Facts: ...

    async def inventory(self) -> Inventory:
        """What is really there, not what was recorded."""

    async def image_file(self, file: str) -> Path:
        """The stored image that the store serves as ``file`` (DriverError not-found otherwise).

        The path is a regular file inside the store, links resolved. Role host: not-found.
        """


class DriverFactory(Protocol):
    def __call__(self, context: DriverContext) -> Driver:
        """Cheap and without I/O. Raises DriverError for options that cannot be."""


A = TypeVar("A", bound=Wire)
Handler = Callable[[str, A], Awaitable[Wire]]
"""(resource, args) → result."""


class Actions:
    """A driver's table of actions: type-checked where an action is registered.

    ::

        self._actions = Actions()
        self._actions.on("vm.start", VmArgs, self._start_vm)
        …
        async def execute(self, action, resource, args):
            return await self._actions.run(action, resource, args)
    """

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[type[Wire], Handler[Any]]] = {}

    def on(self, action: str, model: type[A], handler: Handler[A]) -> None:
        self._handlers[action] = (model, handler)

    async def run(self, action: str, resource: str, args: Wire) -> Wire:
        """Raises DriverError ``unsupported`` for an action that is not in the table."""
        if action not in self._handlers:
            raise DriverError("unsupported", f"this agent's driver cannot do {action}")
        model, handler = self._handlers[action]
        if not isinstance(args, model):
            raise TypeError(f"{action} takes {model.__name__}, not {type(args).__name__}")
        return await handler(resource, args)


def load_driver(name: str) -> DriverFactory:
    """The driver registered as ``name``; imports it only now.

    Raises DriverError ``unsupported`` when there is none, or when what it needs is not installed.
    """
    found = {entry.name: entry for entry in entry_points(group=DRIVERS)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise DriverError("unsupported", f"no driver {name!r} is installed; there are: {known}")
    try:
        return cast("DriverFactory", found[name].load())
    except ImportError as error:
        raise DriverError(
            "unsupported",
            f"the driver {name!r} needs {error.name}, which is not installed "
            "(the libvirt driver: pip install 'kumulus[kvm]')",
        ) from error
