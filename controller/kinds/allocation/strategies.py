"""In which order fitting hosts are tried: a plugin point.

A plugin brings a HostAllocator as an entry point of the group ``kumulus.host_allocators``; the
entry point's name is what ``InstanceOffering.spec.allocatorStrategy`` calls it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from controller.errors import Terminal
from controller.kinds.allocation.model import Candidate, Request

DEFAULT = "LeastVmPreferred"


class HostAllocator(Protocol):
    """A callable: candidates that fit, best first. It may leave some out; an empty answer means
    that none is good enough. Pure; a plugin's runs in its plugin's thread."""

    def __call__(
        self, request: Request, candidates: Sequence[Candidate]
    ) -> Sequence[Candidate]: ...


PluginAllocator = Callable[[Request, Sequence[Candidate]], Awaitable[Sequence[Candidate]]]
"""A plugin's HostAllocator, contained (controller.plugins.guarded)."""


def least_vm_preferred(request: Request, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Spread: the host with the fewest VMs; of equals the one with most memory left."""
    return sorted(candidates, key=lambda c: (c.vms, -c.free.get("memory", 0), c.name))


def last_host_preferred(request: Request, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Where it ran last, then as LeastVmPreferred."""
    spread = least_vm_preferred(request, candidates)
    return sorted(spread, key=lambda c: c.name != request.last_host)


def designated(request: Request, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """The host that the placement names and no other. Raises Terminal if it names none."""
    if request.host is None:
        raise Terminal(
            "strategy Designated takes the host from placement.hostRef, which is not set",
            reason="NoHostDesignated",
        )
    return [c for c in candidates if c.name == request.host]


BUILT_IN: dict[str, HostAllocator] = {
    "LeastVmPreferred": least_vm_preferred,
    "LastHostPreferred": last_host_preferred,
    "Designated": designated,
}


async def ranked(
    name: str,
    request: Request,
    candidates: Sequence[Candidate],
    plugins: Mapping[str, PluginAllocator],
) -> Sequence[Candidate]:
    """The candidates as the strategy called ``name`` orders them, a plugin's before a built-in
    one. Raises Terminal if there is none, and what the strategy raises."""
    check(name, plugins)
    if name in plugins:
        return await plugins[name](request, candidates)
    return BUILT_IN[name](request, candidates)


def check(name: str, plugins: Mapping[str, PluginAllocator]) -> None:
    """Raises Terminal if no strategy is called ``name``."""
    if name not in BUILT_IN and name not in plugins:
        known = ", ".join(sorted({*BUILT_IN, *plugins}))
        raise Terminal(f"no allocator strategy {name!r}; known: {known}", reason="UnknownStrategy")
