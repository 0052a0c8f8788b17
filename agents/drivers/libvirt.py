"""The driver for real hosts: libvirt and QEMU, with KVM where the machine can run it.

Options (``--option key=value``):

===============  ==================================================================================
``uri``          libvirt's address; ``qemu:///system``
``directory``    where QEMU and dnsmasq find what they read (seeds, consoles, DHCP), so others must
                 be able to pass through it; ``/var/lib/kumulus``
``accelerator``  ``auto`` (KVM if it really runs a guest, tried once a start of the host), ``kvm``
                 or ``qemu``
===============  ==================================================================================

Only this module knows the libvirt library.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import libvirt

from agents.drivers import kvm_probe
from agents.drivers.base import DriverContext, DriverError
from agents.drivers.domain import MACHINES, Accelerator, devices_of, firmwares_of, is_vm
from agents.drivers.host import HostDriver, HostOptions
from agents.ops.facts import boot_id
from agents.ops.files import read_json, write_atomically
from agents.ops.vm import Domain
from agents.wire import VmPower

log = logging.getLogger(__name__)
T = TypeVar("T")

CALL_SECONDS = 30.0
CREATE_SECONDS = 120.0
OPEN_SECONDS = 60.0
RECONNECT_SECONDS = 20.0
BACKOFF_SECONDS = (0.1, 3.0)
KEEPALIVE = (5, 3)
WORKERS = 8
LOOKERS = 4
PROBE_SECONDS = 10.0
PROBE_POLL_SECONDS = 0.1


def driver(context: DriverContext) -> HostDriver:
    """The entry point ``libvirt`` of ``kumulus.drivers``."""
    options = HostOptions.parse(context.options)
    hypervisor = LibvirtHypervisor(Session(options.uri), options.directory, options.accelerator)
    return HostDriver(context, options, hypervisor)


class Session:
    """One connection, made again when it is lost; calls run in threads, with a timeout.

    What only looks has threads of its own, so that stuck work cannot silence a ping.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.reboots: Counter[str] = Counter()
        self._connection: Any = None
        self._opening = asyncio.Lock()
        self._vain: DriverError | None = None
        self._work = ThreadPoolExecutor(WORKERS, "libvirt-work")
        self._look = ThreadPoolExecutor(LOOKERS, "libvirt-look")

    async def look(self, call: Callable[[Any], T], *, patient: bool = True) -> T:
        """Run a reading call with the connection; once more if the connection turns out lost.

        patient False: tell at once when libvirt cannot be reached, instead of trying for a while.
        """
        try:
            return await self._run(self._look, call, CALL_SECONDS, patient)
        except ConnectionLost:
            return await self._run(self._look, call, CALL_SECONDS, patient)

    async def work(self, call: Callable[[Any], T], seconds: float = CALL_SECONDS) -> T:
        """Run a changing call with the connection. It is never repeated."""
        return await self._run(self._work, call, seconds)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._threaded(self._look, partial(_close, connection), CALL_SECONDS)
        for pool in (self._work, self._look):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _run(
        self,
        pool: ThreadPoolExecutor,
        call: Callable[[Any], T],
        seconds: float,
        patient: bool = True,
    ) -> T:
        connection = await self._connected(patient)
        try:
            return await self._threaded(pool, partial(call, connection), seconds)
        except libvirt.libvirtError as error:
            if _is_alive(connection):
                raise _driver_error(error) from error
            self._drop(connection)
            raise ConnectionLost(f"the connection to libvirt ({self.uri}) was lost") from error

    async def _threaded(self, pool: ThreadPoolExecutor, call: Callable[[], T], seconds: float) -> T:
        future = asyncio.get_running_loop().run_in_executor(pool, call)
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            message = f"libvirt ({self.uri}) did not answer within {seconds:g} s"
            raise DriverError("timeout", message) from None

    async def _connected(self, patient: bool) -> Any:
        """Who waits while another tries in vain shares that failure, and does not start over."""
        if self._opening.locked() and not patient:
            raise ConnectionLost(f"libvirt ({self.uri}) cannot be reached; trying again")
        vain = self._vain
        async with self._opening:
            if self._connection is None:
                if self._vain is not vain and self._vain is not None:
                    raise self._vain
                self._connection = await self._open_for(RECONNECT_SECONDS if patient else 0.0)
            return self._connection

    async def _open_for(self, seconds: float) -> Any:
        """Try with back-off."""
        loop = asyncio.get_running_loop()
        give_up, (pause, longest) = loop.time() + seconds, BACKOFF_SECONDS
        while True:
            try:
                return await self._threaded(self._look, self._open, OPEN_SECONDS)
            except libvirt.libvirtError as error:
                if loop.time() + pause > give_up:
                    self._vain = Unreachable(self.uri, error.get_error_message())
                    raise self._vain from error
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 - jitter
            pause = min(pause * 2, longest)

    def _open(self) -> Any:
        _start_events()
        connection = libvirt.open(self.uri)
        connection.setKeepAlive(*KEEPALIVE)
        connection.registerCloseCallback(lambda lost, *_: self._drop(lost), None)
        connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot, None
        )
        return connection

    def _on_reboot(self, _: Any, domain: Any, *__: Any) -> None:
        self.reboots[domain.UUIDString()] += 1

    def _drop(self, connection: Any) -> None:
        if self._connection is connection:
            self._connection = None


class ConnectionLost(DriverError):
    def __init__(self, message: str) -> None:
        super().__init__("hypervisor", message)


class Unreachable(DriverError):
    def __init__(self, uri: str, why: str) -> None:
        super().__init__(
            "hypervisor", f"libvirt ({uri}) cannot be reached: {why}; is libvirtd running?"
        )


class LibvirtHypervisor:
    """ops.vm.Hypervisor on libvirt."""

    def __init__(
        self, session: Session, directory: Path, accelerator: Accelerator | None = None
    ) -> None:
        self._session = session
        self._directory = directory
        self._accelerator = accelerator
        self._probing = asyncio.Lock()
        self._ours: dict[str, bool] = {}

    async def open(self) -> None:
        await self.accelerator()

    async def close(self) -> None:
        await self._session.close()

    async def powers(self) -> dict[str, VmPower]:
        """The state of every VM."""
        return await self._session.look(self._powers, patient=False)

    async def find(self, uid: str) -> Domain | None:
        return await self._session.look(partial(_find, uid))

    async def disk_user(self, path: str) -> str | None:
        """The uid of the domain that has the file, ours or not."""
        return await self._session.look(partial(_disk_user, path))

    async def version(self) -> str:
        number = await self._session.look(lambda connection: int(connection.getVersion()))
        return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"

    async def hypervisor_name(self) -> str:
        return "KVM" if await self.accelerator() == "kvm" else "QEMU (TCG)"

    async def firmwares(self, architecture: str) -> frozenset[str]:
        machine, kind = MACHINES[architecture], await self.accelerator()
        xml = await self._session.look(
            lambda c: str(c.getDomainCapabilities(None, architecture, machine, kind))
        )
        return firmwares_of(xml)

    async def create(self, xml: str, *, paused: bool) -> None:
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        await self._session.work(lambda c: c.createXML(xml, flags), CREATE_SECONDS)

    async def store(self, xml: str) -> None:
        await self._session.work(lambda c: c.defineXML(xml))

    async def forget(self, uid: str) -> None:
        self._ours.pop(uid, None)
        self._session.reboots.pop(uid, None)
        await self._session.work(partial(_forget, uid))

    async def pull(self, uid: str) -> None:
        await self._on(uid, lambda domain: domain.destroy())

    async def press_power(self, uid: str) -> None:
        button = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
        await self._on(uid, lambda domain: domain.shutdownFlags(button))

    async def ask_reboot(self, uid: str) -> None:
        button = libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
        await self._on(uid, lambda domain: domain.reboot(button))

    async def reset(self, uid: str) -> None:
        await self._on(uid, lambda domain: domain.reset())

    def reboots(self, uid: str) -> int:
        return self._session.reboots[uid]

    async def suspend(self, uid: str) -> None:
        await self._on(uid, lambda domain: domain.suspend())

    async def resume(self, uid: str) -> None:
        await self._on(uid, lambda domain: domain.resume())

    async def plug(self, uid: str, device: str, *, live: bool) -> None:
        await self._on(uid, lambda domain: domain.attachDeviceFlags(device, _affect(live)))

    async def unplug(self, uid: str, device: str, *, live: bool) -> None:
        await self._on(uid, lambda domain: domain.detachDeviceFlags(device, _affect(live)))

    async def _on(self, uid: str, act: Callable[[Any], Any]) -> None:
        await self._session.work(lambda c: act(c.lookupByUUIDString(uid)))

    def _powers(self, connection: Any) -> dict[str, VmPower]:
        nowait = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        found = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, nowait)
        powers = {}
        for domain, stats in found:
            uid = domain.UUIDString()
            if self._is_ours(uid, domain):
                powers[uid] = power_of(stats["state.state"], stats.get("state.reason", 0))
        return powers

    def _is_ours(self, uid: str, domain: Any) -> bool:
        """What a domain is does not change: asked once."""
        if uid not in self._ours:
            xml = _unless_gone(domain.XMLDesc)
            if xml is None:
                return False
            self._ours[uid] = is_vm(xml)
        return self._ours[uid]

    async def accelerator(self) -> Accelerator:
        async with self._probing:
            if self._accelerator is None:
                self._accelerator = await self._probed()
                log.info("accelerator chosen", extra={"accelerator": self._accelerator})
            return self._accelerator

    async def _probed(self) -> Accelerator:
        """What was found since the host started and under this QEMU, or found now."""
        file = self._directory / "accelerator.json"
        key = f"{await asyncio.to_thread(boot_id)}/{await self.version()}"
        known = await asyncio.to_thread(read_json, file)
        if known and known["key"] == key:
            return "kvm" if known["accelerator"] == "kvm" else "qemu"
        found: Accelerator = "kvm" if await self._kvm_works() else "qemu"
        content = json.dumps({"key": key, "accelerator": found}).encode()
        await asyncio.to_thread(write_atomically, file, content)
        return found

    async def _kvm_works(self) -> bool:
        disk = self._directory / "kvm-probe.img"
        await asyncio.to_thread(write_atomically, disk, kvm_probe.disk_image(), 0o644)
        try:
            await self._session.work(_forget_probe)
            await self._session.work(partial(_start_probe, kvm_probe.probe_xml(disk)))
            end = await self._probe_end()
        except (DriverError, TimeoutError) as error:
            log.info("KVM is not used: %s", error or "the probe guest hangs")
            return False
        finally:
            await self._session.work(_forget_probe)
            await asyncio.to_thread(disk.unlink, missing_ok=True)
        if end != _SWITCHED_OFF:
            log.info("KVM is not used: the probe guest died", extra={"end": end})
        return end == _SWITCHED_OFF

    async def _probe_end(self) -> tuple[int, int]:
        """State and reason in which the probe stopped running. Raises TimeoutError."""
        async with asyncio.timeout(PROBE_SECONDS):
            while True:
                state = await self._session.look(_probe_state)
                if state != _RUNNING:
                    return state
                await asyncio.sleep(PROBE_POLL_SECONDS)


_RUNNING = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED
_SWITCHED_OFF = libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN


def _start_probe(xml: str, connection: Any) -> None:
    connection.defineXML(xml).create()


def _probe_state(connection: Any) -> tuple[int, int]:
    state, reason = connection.lookupByUUIDString(kvm_probe.UID).state()
    return state, reason


def _forget_probe(connection: Any) -> None:
    domain = _unless_gone(partial(connection.lookupByUUIDString, kvm_probe.UID))
    if domain is not None:
        if domain.isActive():
            domain.destroy()
        domain.undefine()


def power_of(state: int, reason: int) -> VmPower:
    """libvirt's state in the words of the wire. A domain on its way up or down still runs."""
    if state == libvirt.VIR_DOMAIN_PAUSED:
        return _PAUSED.get(reason, "Paused")
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return _SHUT_OFF.get(reason, "Stopped")
    return _POWERS.get(state, "Unknown")


_POWERS: dict[int, VmPower] = {
    libvirt.VIR_DOMAIN_RUNNING: "Running",
    libvirt.VIR_DOMAIN_BLOCKED: "Running",
    libvirt.VIR_DOMAIN_SHUTDOWN: "Running",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "Running",
    libvirt.VIR_DOMAIN_CRASHED: "Crashed",
}
_PAUSED: dict[int, VmPower] = {
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: "Running",
    libvirt.VIR_DOMAIN_PAUSED_SHUTTING_DOWN: "Running",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "Crashed",
}
_SHUT_OFF: dict[int, VmPower] = {
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: "Crashed",
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: "Crashed",
}


def _find(uid: str, connection: Any) -> Domain | None:
    domain = _unless_gone(partial(connection.lookupByUUIDString, uid))
    return None if domain is None else _unless_gone(partial(_describe, uid, domain))


def _describe(uid: str, domain: Any) -> Domain:
    secure = libvirt.VIR_DOMAIN_XML_INACTIVE
    live = domain.XMLDesc(0) if domain.isActive() else None
    stored = domain.XMLDesc(secure) if domain.isPersistent() else None
    if not is_vm(live or stored or domain.XMLDesc(0)):
        raise DriverError(
            "conflict", f"domain {domain.name()} has the uid {uid}, but Kumulus did not define it"
        )
    state, reason = domain.state()
    return Domain(uid, power_of(state, reason), live, stored)


def _disk_user(path: str, connection: Any) -> str | None:
    for domain in connection.listAllDomains():
        xml = _unless_gone(domain.XMLDesc)
        if xml is not None and path in devices_of(xml).disks.values():
            return str(domain.UUIDString())
    return None


def _forget(uid: str, connection: Any) -> None:
    everything = (
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    )
    domain = _unless_gone(partial(connection.lookupByUUIDString, uid))
    if domain is not None and domain.isPersistent():
        domain.undefineFlags(everything)


def _affect(live: bool) -> int:
    return int(libvirt.VIR_DOMAIN_AFFECT_LIVE if live else libvirt.VIR_DOMAIN_AFFECT_CONFIG)


def _unless_gone(look: Callable[[], T]) -> T | None:
    """None when the domain is not there (any more)."""
    try:
        return look()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _driver_error(error: libvirt.libvirtError) -> DriverError:
    message = f"libvirt: {error.get_error_message()}"
    if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
        return DriverError("not-found", message)
    if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
        return DriverError("conflict", message)
    return DriverError("hypervisor", message)


def _is_alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _close(connection: Any) -> None:
    try:
        connection.unregisterCloseCallback()
        connection.close()
    except libvirt.libvirtError:
        log.debug("the connection to libvirt was closed already")


@cache
def _start_events() -> None:
    """libvirt's event loop, once a process: keep-alive and events need it."""
    libvirt.registerErrorHandler(lambda *_: None, None)  # errors come as exceptions
    libvirt.virEventRegisterDefaultImpl()

    def turn() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=turn, name="libvirt-events", daemon=True).start()
