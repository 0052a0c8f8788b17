"""What needs the libvirt library but no libvirtd."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agents.drivers.base import DriverError

libvirt = pytest.importorskip("libvirt")
pytest.importorskip("pycdlib")

from agents.drivers import libvirt as driver  # noqa: E402
from agents.drivers.host import HostOptions  # noqa: E402

pytestmark = pytest.mark.looptime


class Connection:
    """Alive until told otherwise."""

    def __init__(self) -> None:
        self.alive = True

    def isAlive(self) -> bool:
        return self.alive

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def failure() -> Exception:
    return libvirt.libvirtError("broken")


@pytest.mark.parametrize(
    ("state", "reason", "power"),
    [
        (libvirt.VIR_DOMAIN_RUNNING, 1, "Running"),
        (libvirt.VIR_DOMAIN_SHUTDOWN, 1, "Running"),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER, "Paused"),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, "Running"),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_CRASHED, "Crashed"),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, "Stopped"),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, "Crashed"),
        (libvirt.VIR_DOMAIN_CRASHED, 0, "Crashed"),
        (libvirt.VIR_DOMAIN_NOSTATE, 0, "Unknown"),
    ],
)
def test_states_in_our_words(state: int, reason: int, power: str) -> None:
    assert driver.power_of(state, reason) == power


async def test_a_lost_connection_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Connection] = []
    monkeypatch.setattr(driver, "_start_events", lambda: None)
    monkeypatch.setattr(libvirt, "open", lambda uri: made.append(Connection()) or made[-1])
    session = driver.Session("test")
    calls = []

    def look(connection: Connection) -> str:
        calls.append(connection)
        if len(calls) == 1:
            connection.alive = False
            raise failure()
        return "answer"

    assert await session.look(look) == "answer"
    assert calls == made
    assert len(made) == 2

    def work(connection: Connection) -> None:
        connection.alive = False
        raise failure()

    with pytest.raises(DriverError, match="was lost") as caught:
        await session.work(work)
    assert caught.value.code == "hypervisor"
    assert len(made) == 2, "what changes things is not repeated"
    await session.close()


async def test_without_libvirtd_it_is_said_after_a_while(
    monkeypatch: pytest.MonkeyPatch, looptime: Any
) -> None:
    tries = []

    def refuse(uri: str) -> None:
        tries.append(uri)
        raise failure()

    monkeypatch.setattr(driver, "_start_events", lambda: None)
    monkeypatch.setattr(libvirt, "open", refuse)
    session = driver.Session("qemu:///nowhere")
    with pytest.raises(DriverError, match="is libvirtd running") as caught:
        await session.look(lambda c: None)
    assert caught.value.code == "hypervisor"
    assert 5 < looptime <= driver.RECONNECT_SECONDS
    assert len(tries) > 4

    before, tried = float(looptime), len(tries)
    with pytest.raises(DriverError, match="cannot be reached"):
        await session.look(lambda c: None, patient=False)
    assert looptime - before < 1, "a ping does not wait"
    assert len(tries) == tried + 1

    before = float(looptime)
    waiting = [session.look(lambda c: None) for _ in range(5)]
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(e, DriverError) for e in ended)
    assert looptime - before <= driver.RECONNECT_SECONDS, "all wait together, not in turn"
    await session.close()


def test_options() -> None:
    made = HostOptions.parse({"directory": "/d", "accelerator": "qemu"})
    assert (made.directory, made.accelerator, made.uri) == (Path("/d"), "qemu", "qemu:///system")
    assert HostOptions.parse({}).accelerator is None
    for wrong in ({"dir": "/d"}, {"directory": "d"}, {"accelerator": "xen"}):
        with pytest.raises(DriverError):
            HostOptions.parse(wrong)
