"""The secret, the tokens and the breaker."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.agentlink.breaker import FIRST_PAUSE, LONGEST_PAUSE, Breaker
from controller.agentlink.callbacks import SECRET_FILE, Ticket, load_secret
from controller.keys import Key


def test_the_secret_is_made_once_and_ours_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(load_secret, [tmp_path / "data"] * 16))
    assert len(found) == 1
    path = tmp_path / "data" / SECRET_FILE
    assert path.read_bytes() in found
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == [SECRET_FILE]


def test_a_damaged_secret_is_named(tmp_path: Path) -> None:
    (tmp_path / SECRET_FILE).write_bytes(b"short")
    with pytest.raises(ValueError, match="is damaged; remove it"):
        load_secret(tmp_path)


def test_every_part_of_a_ticket_is_signed() -> None:
    ticket = Ticket(Key("VirtualMachine", "ns", "vm"), "r1.start", "a1")
    tokens = {
        ticket.token(b"k", "host-1"),
        ticket.token(b"j", "host-1"),
        ticket.token(b"k", "host-2"),
        Ticket(Key("VirtualMachine", "ns", "vm2"), "r1.start", "a1").token(b"k", "host-1"),
        Ticket(Key("VirtualMachine", "", "vm"), "r1.start", "a1").token(b"k", "host-1"),
        Ticket(ticket.owner, "r2.start", "a1").token(b"k", "host-1"),
        Ticket(ticket.owner, "r1.start", "a2").token(b"k", "host-1"),
    }
    assert len(tokens) == 7
    assert ticket.url("https://c:1", b"k", "host-1").startswith(
        "https://c:1/callbacks/VirtualMachine/ns/vm/r1.start?attempt=a1&token="
    )
    cluster = Ticket(Key("Host", "", "h"), "r1", "a")
    assert "/callbacks/Host/-/h/r1?" in cluster.url("https://c:1", b"k", "x")


def test_the_breaker_lets_one_through_after_a_growing_pause() -> None:
    now = 0.0
    breaker = Breaker(lambda: now, jitter=lambda _, longest: longest)
    assert breaker.enter("a", 10) is None
    breaker.failure("a", "it hangs")
    assert breaker.enter("a", 10) == (FIRST_PAUSE, "it hangs")
    assert breaker.enter("b", 10) is None
    now = FIRST_PAUSE
    assert breaker.enter("a", 10) is None
    assert breaker.enter("a", 10) == (10, "it hangs"), "one probe at a time"
    breaker.failure("a", "still")
    assert breaker.enter("a", 10) == (2 * FIRST_PAUSE, "still")
    for _ in range(50):
        breaker.failure("a", "still")
    assert breaker.enter("a", 10) == (LONGEST_PAUSE, "still")
    breaker.success("a")
    assert breaker.enter("a", 10) is None
