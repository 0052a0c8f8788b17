"""What to tell a person whose cloud runs: its machines, how to reach it, what to try next."""

from __future__ import annotations

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
    for command, purpose in next_steps(machines, kubectl=apply.kubectl() is not None):
        say(f"  {command:<36} {purpose}")


def machine(wire: Mapping[str, Any]) -> str:
    """``VM default/web-1: Running on host-2, IP 10.77.0.10``."""
    status, metadata = wire.get("status") or {}, wire["metadata"]
    host = (status.get("hostRef") or {}).get("name")
    place = f" on {host}" if host else ""
    address = f", IP {status['ip']}" if status.get("ip") else ""
    state = status.get("state") or "new"
    return f"VM {metadata['namespace']}/{metadata['name']}: {state}{place}{address}"


def next_steps(machines: Sequence[Mapping[str, Any]], *, kubectl: bool) -> list[tuple[str, str]]:
    """(command, what it is for)."""
    kumulus = program()
    first = machines[0]["metadata"] if machines else None
    steps = [("kubectl get vm -w", "watch the virtual machines")]
    if first is not None:
        steps.append((
            f"kubectl describe vm {first['name']} -n {first['namespace']}",
            "one machine, and what happened to it",
        ))  # fmt: skip
    steps.append(("kubectl delete zone zone-1", "delete all of it, children first"))
    if not kubectl:
        steps = [(command, f"{purpose} (kubectl is not installed)") for command, purpose in steps]
    return [
        *steps,
        (f"{kumulus} tree", "what contains what"),
        (f"{kumulus} status --watch", "everything, live"),
        (f"{kumulus} down", "stop it; the data stay"),
    ]


def program() -> str:
    """How to call this program: its name, or its path where that is not on the PATH."""
    script = Path(sys.executable).with_name("kumulus")
    if shutil.which("kumulus") == str(script) or not script.exists():
        return "kumulus"
    try:
        return str(script.relative_to(Path.cwd()))
    except ValueError:
        return str(script)
