"""Free loopback ports, for servers that have to be told theirs.

They lie below those that the kernel gives to outgoing connections, and each worker of a parallel
run has a part of its own: nobody takes one between the look and the server's start.
"""

from __future__ import annotations

import itertools
import os
import socket
from contextlib import ExitStack
from random import Random

FIRST, LAST = 12_000, 32_000
SHARE = 1000
"""Ports of one worker; worker n and worker n + 20 have the same."""
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_START = FIRST + WORKER * SHARE % (LAST - FIRST)
# Another run on this machine begins somewhere else.
_next = itertools.count(Random().randrange(SHARE))


def free_ports(count: int) -> list[int]:
    """``count`` ports in a row on which nothing listens."""
    for _ in range(SHARE):
        first = _START + next(_next) % (SHARE - count + 1)
        row = list(range(first, first + count))
        if _free(row):
            for _ in row[1:]:
                next(_next)
            return row
    raise RuntimeError(f"no {count} free ports in a row on loopback")


def free_port() -> int:
    return free_ports(1)[0]


def _free(ports: list[int]) -> bool:
    with ExitStack() as held:
        try:
            for port in ports:
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
