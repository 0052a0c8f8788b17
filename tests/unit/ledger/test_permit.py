"""A writer that lost its right while it waited for its turn writes nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.errors import Transient
from controller.ledger.base import PERMIT
from controller.ledger.sql import SqlLedger


async def test_the_right_is_asked_for_when_the_transaction_has_begun(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = await SqlLedger.open(f"sqlite:///{path}")
    rights = [True]

    def permit(fenced: Callable[[], int]) -> None:
        if not rights[0]:
            raise Transient("the ring has given it away")

    PERMIT.set(permit)
    await ledger.claim_value("mac", "vm-1", "a")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # a neighbour's transaction: ours has to wait
    claim = asyncio.create_task(ledger.claim_value("mac", "vm-2", "b"))
    await asyncio.sleep(0.05)
    assert not claim.done()
    rights[0] = False
    other.execute("ROLLBACK")
    other.close()
    with pytest.raises(Transient, match="given it away"):
        await claim
    assert [claim.owner for claim in await ledger.claims(prefix="mac")] == ["vm-1"]
    await ledger.close()
