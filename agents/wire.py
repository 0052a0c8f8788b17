"""What controllers and agents say to each other: the only part of agents/ that controllers import.

One agent process serves one or more *agents*, each with a name, a role and a certificate of its
own: a host's agent is ``<name>.host.kumulus.dev``, a backup storage's ``<name>.store.kumulus.dev``
(DNS subject alternative name; TLS server name). Controllers are clients whose certificate has the
organisation ``kumulus:controllers``; as servers of callbacks they are ``controller.kumulus.dev``,
at whatever address.

==========================================  ======================================================
``POST /v1/agents/{name}/operations``       OperationBatch → 202 OperationReplies, at once
``GET  /v1/agents/{name}/operations/{id}``  OperationReply (read-back), 404 if unknown
``GET  /v1/agents/{name}/ping``             Ping: version, boot id, state of every VM
``GET  /v1/agents/{name}/facts``            Facts
``GET  /v1/agents/{name}/inventory``        Inventory: everything of ours on it, for audits
``GET  /v1/agents/{name}/images/{file}``    a stored image's bytes (role store; also hosts may read)
``GET  /metrics /healthz /readyz``          plain HTTP semantics, no client certificate needed
==========================================  ======================================================

An operation is idempotent and durable: it is recorded before 202 is answered. The same id again
is answered with the recorded state; only a failed one is run again. Operations on one resource
run one at a time, in the order they came. When one ends, its OperationReply is POSTed to the
``callback`` URL that came with it, retried with back-off for a while; whoever missed it reads it
back. An agent remembers the highest ring generation that it has seen and refuses a batch with a
lower one: 409 and an Error with code ``fenced``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

AGENT_VERSION = "0.1.0"
CONTROLLERS = "kumulus:controllers"
CONTROLLER = "controller.kumulus.dev"
"""The DNS name in every controller's certificate: what agents verify when they call back."""
Role = Literal["host", "store"]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$")]
Path = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._-]+)+$", max_length=1024)]
VmPower = Literal["Running", "Paused", "Stopped", "Crashed", "Unknown"]
BootMode = Literal["UEFI", "BIOS"]


def server_name(name: str, role: Role) -> str:
    """The TLS server name of an agent: its identity."""
    return f"{name}.{role}.kumulus.dev"


class Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Error(Wire):
    """Why something failed. ``message`` names the cause and, if known, the fix.

    Codes: invalid, not-found, conflict, checksum, no-space, unreachable, hypervisor, timeout,
    fenced, unsupported, busy (too much waits already: try again later), internal.
    """

    code: str
    message: str


class Operation(Wire):
    """One command. ``action`` is a key of ACTIONS and fixes the model of ``args``.

    ``resource`` is the uid of the object worked on: operations on it are serialised.
    """

    id: Id
    action: str
    resource: Id
    args: dict[str, Any] = {}
    callback: Annotated[str, Field(max_length=2048)] | None = None


class OperationBatch(Wire):
    ring_generation: int = 0
    operations: Annotated[list[Operation], Field(max_length=256)]


class OperationReply(Wire):
    id: Id
    state: Literal["Pending", "Running", "Succeeded", "Failed"]
    result: dict[str, Any] = {}
    error: Error | None = None


class OperationReplies(Wire):
    operations: list[OperationReply]


class Ping(Wire):
    agent_version: str = AGENT_VERSION
    boot_id: str
    vms: dict[str, VmPower] = Field(default={}, description="uid → state, defined domains only.")


class Facts(Wire):
    """What a machine is. memory in bytes."""

    hostname: str
    architecture: str
    operating_system: str
    kernel: str
    cpu: int
    cpu_sockets: int
    cpu_model: str
    memory: int
    hypervisor: str
    hypervisor_version: str
    boot_id: str
    agent_version: str = AGENT_VERSION


class Inventory(Wire):
    """uids of what is on a host, as it is really there (not as recorded)."""

    vms: list[str] = []
    volumes: list[str] = []
    images: list[str] = []
    bridges: list[str] = []
    taps: list[str] = []
    dhcp: list[str] = Field(default=[], description="'<network uid>/<mac>' of each DHCP entry.")


class Empty(Wire):
    """No arguments, or nothing to report."""


class StorageArgs(Wire):
    path: Path


class StorageResult(Wire):
    total: int
    available: int


class StorageRemoveArgs(Wire):
    """storage.remove on a host: cached images go, then the directories if nothing is left in them.

    Volumes that are there stay, with the images that they are based on. Absent is fine.
    """

    path: Path


class ImageAddArgs(Wire):
    """image.add on a store: fetch ``url``, verify, keep as ``<path>/<resource>.<format>``.

    ``adopt``: take over the stored image of that uid instead; ``not-found`` if it is not there.
    """

    path: Path
    url: Annotated[str, Field(pattern=r"^(https?|file)://", max_length=2048)]
    format: Literal["qcow2", "raw", "iso"] = "qcow2"
    checksum: str | None = None
    adopt: Id | None = None


class ImageAddResult(Wire):
    """``file``: the last part of the URL under which the store serves it."""

    file: str
    virtual_size: int
    actual_size: int
    checksum: str


class ImageRemoveArgs(Wire):
    path: Path


class ImageSource(Wire):
    """Where a host finds an image: a store's agent. checksum is sha256:… of the file."""

    uid: Id
    store: str
    address: str
    port: int
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    format: Literal["qcow2", "raw", "iso"]
    checksum: str
    virtual_size: int


class VolumeCreateArgs(Wire):
    """volume.create on a host: a qcow2 of ``size`` bytes, over the cached image if one is given.

    The image is fetched into ``<path>/cache`` first when it is not there. Creating what exists
    returns what exists. ``adopt``: take over the data of the volume of that uid instead, whatever
    its size; ``not-found`` if they are not there.
    """

    path: Path
    size: int
    image: ImageSource | None = None
    adopt: Id | None = None


class VolumeResult(Wire):
    path: str
    size: int
    format: str = "qcow2"


class VolumeDeleteArgs(Wire):
    path: Path


class CachePruneArgs(Wire):
    """image.prune on a host: remove a cached image that no volume is based on."""

    path: Path


class Lease(Wire):
    mac: str
    ip: str
    hostname: str | None = None


class NetworkArgs(Wire):
    """network.ensure: the bridge, and DHCP for one subnet on it, answering from ``dhcp_server``.

    ``resource`` is the L3 network's uid, ``bridge_id`` the L2 network's. ``lease`` is added to
    what is there. Bridge ``br`` + 10 hex digits of the L2's uid unless ``bridge`` names one.
    """

    bridge_id: Id
    bridge: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,15}$")]
    physical_interface: str | None = None
    cidr: str
    gateway: str | None = None
    dns: list[str] = []
    dns_domain: str | None = None
    mtu: int = 1500
    dhcp_server: str | None = None
    lease_seconds: int = 86400
    lease: Lease | None = None


class NetworkReleaseArgs(Wire):
    """network.release: drop one lease; with the last one DHCP stops, and the bridge goes if no
    port of a VM and no other subnet uses it. ``mac`` None: drop the whole subnet."""

    bridge_id: Id
    bridge: str
    mac: str | None = None


class Disk(Wire):
    volume: Id
    path: str
    device: str
    format: Literal["qcow2", "raw"] = "qcow2"


class NicDevice(Wire):
    mac: str
    bridge: str
    device: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,15}$")]
    mtu: int = 1500
    model: str = "virtio"


class VmArgs(Wire):
    """vm.start: define and start; a running VM is left as it is. memory in bytes.

    The agent keeps what the guest needs beside the root disk (the seed image) in its directory.
    ``paused``: created paused. ``boot_mode``: the guest's firmware; None: the machine type's own.
    """

    name: str
    namespace: str
    cpu: int
    memory: int
    architecture: str = "x86_64"
    disks: list[Disk]
    nics: list[NicDevice] = []
    hostname: str | None = None
    user_data: str | None = None
    boot_mode: BootMode | None = None
    paused: bool = False


class VmResult(Wire):
    state: VmPower
    hypervisor: str = ""


class VmStopArgs(Wire):
    """vm.stop: ACPI shutdown, after ``timeout`` seconds pulled. The definition is removed too."""

    timeout: float = 60
    force: bool = False


class VmRebootArgs(Wire):
    timeout: float = 60


class VmDiskArgs(Wire):
    disk: Disk


class VmNicArgs(Wire):
    nic: NicDevice


ACTIONS: dict[str, tuple[Role, type[Wire], type[Wire]]] = {
    "storage.ensure": ("host", StorageArgs, StorageResult),
    "store.ensure": ("store", StorageArgs, StorageResult),
    "image.add": ("store", ImageAddArgs, ImageAddResult),
    "image.remove": ("store", ImageRemoveArgs, Empty),
    "storage.remove": ("host", StorageRemoveArgs, Empty),
    "image.prune": ("host", CachePruneArgs, Empty),
    "volume.create": ("host", VolumeCreateArgs, VolumeResult),
    "volume.delete": ("host", VolumeDeleteArgs, Empty),
    "network.ensure": ("host", NetworkArgs, Empty),
    "network.release": ("host", NetworkReleaseArgs, Empty),
    "vm.start": ("host", VmArgs, VmResult),
    "vm.stop": ("host", VmStopArgs, VmResult),
    "vm.reboot": ("host", VmRebootArgs, VmResult),
    "vm.pause": ("host", Empty, VmResult),
    "vm.resume": ("host", Empty, VmResult),
    "vm.destroy": ("host", Empty, VmResult),
    "vm.attach-disk": ("host", VmDiskArgs, VmResult),
    "vm.detach-disk": ("host", VmDiskArgs, VmResult),
    "vm.attach-nic": ("host", VmNicArgs, VmResult),
    "vm.detach-nic": ("host", VmNicArgs, VmResult),
}
"""action → who does it, model of its arguments, model of its result."""
