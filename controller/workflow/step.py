"""A workflow's step: run and rollback, both idempotent, keyed by the owner's uid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from controller.reconcile.actuator import Context
from crds.base import Resource

R = TypeVar("R", bound=Resource)


@dataclass
class Scope(Generic[R]):
    """What the steps of one run share. What must outlive the process goes into ``obj.status`` or
    the ledger; ``data`` is for this pass only. ``run_id`` names the run: operation ids start with
    it, so that a restarted controller finds what its predecessor began."""

    obj: R
    ctx: Context
    run_id: str
    step: str = ""
    data: dict[str, Any] | None = None

    def operation(self, part: str = "") -> str:
        """The id of this step's agent operation; ``part`` tells several of one step apart."""
        return ".".join(p for p in (self.run_id, self.step, part) if p)


class Step:
    """Subclasses set ``name`` (as flows/*.yaml call it) and override run, and rollback. One whose
    run leaves nothing behind that a failing flow would have to undo says why in ``no_rollback``;
    a step with neither is refused at start-up. Constructed once; keeps no state.

    run: raises Waiting to pause here (it runs again, from its start, when the key wakes);
    Transient to be tried again; Terminal to fail: then this step's rollback runs, and those of
    the steps before it, in reverse. rollback: must cope with a run that never happened or went
    half way; may raise Waiting and Transient, and is repeated until it is clean.

    Steps of a parallel group run at the same time, in one process: they must not change the same
    part of the status across an await.
    """

    name: ClassVar[str] = ""
    no_rollback: ClassVar[str] = ""

    async def run(self, scope: Scope[Any]) -> None:
        raise NotImplementedError

    async def rollback(self, scope: Scope[Any]) -> None:
        return None

    @property
    def reversible(self) -> bool:
        """Has it anything to roll back?"""
        return type(self).rollback is not Step.rollback
