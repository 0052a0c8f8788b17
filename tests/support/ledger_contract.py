"""What every ledger must do. Subclassed for each database: see ``LedgerContract``."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import text

from controller.errors import Exhausted, Transient
from controller.ledger.base import PERMIT, Claim, Permit
from controller.ledger.sql import SqlLedger

T = TypeVar("T")
NET = (10 << 24) + 256
"""10.0.1.0"""
OWNERS = ("vm-1", "vm-2", "vm-3", "vm-4/eth0")
SCOPES = ("ip/a", "ip/a~", "vni/_%")
RANGES: tuple[tuple[tuple[int, int], ...], ...] = (
    ((NET + 1, NET + 3),),
    ((NET + 254, NET + 258), (NET + 1, NET + 1)),
    ((NET + 5, NET + 5), (NET + 2, NET + 2)),
)
RESOURCES = ("cpu", "memory")
amounts = st.dictionaries(st.sampled_from(RESOURCES), st.integers(0, 4))


async def audit(ledger: SqlLedger) -> None:
    """Derived figures agree with the claims that they are derived from."""

    def look(c: Any) -> tuple[list[Any], list[Any]]:
        blocks = c.execute(text("SELECT scope, block, used FROM ledger_blocks WHERE used != 0"))
        return blocks.all(), c.execute(text("SELECT scope, value FROM ledger_addresses")).all()

    blocks, addresses = await ledger._database.read(look)
    counted = Counter((scope, value >> 8) for scope, value in addresses)
    assert {(scope, block): used for scope, block, used in blocks} == counted
    sums: Counter[tuple[str, str]] = Counter()
    for claim in await ledger.claims():
        for resource, amount in (claim.amounts or {}).items():
            sums[claim.scope, resource] += amount
    for pool in await ledger.pools(""):
        assert pool.used == {r: sums[pool.scope, r] for r in pool.capacity}, pool.scope


class Model(RuleBasedStateMachine):
    """The ledger against dictionaries."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.ledger = self.wait(SqlLedger.open(url))
        self.addresses: dict[tuple[str, str], int] = {}
        self.values: dict[tuple[str, str], str] = {}
        self.capacity: dict[str, dict[str, int]] = {}
        self.taken: dict[tuple[str, str], dict[str, int]] = {}

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        for owner in OWNERS:
            self.wait(self.ledger.release(owner))
        for scope in SCOPES:
            self.wait(self.ledger.drop_pool(scope))
        assert list(self.wait(self.ledger.claims())) == []
        self.wait(self.ledger.close())
        self.runner.close()

    def used(self, scope: str, resource: str) -> int:
        return sum(t.get(resource, 0) for (s, _), t in self.taken.items() if s == scope)

    @rule(
        scope=st.sampled_from(SCOPES),
        owner=st.sampled_from(OWNERS),
        ranges=st.sampled_from(RANGES),
        exclude=st.lists(st.sampled_from([NET + 1, NET + 2, NET + 254]), max_size=2),
        wanted=st.none() | st.sampled_from([NET + 1, NET + 3, NET + 256]),
    )
    def claim_address(
        self,
        scope: str,
        owner: str,
        ranges: tuple[tuple[int, int], ...],
        exclude: list[int],
        wanted: int | None,
    ) -> None:
        held = self.addresses.get((scope, owner))
        free = [
            value
            for low, high in sorted(ranges)
            for value in range(low, high + 1)
            if value not in exclude and (scope, value) not in self._taken_addresses()
        ]
        if held is not None and wanted in (None, held):
            expected: int | None = held
        elif wanted is not None:
            expected = wanted if wanted in free else None
        else:
            expected = free[0] if free else None
        claim = self.ledger.claim_address(scope, owner, ranges, exclude=exclude, wanted=wanted)
        if expected is None:
            with pytest.raises(Exhausted):
                self.wait(claim)
        else:
            assert self.wait(claim) == expected
            self.addresses[scope, owner] = expected

    def _taken_addresses(self) -> set[tuple[str, int]]:
        return {(scope, value) for (scope, _), value in self.addresses.items()}

    @rule(
        scope=st.sampled_from(SCOPES),
        owner=st.sampled_from(OWNERS),
        value=st.sampled_from(["fa:00", "FA:00", "fa:00 "]),
    )
    def claim_value(self, scope: str, owner: str, value: str) -> None:
        other = next(
            (o for (s, o), v in self.values.items() if (s, v) == (scope, value) and o != owner),
            None,
        )
        if other is None:
            self.wait(self.ledger.claim_value(scope, owner, value))
            self.values[scope, owner] = value
        else:
            with pytest.raises(Exhausted, match=f"taken by {other}"):
                self.wait(self.ledger.claim_value(scope, owner, value))

    @rule(scope=st.sampled_from(SCOPES), capacity=amounts)
    def set_pool(self, scope: str, capacity: dict[str, int]) -> None:
        self.wait(self.ledger.set_pool(scope, capacity))
        kept = {r: 0 for r in self.capacity.get(scope, {}) if self.used(scope, r)}
        self.capacity[scope] = kept | capacity
        if not self.capacity[scope]:
            del self.capacity[scope]

    @rule(scope=st.sampled_from(SCOPES))
    def drop_pool(self, scope: str) -> None:
        self.wait(self.ledger.drop_pool(scope))
        self.capacity.pop(scope, None)
        self.taken = {k: v for k, v in self.taken.items() if k[0] != scope}

    @rule(scope=st.sampled_from(SCOPES), owner=st.sampled_from(OWNERS), wanted=amounts)
    def claim_amounts(self, scope: str, owner: str, wanted: dict[str, int]) -> None:
        held = self.taken.get((scope, owner), {})
        capacity = self.capacity.get(scope, {})
        changes = {r: wanted.get(r, 0) - held.get(r, 0) for r in {*held, *wanted}}
        fits = all(
            change <= 0 or (self.used(scope, r) + change <= capacity.get(r, 0))
            for r, change in changes.items()
        )
        if fits:
            self.wait(self.ledger.claim_amounts(scope, owner, wanted))
            self.taken[scope, owner] = wanted
            if not wanted:
                del self.taken[scope, owner]
        else:
            with pytest.raises(Exhausted):
                self.wait(self.ledger.claim_amounts(scope, owner, wanted))

    @rule(owner=st.sampled_from(OWNERS), prefix=st.sampled_from(["", "ip/", "ip/a", "vni/_", "v%"]))
    def release(self, owner: str, prefix: str) -> None:
        released = 0
        for table in (self.addresses, self.values, self.taken):
            gone = [k for k in table if k[1] == owner and k[0].startswith(prefix)]
            released += len(gone)
            for key in gone:
                del table[key]  # type: ignore[attr-defined]
        assert self.wait(self.ledger.release(owner, prefix)) == released

    @rule(
        owner=st.sampled_from(OWNERS),
        to=st.sampled_from(OWNERS),
        prefix=st.sampled_from(["", "ip/", "ip/a", "vni/_"]),
    )
    def hand_over(self, owner: str, to: str, prefix: str) -> None:
        self.wait(self.ledger.hand_over(owner, to, prefix))
        for scope, of in [k for k in self.taken if k[1] == owner and k[0].startswith(prefix)]:
            self.taken[scope, to] = self.taken.pop((scope, of))

    @invariant()
    def agrees(self) -> None:
        claims = {
            *((s, o, str(v)) for (s, o), v in self.addresses.items()),
            *((s, o, v) for (s, o), v in self.values.items()),
        }
        found = self.wait(self.ledger.claims())
        assert {(c.scope, c.owner, c.value) for c in found if c.value is not None} == claims
        assert {(c.scope, c.owner): c.amounts for c in found if c.amounts} == {
            k: v for k, v in self.taken.items() if v
        }
        some = self.wait(self.ledger.claims(owner="vm-1", prefix="ip/a"))
        assert {c.scope for c in some} == {
            c.scope for c in found if c.owner == "vm-1" and c.scope.startswith("ip/a")
        }
        assert {p.scope: p.capacity for p in self.wait(self.ledger.pools(""))} == self.capacity
        self.wait(audit(self.ledger))


@asynccontextmanager
async def replicas(url: str, count: int = 2) -> Any:
    """Several ledgers on one database, as several controllers have."""
    ledgers = [await SqlLedger.open(url, patience=30) for _ in range(count)]
    try:
        yield ledgers
    finally:
        for ledger in ledgers:
            await ledger.close()


async def _permitted(permit: Permit, work: Coroutine[Any, Any, T]) -> T:
    token = PERMIT.set(permit)
    try:
        return await work
    finally:
        PERMIT.reset(token)


def _claimer(url: str, name: str, count: int) -> None:
    """A process that claims, releases some of it, and claims again."""

    async def work() -> None:
        ledger = await SqlLedger.open(url, patience=60)
        for number in range(count):
            owner = f"{name}-{number}"
            await ledger.claim_address("ip/net", owner, [(NET + 1, NET + 5000)])
            await ledger.claim_amounts("host/1", owner, {"cpu": 1, "memory": 2})
            if number % 4 == 0:
                await ledger.release(owner)
        await ledger.close()

    asyncio.run(work())


class LedgerContract:
    """Subclasses give a fixture ``url``: an empty database."""

    examples = 20

    def test_it_behaves_as_dictionaries_do(self, url: str) -> None:
        run_state_machine_as_test(
            lambda: Model(url),
            settings=settings(
                max_examples=self.examples, stateful_step_count=25, deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip

    async def test_competitors_get_the_lowest_addresses_each_once(self, url: str) -> None:
        async with replicas(url, 3) as ledgers:
            got = await asyncio.gather(
                *(
                    ledgers[i % 3].claim_address("ip/a", f"vm-{i}", [(NET + 1, NET + 999)])
                    for i in range(120)
                )
            )
            assert sorted(got) == list(range(NET + 1, NET + 121))
            await audit(ledgers[0])

    async def test_the_same_claim_from_everywhere_is_one_claim(self, url: str) -> None:
        async with replicas(url, 3) as ledgers:
            await ledgers[0].set_pool("host/1", {"cpu": 3})
            got = await asyncio.gather(
                *(x.claim_address("ip/a", "vm", [(NET, NET + 99)]) for x in ledgers * 4),
                *(x.claim_amounts("host/1", "vm", {"cpu": 2}) for x in ledgers * 4),
                *(x.claim_value("mac", "vm", "fa:1") for x in ledgers * 4),
            )
            assert set(got[:12]) == {NET}
            assert (await ledgers[1].pools("host/1"))[0].used == {"cpu": 2}
            assert len(await ledgers[2].claims(owner="vm")) == 3

    async def test_the_last_address_for_one_owner_from_everywhere(self, url: str) -> None:
        async with replicas(url, 3) as ledgers:
            for number in range(4):
                wanted = NET if number % 2 else None
                got = await asyncio.gather(
                    *(
                        x.claim_address(f"ip/{number}", "vm", [(NET, NET)], wanted=wanted)
                        for x in ledgers * 4
                    )
                )
                assert set(got) == {NET}
            await audit(ledgers[0])

    async def test_a_pool_is_never_overdrawn(self, url: str) -> None:
        async with replicas(url, 3) as ledgers:
            await ledgers[0].set_pool("host/1", {"cpu": 40, "memory": 1000})
            results = await asyncio.gather(
                *(
                    ledgers[i % 3].claim_amounts("host/1", f"vm-{i}", {"cpu": 1, "memory": 2})
                    for i in range(60)
                ),
                return_exceptions=True,
            )
            refused = [r for r in results if r is not None]
            assert len(refused) == 20
            assert all(isinstance(r, Exhausted) for r in refused)
            assert "cpu needs 1, 0 of 40 are free, 1 short" in str(refused[0])
            await audit(ledgers[0])

    async def test_changes_and_releases_at_once_keep_the_sum(self, url: str) -> None:
        async with replicas(url, 3) as ledgers:
            await ledgers[0].set_pool("host/1", {"cpu": 1000})
            await asyncio.gather(
                *(
                    ledgers[i % 3].release("vm")
                    if i % 5 == 0
                    else ledgers[i % 3].claim_amounts("host/1", "vm", {"cpu": i})
                    for i in range(45)
                )
            )
            await audit(ledgers[0])

    async def test_the_fence_waits_for_who_read_it_and_refuses_who_comes_later(
        self, url: str
    ) -> None:
        async with replicas(url) as (old, new):
            reading, go_on = threading.Event(), threading.Event()

            def permit(fenced: Callable[[], int]) -> None:
                if fenced() > 1:
                    raise Transient("the ring has changed")
                reading.set()
                assert go_on.wait(30)

            await new.fence(1)
            claim = asyncio.create_task(_permitted(permit, old.claim_value("mac", "vm", "a")))
            await asyncio.to_thread(reading.wait, 30)
            raised = asyncio.create_task(new.fence(2))
            await asyncio.sleep(0.3)
            assert not raised.done(), "one is under way that was permitted before"
            go_on.set()
            await asyncio.gather(claim, raised)
            with pytest.raises(Transient, match="the ring has changed"):
                await _permitted(permit, old.claim_value("mac", "vm-2", "b"))
            await new.fence(1)
            with pytest.raises(Transient, match="the ring has changed"):
                await _permitted(permit, old.release("vm"))
            assert [c.owner for c in await new.claims(prefix="mac")] == ["vm"]

    def test_processes_compete_and_one_is_killed(self, url: str) -> None:
        async def prepare() -> None:
            async with replicas(url, 1) as (ledger,):
                await ledger.set_pool("host/1", {"cpu": 10_000, "memory": 20_000})

        async def check(*, quiet: bool = True) -> list[Claim]:
            async with replicas(url, 1) as (ledger,):
                if quiet:
                    await audit(ledger)
                return list(await ledger.claims(prefix="ip/"))

        asyncio.run(prepare())
        spawn = multiprocessing.get_context("spawn")
        workers = [
            spawn.Process(target=_claimer, args=(url, f"p{i}", 10**6 if i == 0 else 40))
            for i in range(3)
        ]
        for worker in workers:
            worker.start()
        try:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                if any(c.owner.startswith("p0") for c in asyncio.run(check(quiet=False))):
                    break
            assert workers[0].pid is not None
            os.kill(workers[0].pid, signal.SIGKILL)
            for worker in workers:
                worker.join(120)
            assert [w.exitcode for w in workers] == [-signal.SIGKILL, 0, 0]
        finally:
            for worker in workers:
                worker.kill()
                worker.join()
        claims = asyncio.run(check())
        assert len({c.value for c in claims}) == len(claims)
        assert sum(1 for c in claims if not c.owner.startswith("p0")) == 60

    async def test_a_rebuild_from_statuses_never_allocates_twice(self, url: str) -> None:
        ranges = [(NET + 1, NET + 20)]
        statuses = {f"vm-{i}": NET + 1 + (7 * i) % 20 for i in range(8)}
        async with replicas(url) as (one, two):
            newcomers = [one.claim_address("ip/a", f"new-{i}", ranges) for i in range(5)]
            restored = [
                two.claim_address("ip/a", owner, ranges, wanted=value)
                for owner, value in statuses.items()
            ]
            done = await asyncio.gather(*newcomers, *restored, return_exceptions=True)
            claims = await one.claims(prefix="ip/a")
            values = [c.value for c in claims]
            assert len(set(values)) == len(values)
            for (owner, value), result in zip(statuses.items(), done[5:], strict=True):
                if isinstance(result, Exhausted):
                    holder = next(c.owner for c in claims if c.value == str(value))
                    assert f"is taken by {holder}" in str(result)
                else:
                    assert result == value
                    assert Claim("ip/a", owner, str(value)) in claims
            again = await asyncio.gather(
                *(
                    two.claim_address("ip/a", c.owner, ranges, wanted=int(c.value or 0))
                    for c in claims
                )
            )
            assert [str(v) for v in again] == values
            await two.set_pool("host/1", {"cpu": 10**9})
            await two.claim_amounts("host/1", "vm-0", {"cpu": 8})
            await two.set_pool("host/1", {"cpu": 4})
            assert (await one.pools("host/1"))[0].free("cpu") == -4
            with pytest.raises(Exhausted, match="there is no pool host/2"):
                await one.claim_amounts("host/2", "vm-0", {"cpu": 1})

    async def test_a_dense_net_is_not_read_through(self, url: str) -> None:
        """Finding the last free address of 5,000 looks at blocks, not at addresses."""

        def fill(c: Any) -> None:
            rows = [{"v": NET + i, "o": f"o-{i}"} for i in range(5000) if i != 4990]
            c.execute(
                text("INSERT INTO ledger_addresses (scope, value, owner) VALUES ('ip/a', :v, :o)"),
                rows,
            )
            used = Counter(row["v"] >> 8 for row in rows)  # type: ignore[operator]
            c.execute(
                text("INSERT INTO ledger_blocks (scope, block, used) VALUES ('ip/a', :b, :n)"),
                [{"b": block, "n": count} for block, count in used.items()],
            )

        async with replicas(url, 1) as (ledger,):
            await ledger._database.write(fill)
            await audit(ledger)
            ranges = [(NET, NET + 4999)]
            assert await ledger.claim_address("ip/a", "vm", ranges) == NET + 4990
            with pytest.raises(Exhausted, match=r"10\.0\.1\.0-10\.0\.20\.135 of ip/a"):
                await ledger.claim_address("ip/a", "vm-2", ranges)
            await ledger.release("o-77")
            assert await ledger.claim_address("ip/a", "vm-2", ranges) == NET + 77

    async def test_a_claim_moves_to_the_address_that_is_wanted(self, url: str) -> None:
        ranges = [(NET, NET + 999)]
        async with replicas(url, 1) as (ledger,):
            assert await ledger.claim_address("ip/a", "vm-1", ranges) == NET
            assert await ledger.claim_address("ip/a", "vm-1", ranges, wanted=NET + 600) == NET + 600
            await audit(ledger)
            assert await ledger.claim_address("ip/a", "vm-2", ranges) == NET
            with pytest.raises(Exhausted, match="is taken by vm-2"):
                await ledger.claim_address("ip/a", "vm-1", ranges, wanted=NET)
            assert await ledger.claim_address("ip/a", "vm-1", ranges) == NET + 600
            await ledger.claim_value("mac", "vm-1", "fa:1")
            await ledger.claim_value("mac", "vm-1", "fa:2")
            await ledger.claim_value("mac", "vm-2", "fa:1")
            await audit(ledger)

    async def test_messages_name_the_cause(self, url: str) -> None:
        ranges = [(NET + 2, NET + 4)]
        async with replicas(url, 1) as (ledger,):
            await ledger.claim_address("ip/a", "vm-1", ranges, wanted=NET + 3)
            for wanted, words in (
                (NET + 3, r"10\.0\.1\.3 in ip/a is taken by vm-1"),
                (NET + 2, r"10\.0\.1\.2 is reserved"),
                (NET + 9, r"10\.0\.1\.9 is outside 10\.0\.1\.2-10\.0\.1\.4"),
            ):
                with pytest.raises(Exhausted, match=words):
                    await ledger.claim_address(
                        "ip/a", "vm-2", ranges, exclude=[NET + 2], wanted=wanted
                    )
            for bad in ("ü", "a\n", "x" * 191):
                with pytest.raises(ValueError, match="cannot be kept"):
                    await ledger.claim_value("mac", bad, "v")
            with pytest.raises(ValueError, match="no range"):
                await ledger.claim_address("ip/a", "vm", [(0, 2**63)])
            with pytest.raises(ValueError, match="no amount"):
                await ledger.claim_amounts("host/1", "vm", {"cpu": -1})

    async def test_a_cancelled_call_has_no_late_effect(self, url: str) -> None:
        async with replicas(url, 1) as (ledger,):
            for number in range(20):
                task = asyncio.create_task(ledger.claim_address("ip/a", "vm", [(NET, NET + 9)]))
                await asyncio.sleep(0.0005 * (number % 5))
                task.cancel()
                await asyncio.wait([task])
                await ledger.release("vm")
            assert list(await ledger.claims()) == []

    async def test_one_that_is_inspected_reads_and_cannot_write(self, url: str) -> None:
        ledger = await SqlLedger.open(url)
        await ledger.claim_value("mac", "vm", "fa:1")
        reader = SqlLedger.inspect(url, patience=0.05)
        try:
            assert [claim.value for claim in await reader.claims()] == ["fa:1"]
            assert await reader.pools("") == []
            with pytest.raises(Transient):
                await reader.claim_value("mac", "vm-2", "fa:2")
            with pytest.raises(Transient):
                await reader.release("vm")
            await ledger.claim_value("mac", "vm-3", "fa:3")
            assert len(await reader.claims()) == 2, "it reads what others write"
        finally:
            await reader.close()
            await ledger.close()
