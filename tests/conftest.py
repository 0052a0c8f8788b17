"""Settings that all tests share."""

from __future__ import annotations

import asyncio
import signal
import threading
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

from tests.support.spread import pytest_collection_modifyitems, pytest_xdist_make_scheduler

__all__ = ["pytest_collection_modifyitems", "pytest_xdist_make_scheduler"]

# Machines that run tests are shared and slow at times: a slow example is no failure.
settings.register_profile("kumulus", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kumulus")

# Else pytest-asyncio, asking for the current loop, makes one that nobody closes, and whichever test
# runs when it is collected fails on the ResourceWarning.
asyncio.set_event_loop(None)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Virtual time jumps as soon as the loop is idle. looptime's default of 42 idle turns before
    each jump is for threads that it does not know; ours go through executors, which it waits for,
    and half of all the tests' time went there."""
    if item.get_closest_marker("looptime"):
        item.add_marker(pytest.mark.looptime(noop_cycles=0))


def _terminated(number: int, frame: FrameType | None) -> None:
    pytest.exit(f"ended by signal {number}", returncode=128 + number)


# A run that is told to end (a time limit, a CI that is cancelled) cleans up what it made.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, _terminated)
    # A shell has what it starts in the background ignore Ctrl-C, and so would all that we start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
