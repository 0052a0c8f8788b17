"""``kumulus audit``: what is there and nobody's, in the ledger, on machines and in the API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller import tls
from controller.agentlink.link import AgentsClient
from controller.audit.compare import Finding, Report
from controller.audit.read import Sources, audit
from controller.cli.output import CommandFailed, columns, err, out, say
from controller.ledger.sql import SqlLedger
from controller.registry import installed
from controller.up.kube import Kube, find_kubeconfig, listing
from controller.up.layout import Layout

ORPHANED, INCOMPLETE = 1, 2
"""Exit codes: something is orphaned or missing; some agent could not be asked."""


@dataclass(frozen=True)
class Request:
    """``wait``: seconds between the two looks."""

    data_dir: Path
    kubeconfig: Path | None = None
    database: str | None = None
    pki_dir: Path | None = None
    agent_port: int = 7070
    wait: float = 3.0


def run_audit(request: Request, *, as_json: bool) -> int:
    """Prints what is wrong; returns the exit code. Raises KumulusError when it cannot look."""
    report = asyncio.run(_audit(request))
    if as_json:
        out.print_json(json.dumps(wire(report)))
    else:
        _print(report)
    if not report.clean:
        return ORPHANED
    return INCOMPLETE if report.unasked else 0


async def _audit(request: Request) -> Report:
    kube = Kube(find_kubeconfig(request.kubeconfig, request.data_dir))
    registry = installed()
    layout = Layout(request.data_dir)

    async def objects() -> list[dict[str, Any]]:
        return await asyncio.to_thread(listing, kube, list(registry.models.values()))

    ledger = SqlLedger.inspect(request.database or f"sqlite:///{layout.ledger.absolute()}")
    try:
        agents = _agents(request.pki_dir or layout.pki)
        try:
            sources = Sources(registry, objects, ledger, agents, _port(request, layout))
            return await audit(sources, request.wait)
        finally:
            await agents.close()
    finally:
        await ledger.close()


def _port(request: Request, layout: Layout) -> int:
    """The embedded cloud knows its own; elsewhere it is the option's."""
    from controller.up import state  # noqa: PLC0415 only for the embedded cloud

    cloud = state.load(layout) if request.agent_port == Request.agent_port else None
    return request.agent_port if cloud is None else cloud.agent_port


def _agents(pki: Path) -> AgentsClient:
    """Speaks to agents as the controller does."""
    pair = tls.pair_in(pki)
    missing = [str(path) for path in (pki / "ca.crt", pair.cert, pair.key) if not path.exists()]
    if missing:
        raise CommandFailed(
            f"{', '.join(missing)}: not there; name the directory of the controller's "
            "certificates with --pki-dir"
        )
    return AgentsClient(ca=pki / "ca.crt", identity=pair, callback_base="", secret=b"")


def wire(report: Report) -> dict[str, Any]:
    """The report as JSON has it."""
    return {
        "clean": report.clean and not report.unasked,
        "orphans": [_row(finding) for finding in report.orphans],
        "missing": [_row(finding) for finding in report.missing],
        "unasked": dict(sorted(report.unasked.items())),
    }


def _row(finding: Finding) -> dict[str, str]:
    item = finding.item
    return {
        "place": item.place, "area": item.area, "item": item.item, "detail": item.detail,
        "why": finding.why,
    }  # fmt: skip


def _print(report: Report) -> None:
    for place, why in sorted(report.unasked.items()):
        err.print(f"{place} could not be asked: {why}", style="yellow", markup=False)
    if report.clean:
        say("Nothing is orphaned" + (" where it could be seen." if report.unasked else "."))
        return
    columns(
        ("WHAT", "PLACE", "AREA", "ITEM", "DETAIL", "WHY"),
        [*_cells("orphan", report.orphans), *_cells("missing", report.missing)],
    )
    say(f"{len(report.orphans)} orphaned, {len(report.missing)} missing")


def _cells(what: str, findings: Iterable[Finding]) -> Iterable[tuple[str, ...]]:
    return ((what, *_row(finding).values()) for finding in findings)
