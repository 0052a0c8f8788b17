"""Choosing a host: each filter, each strategy, and that nothing is ever promised twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import Exhausted, Terminal
from controller.kinds.allocation import strategies
from controller.kinds.allocation.filters import fitting
from controller.kinds.allocation.model import Candidate, NewDisk, Request, Storage, place_disks
from tests.support.fakes import FakeLedger

GI = 2**30
ROOMY = {"cpu": 10, "memory": 10 * GI, "vms": 100}
REQUEST = Request(cpu=1, memory=GI)


def host(name: str = "h", **more: object) -> Candidate:
    usual = Candidate(
        name, f"uid-{name}", "c", "z", free=ROOMY,
        storages=(Storage("ps", f"storage/ps/{name}", 100),),
    )  # fmt: skip
    return replace(usual, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "candidate", "why"),
    [
        (replace(REQUEST, networks=frozenset({"lan"})), host(), "L2 network lan is not attached"),
        (replace(REQUEST, host="x"), host(), "placement asks for host x"),
        (replace(REQUEST, cluster="x"), host(), "placement asks for cluster x"),
        (replace(REQUEST, zone="x"), host(), "placement asks for zone x"),
        (REQUEST, host(state="Disabled"), "Disabled"),
        (REQUEST, host(state="Maintenance"), "Maintenance"),
        (REQUEST, host(status="Disconnected"), "Disconnected"),
        (REQUEST, host(status=""), "not connected yet"),
        (REQUEST, host(cluster_enabled=False), "cluster c is Disabled"),
        (REQUEST, host(zone_enabled=False), "zone z is Disabled"),
        (replace(REQUEST, architecture="aarch64"), host(), "is x86_64, the image aarch64"),
        (replace(REQUEST, image_zones=frozenset({"y"})), host(), "does not serve zone z"),
        (replace(REQUEST, memory=12 * GI), host(), "memory 2Gi short"),
        (replace(REQUEST, cpu=12, memory=12 * GI), host(), "2 vCPUs and memory 2Gi short"),
        (REQUEST, host(free={}), "1 vCPUs and memory 1Gi and vms 1 short"),
        (replace(REQUEST, volume_hosts={"v": "x"}), host(), "volume v is on host x"),
        (replace(REQUEST, new_disks=(NewDisk("o", 101),)), host(), "storage ps is 1 short"),
        (replace(REQUEST, new_disks=(NewDisk("o", 1, "big"),)), host(), "storage big serves it"),
        (replace(REQUEST, excluded=frozenset({"h"})), host(), "did not start there"),
    ],
)
def test_each_filter_says_why(request_: Request, candidate: Candidate, why: str) -> None:
    fit, dropped = fitting(request_, [candidate, host("other", free={})])
    assert fit == []
    assert why in dropped["h"]


def test_what_fits_passes() -> None:
    asked = Request(
        cpu=10, memory=10 * GI, architecture="x86_64", host="h", cluster="c", zone="z",
        image_zones=frozenset({"z"}), volume_hosts={"v": "h"}, new_disks=(NewDisk("o", 100),),
        networks=frozenset({"lan"}),
    )  # fmt: skip
    candidate = host(networks=frozenset({"lan", "wan"}))
    assert fitting(asked, [candidate]) == ([candidate], {})


def test_disks_go_where_there_is_most_room() -> None:
    two = host(
        storages=(
            Storage("a", "s/a", 100),
            Storage("b", "s/b", 90),
            Storage("c", "s/c", 999, False),
        )
    )
    asked = replace(REQUEST, new_disks=(NewDisk("x", 80), NewDisk("y", 50), NewDisk("z", 10, "a")))
    plan = place_disks(asked, two)
    assert not isinstance(plan, str)
    assert {disk.owner: storage.name for disk, storage in plan} == {"x": "a", "y": "b", "z": "a"}


def test_strategies_sort() -> None:
    a = host("a", used={"vms": 3})
    b = host("b", used={"vms": 1})
    c = host("c", used={"vms": 1}, free={**ROOMY, "memory": 20 * GI})
    least = strategies.least_vm_preferred(REQUEST, [a, b, c])
    assert [h.name for h in least] == ["c", "b", "a"]
    last = strategies.last_host_preferred(replace(REQUEST, last_host="a"), [a, b, c])
    assert [h.name for h in last] == ["a", "c", "b"]
    assert strategies.designated(replace(REQUEST, host="b"), [a, b, c]) == [b]
    with pytest.raises(Terminal, match="hostRef"):
        strategies.designated(REQUEST, [a])


async def test_a_plugin_brings_a_strategy() -> None:
    async def mine(request: Request, found: Sequence[Candidate]) -> Sequence[Candidate]:
        return backwards(request, list(found))

    a, b = host("a"), host("b")
    assert await strategies.ranked("Mine", REQUEST, [a, b], {"Mine": mine}) == [b, a]
    assert list(await strategies.ranked("LeastVmPreferred", REQUEST, [b, a], {})) == [a, b]
    with pytest.raises(Terminal, match="Mine"):
        await strategies.ranked("Nobody's", REQUEST, [a], {"Mine": mine})


def backwards(request: Request, candidates: list[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda c: c.name, reverse=True)


@given(
    hosts=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 50)), min_size=1, max_size=4
    ),
    wishes=st.lists(
        st.tuples(
            st.sampled_from(["claim", "release"]), st.integers(0, 5), st.integers(1, 4),
            st.integers(1, 4), st.lists(st.integers(1, 40), max_size=2),
        ),
        max_size=20,
    ),
    stale=st.booleans(),
)  # fmt: skip
async def test_no_host_is_ever_promised_more_than_it_has(
    hosts: list[tuple[int, int, int]],
    wishes: list[tuple[str, int, int, int, list[int]]],
    stale: bool,
) -> None:
    """Against a model: what the ledger holds never exceeds a pool; a VM is refused only if it
    fits nowhere. ``stale``: all decide on what they saw at the beginning."""
    ledger = FakeLedger()
    for i, (cpu, memory, disk) in enumerate(hosts):
        await ledger.set_pool(f"host/{i}", {"cpu": cpu, "memory": memory, "vms": 3})
        await ledger.set_pool(f"storage/ps/{i}", {"bytes": disk})
    seen = await _candidates(ledger, len(hosts))
    for verb, vm, cpu, memory, disks in wishes:
        await ledger.release(f"vm-{vm}")
        for i in range(2):
            await ledger.release(f"vm-{vm}/{i}")
        if verb == "release":
            continue
        new = tuple(NewDisk(f"vm-{vm}/{i}", size) for i, size in enumerate(disks))
        asked = Request(cpu=cpu, memory=memory, new_disks=new)
        if not stale:
            seen = await _candidates(ledger, len(hosts))
        placed = await _place(ledger, asked, f"vm-{vm}", seen)
        fresh, _ = fitting(asked, await _candidates(ledger, len(hosts)))
        assert placed or stale or not fresh
        pools = await ledger.pools("")
        assert len(pools) == 2 * len(hosts)
        for pool in pools:
            assert all(pool.free(resource) >= 0 for resource in pool.capacity)
    assert len(ledger.amounts) <= len({w[1] for w in wishes}) * 3


async def _candidates(ledger: FakeLedger, count: int) -> list[Candidate]:
    found = []
    for i in range(count):
        (pool,) = await ledger.pools(f"host/{i}")
        (disk,) = await ledger.pools(f"storage/ps/{i}")
        free = {k: pool.free(k) for k in pool.capacity}
        storage = Storage("ps", disk.scope, disk.free("bytes"))
        found.append(
            Candidate(str(i), str(i), "c", "z", free=free, used=pool.used, storages=(storage,))
        )
    return found


async def _place(ledger: FakeLedger, asked: Request, owner: str, seen: list[Candidate]) -> bool:
    """As the flow's step does it, with the real ``_claim``."""
    from types import SimpleNamespace

    from controller.kinds.vm_place import _claim

    scope = SimpleNamespace(
        ctx=SimpleNamespace(ledger=ledger), obj=SimpleNamespace(uid=owner), data={}
    )
    fit, _ = fitting(asked, seen)
    for candidate in strategies.least_vm_preferred(asked, fit):
        try:
            await _claim(scope, asked, candidate)  # type: ignore[arg-type]
        except Exhausted:
            assert not await ledger.claims(owner=owner)  # all or nothing
            continue
        return True
    return False
