"""The process's heap: what is taken for a moment goes back to the system.

A Kubernetes API server's memory is what its largest answers leave behind. glibc keeps what was
freed, and raises the size from which it asks the system for a piece of its own (mallopt(3):
M_MMAP_THRESHOLD) up to 32 MiB with every large piece that is freed. So one list of 20 MB stays,
with small objects strewn in it. Fixed limits keep large pieces apart, and give them back at once.
"""

from __future__ import annotations

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 128 * 1024
_ARENAS = 2
"""For the loop and for all other threads: each arena keeps what its threads freed."""
_GC_THRESHOLD = 10_000


def bound() -> None:
    """Call before anything large is allocated. Does nothing where malloc is not glibc's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _LARGE)
        mallopt(_M_ARENA_MAX, _ARENAS)


def settle() -> None:
    """What was loaded so far stays: the collector need not look at it again and again."""
    if gc.isenabled():  # a process that is nothing but the server has left no garbage yet
        gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(_GC_THRESHOLD, 20, 50)


def give_back() -> None:
    """Free pages within the heap go to the system (glibc keeps them; milliseconds)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
