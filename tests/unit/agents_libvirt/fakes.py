"""A hypervisor in memory that does what libvirt does, and fails where it is told to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agents.drivers.base import DriverError
from agents.drivers.domain import Accelerator
from agents.ops.vm import Domain


class Killed(BaseException):
    """The agent's end: nothing in it may catch this."""


@dataclass
class FakeHypervisor:
    """die_at: the n-th change kills the agent, just before (or ``after``) it takes effect.

    deaf: presses of the power button that the guest does not hear. stubborn: so many requests to
    let go of a device are ignored.
    """

    domains: dict[str, Domain] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    die_at: int | None = None
    after: bool = False
    deaf: int = 0
    stubborn: int = 0
    count: dict[str, int] = field(default_factory=dict)
    firmware: frozenset[str] = frozenset({"efi", "bios"})

    def _change(self, what: str) -> bool:
        """Is it time to die after the change?"""
        self.changes.append(what)
        if self.die_at == len(self.changes):
            if not self.after:
                raise Killed
            return True
        return False

    def _end(self, dying: bool) -> None:
        if dying:
            raise Killed

    def _get(self, uid: str) -> Domain:
        if uid not in self.domains:
            raise DriverError("not-found", f"no domain {uid}")
        return self.domains[uid]

    def _off(self, uid: str) -> None:
        domain = self._get(uid)
        if domain.stored is None:
            del self.domains[uid]
        else:
            self.domains[uid] = replace(domain, power="Stopped", live=None)

    async def find(self, uid: str) -> Domain | None:
        return self.domains.get(uid)

    async def firmwares(self, architecture: str) -> frozenset[str]:
        return self.firmware

    async def accelerator(self) -> Accelerator:
        return "qemu"

    async def hypervisor_name(self) -> str:
        return "fake"

    async def create(self, xml: str, *, paused: bool) -> None:
        dying = self._change("create")
        uid = _uid(xml)
        if uid in self.domains and self.domains[uid].active:
            raise DriverError("hypervisor", "it runs already")
        self.domains[uid] = Domain(uid, "Paused" if paused else "Running", xml, None)
        self._end(dying)

    async def store(self, xml: str) -> None:
        dying = self._change("store")
        uid = _uid(xml)
        old = self.domains.get(uid, Domain(uid, "Stopped", None, None))
        self.domains[uid] = replace(old, stored=xml)
        self._end(dying)

    async def forget(self, uid: str) -> None:
        dying = self._change("forget")
        domain = self.domains.get(uid)
        if domain is not None and domain.active:
            self.domains[uid] = replace(domain, stored=None)
        elif domain is not None:
            del self.domains[uid]
        self._end(dying)

    async def pull(self, uid: str) -> None:
        dying = self._change("pull")
        self._off(uid)
        self._end(dying)

    async def press_power(self, uid: str) -> None:
        dying = self._change("press")
        if self.deaf > 0:
            self.deaf -= 1
        else:
            self._off(uid)
        self._end(dying)

    async def ask_reboot(self, uid: str) -> None:
        dying = self._change("ask_reboot")
        self._get(uid)
        if self.deaf == 0:
            self.count[uid] = self.count.get(uid, 0) + 1
        self._end(dying)

    async def reset(self, uid: str) -> None:
        dying = self._change("reset")
        self.count[uid] = self.count.get(uid, 0) + 1
        self._end(dying)

    def reboots(self, uid: str) -> int:
        return self.count.get(uid, 0)

    async def suspend(self, uid: str) -> None:
        dying = self._change("suspend")
        self.domains[uid] = replace(self._get(uid), power="Paused")
        self._end(dying)

    async def resume(self, uid: str) -> None:
        dying = self._change("resume")
        self.domains[uid] = replace(self._get(uid), power="Running")
        self._end(dying)

    async def plug(self, uid: str, device: str, *, live: bool) -> None:
        dying = self._change("plug")
        self._rewrite(uid, live, lambda xml: xml.replace("</devices>", f"{device}</devices>"))
        self._end(dying)

    async def unplug(self, uid: str, device: str, *, live: bool) -> None:
        dying = self._change("unplug")
        if live and self.stubborn > 0:
            self.stubborn -= 1
        else:
            self._rewrite(uid, live, lambda xml: xml.replace(device, ""))
        self._end(dying)

    def _rewrite(self, uid: str, live: bool, edit) -> None:  # type: ignore[no-untyped-def]
        domain = self._get(uid)
        key = "live" if live else "stored"
        xml = getattr(domain, key)
        assert xml is not None
        edited = edit(xml)
        assert edited != xml
        self.domains[uid] = replace(domain, **{key: edited})


def _uid(xml: str) -> str:
    return xml.partition("<uuid>")[2].partition("<")[0]


class FakeNetworks:
    """Bridges are there; sweeps are counted."""

    def __init__(self) -> None:
        self.sweeps = 0

    async def has_bridge(self, name: str) -> bool:
        return name == "br0"

    async def sweep(self) -> None:
        self.sweeps += 1
