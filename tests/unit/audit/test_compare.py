"""What is there and nobody's is named; what is somebody's, or on its way, is not."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.drivers.simulated.records import Volume as StoredVolume
from agents.wire import Inventory
from controller.audit.compare import Finding, Item, Owners, Report, compare
from controller.audit.gather import claimed, listed
from controller.keys import Key
from controller.ledger.base import Claim, Pool
from controller.reconcile.holdings import LEDGER, POOLS, Holding
from tests.unit.kinds.world import World, cloud, running_vm

VM = Key("VirtualMachine", "default", "vm")
UIDS = [str(uuid5(UUID(int=0), str(n))) for n in range(4)]


def owners(*holdings: Holding, free: tuple[str, ...] = ()) -> Owners:
    known = {UIDS[0]: VM, **dict.fromkeys(free, VM)}
    return Owners(known, frozenset(free), [(VM, holding) for holding in holdings])


def names(findings: tuple[Finding, ...]) -> list[tuple[str, str, str]]:
    return [finding.item.same for finding in findings]


def test_each_way_of_being_wrong_has_its_reason() -> None:
    items = [
        Item("host/a", "vms", UIDS[0]),
        Item("host/b", "vms", UIDS[0]),
        Item("host/a", "volumes", UIDS[1]),
        Item(LEDGER, "mac", f"{UIDS[0]}/eth0", "fa:00"),
    ]
    lost = Holding(LEDGER, "host/x", UIDS[0])
    report = compare(items, owners(Holding("host/a", "vms", UIDS[0]), lost), {})
    assert {f.item.same: f.why for f in report.orphans} == {
        ("host/b", "vms", UIDS[0]): f"{VM} has it in host/a vms, not here",
        ("host/a", "volumes", UIDS[1]): "what it was for does not exist any more",
        (LEDGER, "mac", f"{UIDS[0]}/eth0"): f"{VM} does not use it",
    }
    assert names(report.missing) == [(LEDGER, "host/x", UIDS[0])]
    assert not report.clean


@pytest.mark.parametrize(
    ("holding", "fits"),
    [
        (Holding("host/a", "vms", "x"), True),
        (Holding("host/", "vms", "x"), True),
        (Holding("", "", "x"), True),
        (Holding("host/a", "v", "x"), False),
        (Holding("host", "vms", "x"), False),
        (Holding("host/ab", "vms", "x"), False),
        (Holding("host/a", "vms", "y"), False),
    ],
)
def test_a_place_or_area_that_ends_with_a_slash_stands_for_all_below(
    holding: Holding, fits: bool
) -> None:
    report = compare([Item("host/a", "vms", "x")], owners(holding), {})
    assert (report.orphans == ()) == fits
    assert (report.missing == ()) == fits


def test_what_may_be_need_not_be_and_silent_agents_miss_nothing() -> None:
    maybe = Holding("host/a", "vms", "x", needed=False)
    asked = Holding("host/b", "vms", "y")
    report = compare([], owners(maybe, asked), {"host/b": "no answer"})
    assert report.clean
    assert report.unasked == {"host/b": "no answer"}


def test_a_kind_that_tells_nothing_owns_whatever_carries_its_uid() -> None:
    items = [Item(LEDGER, f"vni/{UIDS[1]}", f"{UIDS[2]}/port"), Item(LEDGER, "vni/", UIDS[3])]
    report = compare(items, owners(free=(UIDS[2],)), {})
    assert names(report.orphans) == [(LEDGER, "vni/", UIDS[3])]


def test_only_what_two_looks_find_counts() -> None:
    def report(*items: str) -> Report:
        return Report(tuple(Finding(Item("p", "a", i), "") for i in items), (), {"h": "late"})

    both = report("x", "passing").confirmed_by(report("new", "x"))
    assert names(both.orphans) == [("p", "a", "x")]
    assert both.unasked == {"h": "late"}


places = st.sampled_from(["host/a", "host/b", LEDGER])
areas = st.sampled_from(["vms", "volumes", "mac"])
things = st.builds(Item, places, areas, st.sampled_from(UIDS))


@given(st.sets(things), st.sets(st.tuples(things, st.booleans())))
def test_every_thing_is_somebodys_or_an_orphan(
    items: set[Item], claims: set[tuple[Item, bool]]
) -> None:
    holdings = [Holding(*item.same, needed=needed) for item, needed in claims]
    report = compare(items, owners(*holdings), {})
    owned = {item.same for item, _ in claims}
    assert set(names(report.orphans)) == {i.same for i in items} - owned
    needed = {item.same for item, needed in claims if needed}
    assert set(names(report.missing)) == needed - {i.same for i in items}


def test_what_is_read_is_listed_whole() -> None:
    claims = [Claim("ip/n", "o", value="12"), Claim("host/h", "o", amounts={"cpu": 2, "vms": 1})]
    assert list(claimed(claims, [Pool("host/h", {}, {})])) == [
        Item(LEDGER, "ip/n", "o", "0.0.0.12"),
        Item(LEDGER, "host/h", "o", "2 cpu, 1 vms"),
        Item(LEDGER, POOLS, "host/h"),
    ]
    inventory = Inventory(vms=["v"], volumes=["w"], images=["i"], bridges=["b"], taps=["t"],
                          dhcp=["d"])  # fmt: skip
    found = list(listed("host/a", inventory))
    assert [item.area for item in found] == list(Inventory.model_fields)
    assert [item.item for item in found] == list("vwibtd")


Plant = tuple[str, Any, tuple[str, str]]


def _plants(world: World) -> list[Plant]:
    """(what is planted, how, (place, area) of the orphan)."""
    vm, stray = world.vm(), UIDS[3]
    here = world.domains()[vm.uid]
    other = next(n for n in ("host-1", "host-2") if n != here)
    machine = world.agents.agents[other].machine
    return [
        ("an address", lambda: world.ledger.values.update({("ip/x", f"{stray}/eth0"): "9"}),
         (LEDGER, "ip/x")),
        ("a MAC of a NIC that is no more",
         lambda: world.ledger.values.update({("mac", f"{vm.uid}/eth9"): "fa"}), (LEDGER, "mac")),
        ("capacity on another host",
         lambda: world.ledger.amounts.update({(f"host/{stray}", vm.uid): {"cpu": 1}}),
         (LEDGER, f"host/{stray}")),
        ("space", lambda: world.ledger.amounts.update({("storage/x/y", "volume/default/no"): {}}),
         (LEDGER, "storage/x/y")),
        ("a pool", lambda: world.ledger.capacity.update({f"host/{stray}": {}}), (LEDGER, POOLS)),
        ("a volume", lambda: machine.volumes.put(stray, _volume(world, here)),
         (f"host/{other}", "volumes")),
        ("a copy of a volume",
         lambda: machine.volumes.put(world.volume("vm-root").uid, _volume(world, here)),
         (f"host/{other}", "volumes")),
        ("a domain on a second host",
         lambda: machine.vms.put(vm.uid, world.agents.agents[here].machine.vms.get(vm.uid)),
         (f"host/{other}", "vms")),
    ]  # fmt: skip


def _volume(world: World, host: str) -> StoredVolume:
    found = world.agents.agents[host].machine.volumes.get(world.volume("vm-root").uid)
    assert found is not None
    return found


@pytest.mark.looptime
@pytest.mark.parametrize("number", range(8))
async def test_whatever_is_planted_is_found(number: int) -> None:
    async with cloud(2) as world:
        await running_vm(world)
        assert (await world.audit()).clean
        what, plant, where = _plants(world)[number]
        plant()
        report = await world.audit()
        assert {f.item.same[:2] for f in report.orphans} >= {where}, what


@pytest.mark.looptime
async def test_what_a_running_vm_counts_on_is_missed() -> None:
    async with cloud(1) as world:
        vm = await running_vm(world)
        machine = world.agents.agents["host-1"].machine
        machine.vms.drop(vm.uid)
        machine.volumes.drop(world.volume("vm-root").uid)
        world.ledger.values.clear()
        world.ledger.amounts.clear()
        found = await world.audit()
        assert {f.item.area.partition("/")[0] for f in found.missing} == {
            "vms", "volumes", "mac", "ip", "host", "storage",
        }  # fmt: skip
