"""A real host for tests: libvirtd, QEMU and one Kumulus agent, shut into namespaces of their own.

::

    async with hypervisor(authority, name="host-1") as host:
        host.address, host.port         the agent, as reached from the test's process
        await host.net.admit(port)      let it reach a port of the test's process (callbacks, a
                                        store), under the same number on its own loopback
        await host.run("ip", "link")    a program among what the agent sees
        host.storage                    a directory for a primary storage, same path inside

Mount, network and process namespaces are private: the machine's libvirt, interfaces and files are
not touched, and when the first process in there is killed the kernel ends all others with it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agents.drivers.base import AgentId
from common.pki import Authority
from tests.support.namespaces import LOOPBACK, NetworkNamespace

AGENT_PORT = 7070
"""In its namespace, where nobody else is."""
APT_PACKAGES = (
    "libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-clients", "qemu-system-x86",
    "qemu-utils", "dnsmasq-base", "iproute2", "nftables", "util-linux", "busybox-static",
    "curl",
)  # fmt: skip
PROGRAMS = (
    "libvirtd", "virtlogd", "virsh", "qemu-system-x86_64", "qemu-img", "dnsmasq", "ip", "nft",
    "unshare", "nsenter", "setpriv", "busybox", "curl",
)  # fmt: skip
START_SECONDS = 60.0

QEMU_CONF = """user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "logd"
"""
LIBVIRTD_CONF = """listen_tls = 0
auth_unix_rw = "none"
unix_sock_group = "root"
host_uuid_source = "machine-id"
"""
USER = "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin\n"
INIT = """set -e
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/libvirt /run/netns /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /etc/libvirt
for place in /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /etc/libvirt; do
  mount --bind $ROOT/libvirt$place $place
done
for file in passwd group; do mount --bind $ROOT/libvirt/etc/$file /etc/$file; done
ip link set lo up
virtlogd -d -p /run/virtlogd.pid
libvirtd -d -p /run/libvirtd.pid
while :; do sleep 1; done
"""


class HypervisorUnavailable(Exception):
    """What is missing here to run a hypervisor."""


def why_not() -> str | None:
    """Why no hypervisor can be run here, or None."""
    if os.geteuid() != 0:
        return "needs root (network and mount namespaces)"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"missing: {', '.join(missing)}; apt-get install {' '.join(APT_PACKAGES)}"
    try:
        import libvirt  # noqa: F401
    except ImportError:
        return "libvirt-python is not installed: pip install 'kumulus[kvm]'"
    return None


@dataclass
class RealHost:
    """One host. ``port`` is the agent's, on ``address``, from outside."""

    name: str
    root: Path
    init: int
    net: NetworkNamespace
    pki: Path
    port: int = 0
    address: str = LOOPBACK
    _agent: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def storage(self) -> Path:
        return self.root / "storage"

    @property
    def state(self) -> Path:
        """The driver's own directory."""
        return self.root / "state"

    @property
    def log(self) -> Path:
        """What the agent wrote to its log."""
        return self.root / "agent.log"

    def console(self, vm: str) -> str:
        """All that the VM's serial console showed so far."""
        file = self.state / "vms" / vm / "console.log"
        return file.read_text(errors="replace").replace("\r", "") if file.exists() else ""

    def inside(self, *command: str) -> list[str]:
        """The command line that runs ``command`` among what the agent sees."""
        return ["nsenter", "-t", str(self.init), "-m", "-n", "-p", "--", *command]

    async def run(self, *command: str, check: bool = True) -> str:
        """Standard output. Raises AssertionError with what it said if it fails."""
        process = await asyncio.create_subprocess_exec(
            *self.inside(*command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert not check or process.returncode == 0, f"{command}: {err.decode()} {out.decode()}"
        return out.decode()

    async def start_agent(self) -> None:
        """The agent, in its own process; returns when its port is open."""
        port_file = self.root / "port"
        port_file.unlink(missing_ok=True)
        command = (
            str(Path(sys.executable).with_name("kumulus")), "agent", "run",
            "--name", self.name, "--role", "host", "--driver", "libvirt",
            "--pki-dir", str(self.pki), "--data-dir", str(self.root / "agent"),
            "--listen", LOOPBACK, "--port", str(AGENT_PORT), "--port-file", str(port_file),
            "--option", f"directory={self.state}", "--log-level", "DEBUG",
        )  # fmt: skip
        with self.log.open("ab") as log:
            self._agent = subprocess.Popen(self.inside(*command), stdout=log, stderr=log)
        await self._await(port_file.exists, "the agent")

    def kill_agent(self) -> None:
        """kill -9, as it stands."""
        self._end_agent(signal.SIGKILL)

    def stop_agent(self) -> None:
        """SIGTERM, and wait."""
        self._end_agent(signal.SIGTERM)

    def _end_agent(self, number: signal.Signals) -> None:
        assert self._agent is not None
        for pid in children(self._agent.pid):  # nsenter's child is the agent
            os.kill(pid, number)
        self._agent.wait(30)
        self._agent = None

    def forget_agent(self) -> None:
        """After its namespaces have ended, and it with them."""
        if self._agent is not None:
            self._agent.wait(30)

    async def _await(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + START_SECONDS
        while not condition():
            if self._agent is not None and self._agent.poll() is not None:
                raise HypervisorUnavailable(f"{what} ended: {self.log.read_text()[-2000:]}")
            if time.monotonic() > end:
                raise HypervisorUnavailable(f"{what} did not come up in {START_SECONDS:g} s")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def hypervisor(
    authority: Authority, *, name: str = "host-1", start_agent: bool = True
) -> AsyncIterator[RealHost]:
    """Bring one up, and end all of it afterwards. Raises HypervisorUnavailable.

    authority: the cloud's CA; the agent's certificate is issued from it.
    """
    if reason := why_not():
        raise HypervisorUnavailable(reason)
    root = Path(tempfile.mkdtemp(prefix="kumulus-host-"))
    root.chmod(0o711)
    _lay_out(root)
    outer = _unshare(root)
    net: NetworkNamespace | None = None
    host: RealHost | None = None
    try:
        init = await _init_of(outer, root)
        net = NetworkNamespace(init)
        host = RealHost(name, root, init, net, _certificates(authority, name, root / "pki"))
        host.port = await net.publish(AGENT_PORT)
        if start_agent:
            await host.start_agent()
        yield host
    finally:
        if net is not None:
            await net.close()
        outer.kill()
        outer.wait(30)
        if host is not None:
            host.forget_agent()
        await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)


def _unshare(root: Path) -> subprocess.Popen[bytes]:
    """Start libvirt in namespaces of its own. It dies with this process."""
    command = (
        "setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork",
        "--kill-child=SIGKILL", "--mount-proc", "--", "bash", "-c", INIT,
    )  # fmt: skip
    environment = {**os.environ, "ROOT": str(root)}
    with (root / "init.log").open("wb") as log:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def _lay_out(root: Path) -> None:
    base = root / "libvirt"
    for place in ("var/lib/libvirt", "var/log/libvirt", "var/cache/libvirt", "etc/libvirt"):
        (base / place).mkdir(parents=True)
    (base / "etc/libvirt/qemu.conf").write_text(QEMU_CONF)
    (base / "etc/libvirt/libvirtd.conf").write_text(LIBVIRTD_CONF)
    for file, entry in (("passwd", USER), ("group", "libvirt-qemu:x:64055:\n")):
        text = Path("/etc", file).read_text()
        known = any(line.startswith("libvirt-qemu:") for line in text.splitlines())
        (base / "etc" / file).write_text(text if known else text + entry)
    for place in ("storage", "state"):
        (root / place).mkdir(mode=0o711)


def _certificates(authority: Authority, name: str, directory: Path) -> Path:
    agent = AgentId(name, "host")
    authority.issue(
        directory, f"{name}.host", common_name=agent.server_name, dns=[agent.server_name],
        server=True, client=True,
    )  # fmt: skip
    shutil.copy(authority.ca, directory / "ca.crt")
    return directory


async def _init_of(outer: subprocess.Popen[bytes], root: Path) -> int:
    """The first process inside, once libvirt listens there."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if outer.poll() is not None:
            raise HypervisorUnavailable(f"libvirtd: {(root / 'init.log').read_text()[-2000:]}")
        for pid in children(outer.pid):
            if Path(f"/proc/{pid}/root/run/libvirt/libvirt-sock").exists():
                return pid
        await asyncio.sleep(0.05)
    raise HypervisorUnavailable(f"libvirtd did not start: {(root / 'init.log').read_text()}")


def children(pid: int) -> list[int]:
    """Of the main thread of ``pid``."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
