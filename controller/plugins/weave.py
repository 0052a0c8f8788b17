"""Inserts plugins' steps into flows, next to the steps that they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from controller.plugins.interface import Insertion
from controller.workflow.flow import Flow, FlowError, PlannedStep
from controller.workflow.step import Step


def weave(
    flows: Mapping[str, Flow], insertion: Insertion, make: Callable[[Insertion], Step]
) -> dict[str, Flow]:
    """The flows with one step more where it belongs. Raises FlowError if it belongs nowhere, or
    where its name is taken."""
    step = make(insertion)
    chosen = [flow for flow in flows.values() if _wanted(flow, insertion)]
    if not chosen:
        where = f"flow {insertion.flow}" if insertion.flow else "any flow"
        raise FlowError(
            f"step {step.name!r} is to stand next to {insertion.anchor!r} in {where} for "
            f"{insertion.kind}, and there is no such step; `kumulus flows` lists them"
        )
    return {**flows, **{flow.name: _inserted(flow, insertion, step) for flow in chosen}}


def _wanted(flow: Flow, insertion: Insertion) -> bool:
    right = flow.kind == insertion.kind and insertion.flow in ("", flow.name)
    return right and insertion.anchor in flow.positions


def _inserted(flow: Flow, insertion: Insertion, step: Step) -> Flow:
    """It is in its neighbour's place in all that a flow says of places."""
    if step.name in flow.positions:
        raise FlowError(f"flow {flow.name!r} has a step {step.name!r} already; rename yours")
    place = flow.positions[insertion.anchor]
    at = place + (1 if insertion.after else 0)
    planned = replace(
        flow.steps[place], step=step, timeout=insertion.timeout, retries=insertion.retries
    )
    steps = (*flow.steps[:at], planned, *flow.steps[at:])
    return replace(flow, steps=tuple(_covered(each, insertion, step.name) for each in steps))


def _covered(planned: PlannedStep, insertion: Insertion, name: str) -> PlannedStep:
    """What is skipped with the neighbour is skipped with the new step, and asked before it."""
    guards = tuple(
        replace(guard, covers=_with(guard.covers, insertion, name))
        if insertion.anchor in guard.covers
        else guard
        for guard in planned.guards
    )
    return replace(planned, guards=guards)


def _with(covers: tuple[str, ...], insertion: Insertion, name: str) -> tuple[str, ...]:
    at = covers.index(insertion.anchor) + (1 if insertion.after else 0)
    return (*covers[:at], name, *covers[at:])
