"""What to tell a person whose cloud runs: its machines, how to reach it, what to try next."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from controller.cli.output import say
from controller.up import apply
from controller.up.kube import Kube
from controller.up.layout import Layout
from crds import kinds

SHOWN = 5
"""Machines that are listed one by one."""


def summarize(layout: Layout, kube: Kube) -> None:
    """Print it. Raises ApiError."""
    machines = kube.list(kinds()["VirtualMachine"])
    say()
    for wire in machines[:SHOWN]:
        say(f"  {machine(wire)}")
    if len(machines) > SHOWN:
        say(f"  … and {len(machines) - SHOWN} more virtual machines")
    say()
    say(f"  export KUBECONFIG={layout.kubeconfig}")
    say()
    say("Try next:")
    tool = apply.kubectl()
    steps = next_steps(
        machines,
        kumulus=callable_as(Path(sys.executable).with_name("kumulus")),
        kubectl=callable_as(Path(tool)) if tool else None,
    )
    for command, purpose in steps:
        say(f"  {command:<36} {purpose}")


def machine(wire: Mapping[str, Any]) -> str:
    """``VM default/web-1: Running on host-2, IP 10.77.0.10``."""
    status, metadata = wire.get("status") or {}, wire["metadata"]
    host = (status.get("hostRef") or {}).get("name")
    place = f" on {host}" if host else ""
    address = f", IP {status['ip']}" if status.get("ip") else ""
    state = status.get("state") or "new"
    return f"VM {metadata['namespace']}/{metadata['name']}: {state}{place}{address}"


def next_steps(
    machines: Sequence[Mapping[str, Any]], *, kumulus: str, kubectl: str | None
) -> list[tuple[str, str]]:
    """(command, what it is for). ``kubectl``: how to call it; None: it is not installed."""
    tool, absent = kubectl or "kubectl", "" if kubectl else " (kubectl is not installed)"
    steps = [(f"{tool} get vm -w", "watch the virtual machines")]
    if machines:
        first = machines[0]["metadata"]
        place = "" if first["namespace"] == "default" else f" -n {first['namespace']}"
        steps.append(
            (f"{tool} describe vm {first['name']}{place}", "one machine, and what happened to it")
        )
    steps.append((f"{tool} delete zone zone-1", "delete all of it, children first"))
    return [
        *((command, purpose + absent) for command, purpose in steps),
        (f"{kumulus} tree", "what contains what"),
        (f"{kumulus} status --watch", "everything, live"),
        (f"{kumulus} down", "stop it; the data stay"),
    ]


def callable_as(program: Path) -> str:
    """How a person calls this program from here: by its name where that finds it, else by path.

    Make's own PATH is not the PATH of the shell that make was called from.
    """
    if "MAKELEVEL" not in os.environ and shutil.which(program.name) == str(program):
        return program.name
    try:
        return str(program.relative_to(Path.cwd()))
    except ValueError:
        return program.name if shutil.which(program.name) == str(program) else str(program)
