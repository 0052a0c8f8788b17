"""``kumulus flows``: the declared workflows, listed or drawn, and which objects are in one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text
from rich.tree import Tree

from controller.cli.output import CommandFailed, columns, out, say
from controller.cli.plugins import checked
from controller.up.kube import Kube, find_kubeconfig, listing
from controller.workflow.flow import DEFAULT_RETRIES, Flow, FlowError, PlannedStep, Stage
from crds import kinds


def show_flows(name: str | None, *, as_json: bool) -> None:
    """All flows in a table, or one drawn. Raises CommandFailed."""
    flows = _flows()
    if name is not None and name not in flows:
        raise CommandFailed(f"no flow {name!r}; there are: {', '.join(sorted(flows))}")
    chosen = [flows[name]] if name is not None else list(flows.values())
    if as_json:
        found = [wire(flow) for flow in chosen]
        out.print_json(json.dumps(found if name is None else found[0]))
    elif name is None:
        _list(chosen, _parts(flows.values()))
    else:
        out.print(draw(flows[name]))


def show_running(kubeconfig: Path | None, data_dir: Path, namespace: str | None) -> None:
    """The objects that are in the middle of a flow, and where."""
    kube = Kube(find_kubeconfig(kubeconfig, data_dir))
    rows = [
        _running(each)
        for each in listing(kube, kinds().values())
        if each.get("status", {}).get("workflow")
        and namespace in (None, each["metadata"].get("namespace"))
    ]
    if not rows:
        say("No flow is running.")
        return
    columns(("OBJECT", "FLOW", "PHASE", "WHERE", "RETRIES", "WHY"), sorted(rows))


def _running(wire: dict[str, Any]) -> tuple[str, ...]:
    meta, workflow = wire["metadata"], wire["status"]["workflow"]
    name = "/".join(filter(None, (wire["kind"], meta.get("namespace"), meta["name"])))
    ready = [c for c in wire["status"].get("conditions", ()) if c["type"] == "Ready"]
    why = workflow.get("failure", {}).get("message") or (ready[0]["message"] if ready else "")
    return (
        name, workflow["name"], workflow.get("phase", "Running"), workflow.get("progress", ""),
        str(workflow.get("retries", 0)), why,
    )  # fmt: skip


def _flows() -> dict[str, Flow]:
    try:
        return checked()[1]
    except FlowError as error:
        raise CommandFailed(str(error)) from None


def _parts(flows: Iterable[Flow]) -> set[str]:
    """Names of flows that others contain."""
    return {name for flow in flows for step in flow.steps for name in step.path}


def _list(flows: Iterable[Flow], parts: set[str]) -> None:
    rows = [
        (
            flow.name, flow.kind, str(len(flow.steps)), "yes" if flow.name in parts else "-",
            flow.description,
        )
        for flow in sorted(flows, key=lambda f: (f.kind, f.name))
    ]  # fmt: skip
    columns(("FLOW", "KIND", "STEPS", "PART", "DESCRIPTION"), rows)


def draw(flow: Flow) -> Tree:
    """A flow as a tree: sub-flows and parallel groups are branches."""
    label = Text(flow.name, style="bold")
    label.append(f"  {flow.kind}  {flow.description}", style="dim")
    if flow.cancel_on:
        label.append(f"\ncancelled when {', '.join(flow.cancel_on)} changes", style="yellow")
    tree = Tree(label)
    stack: list[tuple[str, Tree]] = []
    for stage in flow.stages:
        if stage.parallel:
            _draw_parallel(stage, _below(stage.steps[0].path[: _common(stage)], stack, tree))
        else:
            step = stage.steps[0]
            _below(step.path, stack, tree).add(_label(stage.first, step))
    return tree


def _below(path: Sequence[str], stack: list[tuple[str, Tree]], tree: Tree) -> Tree:
    """The branch of the sub-flow that ``path`` leads to; ``stack``: the branches that are open."""
    while [name for name, _ in stack] != list(path[: len(stack)]):
        stack.pop()
    for name in path[len(stack) :]:
        parent = stack[-1][1] if stack else tree
        stack.append((name, parent.add(Text(f"flow {name}", style="cyan"))))
    return stack[-1][1] if stack else tree


def _common(stage: Stage) -> int:
    """How many sub-flows all steps of a parallel group come from."""
    paths = [step.path for step in stage.steps]
    shortest = min(map(len, paths))
    return next((i for i in range(shortest) if len({p[i] for p in paths}) > 1), shortest)


def _draw_parallel(stage: Stage, tree: Tree) -> None:
    group = tree.add(Text("at the same time", style="magenta"))
    index, common = stage.first, _common(stage)
    for branch in stage.branches:
        stack: list[tuple[str, Tree]] = []
        for step in branch:
            _below(step.path[common:], stack, group).add(_label(index, step))
            index += 1


def _label(index: int, step: PlannedStep) -> Text:
    label = Text(f"{index + 1}. {step.name}")
    for note in _notes(step):
        label.append(f"  {note}", style="dim")
    for guard in step.guards:
        label.append(f"  when {guard.condition.source}", style="yellow")
    if not step.step.reversible:
        label.append(f"  no rollback: {step.step.no_rollback}", style="dim italic")
    return label


def _notes(step: PlannedStep) -> Iterable[str]:
    if step.timeout is not None:
        yield f"timeout {step.timeout:g}s"
    if step.retries is None:
        yield "retried until it succeeds"
    elif step.retries != DEFAULT_RETRIES:
        yield f"{step.retries} retries"
    if step.backoff is not None:
        yield f"back-off {step.backoff.first:g}s to {step.backoff.longest:g}s"


def wire(flow: Flow) -> dict[str, Any]:
    """A flow as JSON has it."""
    return {
        "name": flow.name, "kind": flow.kind, "description": flow.description,
        "file": Path(flow.file).name, "cancelOn": list(flow.cancel_on), "record": flow.record,
        "stages": [
            [[_wire(step) for step in branch] for branch in stage.branches]
            for stage in flow.stages
        ],
    }  # fmt: skip


def _wire(step: PlannedStep) -> dict[str, Any]:
    backoff = None if step.backoff is None else vars(step.backoff)
    return {
        "step": step.name, "flows": list(step.path), "timeout": step.timeout,
        "retries": step.retries, "backoff": backoff,
        "when": [guard.condition.source for guard in step.guards],
        "rollback": step.step.reversible, "noRollback": step.step.no_rollback,
        "does": (type(step.step).__doc__ or "").strip().partition("\n")[0],
    }  # fmt: skip
