"""What an embedded cloud consists of: its certificates, its manifests, its processes."""

from __future__ import annotations

import asyncio
import copy
import ssl
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from agents.wire import CONTROLLERS
from common.pki import Authority, CertPair, client_context
from controller.apiserver.kubeconfig import write_kubeconfig
from controller.errors import KumulusError
from controller.up.layout import Layout
from controller.up.options import Options
from controller.up.process import listener
from controller.up.supervisor import Child, Gate
from crds import discovered
from crds.schema import definition

ADMINS = "system:masters"
PROBE_SECONDS = 2.0

Manifest = dict[str, Any]


def taken_port(options: Options) -> str | None:
    """Why the cloud cannot start, if another process listens on one of its ports."""
    ports = [("--api-port", options.api_port), ("--agent-port", options.agent_port)]
    ports += [("--controller-port", port) for port in options.controllers.values()]
    for flag, port in ports:
        holder = listener(port)
        if holder is not None:
            return f"port {port} is taken by {holder}; stop it, or choose another port with {flag}"
    return None


def prepare(options: Options) -> None:
    """Make directories, certificates and the quickstart's manifests. Idempotent."""
    layout = options.layout
    layout.make()
    authority = Authority.create(layout.pki)
    member = authority.issue(
        layout.pki, "controller-client", common_name="kumulus-controller",
        organizations=(CONTROLLERS,), client=True,
    )  # fmt: skip
    write_kubeconfig(layout.controller_kubeconfig, options.server, authority.ca, member)
    write_quickstart(layout.quickstart, quickstart(options.hosts))


def admin_pair(layout: Layout) -> CertPair:
    """The admin's certificate, the same that the API server puts into the kubeconfig."""
    return Authority.create(layout.pki).issue(
        layout.pki, "admin", common_name="admin", organizations=(ADMINS,), client=True
    )


def children(options: Options) -> list[Child]:
    """The processes, in the order of starting."""
    layout = options.layout
    tls = client_context(layout.pki / "ca.crt", None)
    return [
        Child("apiserver", _kumulus(
            "api-server", "--data-dir", layout.root, "--port", options.api_port,
            "--log-level", options.log_level, *options.api.flags(),
        )),
        Child("agents", _kumulus(
            "agent", "simulator", "--ca-dir", layout.pki, "--data-dir", layout.agent_data,
            "--port", options.agent_port, "--port-flag", "--agent-port",
            "--log-level", options.log_level,
        )),
        *_controllers(options, answers(f"{options.server}/readyz", tls, layout.kubeconfig)),
    ]  # fmt: skip


def _controllers(options: Options, gate: Gate) -> list[Child]:
    """Equal ones, each with its own identity and port; certificates and ledger are shared."""
    layout = options.layout
    return [
        Child(name, _kumulus(
            "run", "--kubeconfig", layout.controller_kubeconfig,
            "--data-dir", layout.controller(number), "--pki-dir", layout.pki,
            "--database", f"sqlite:///{layout.ledger.absolute()}",
            "--controller-port", port, "--agent-port", options.agent_port,
            "--log-level", options.log_level,
        ), gate=gate)
        for number, (name, port) in enumerate(options.controllers.items(), 1)
    ]  # fmt: skip


def answers(url: str, tls: ssl.SSLContext, kubeconfig: Path) -> Gate:
    """A gate that opens once the kubeconfig is there and the URL answers 200."""

    async def gate() -> bool:
        if not await asyncio.to_thread(kubeconfig.exists):
            return False
        timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(url, ssl=tls) as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    return gate


def quickstart(hosts: int | None) -> list[Manifest]:
    """The quickstart's manifests, in order, with as many hosts as asked for."""
    folder = quickstart_folder()
    manifests = [
        document
        for path in sorted(folder.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document
    ]
    return manifests if hosts is None else with_hosts(manifests, hosts)


def with_hosts(manifests: Sequence[Manifest], count: int) -> list[Manifest]:
    """The manifests with ``count`` hosts, which are all made like the first one."""
    pattern = next(each for each in manifests if each["kind"] == "Host")
    result: list[Manifest] = []
    for each in manifests:
        if each["kind"] != "Host":
            result.append(each)
        elif each is pattern:
            result += [_host(pattern, number) for number in range(1, count + 1)]
    return result


def write_quickstart(folder: Path, manifests: Sequence[Manifest]) -> None:
    """Replace the folder's manifests by these, one file in their order."""
    folder.mkdir(exist_ok=True)
    (folder / "quickstart.yaml").write_text(yaml.safe_dump_all(manifests, sort_keys=False))


def quickstart_folder() -> Path:
    """examples/quickstart, of the source tree or as installed. Raises KumulusError."""
    source = Path(__file__).parents[2] / "examples" / "quickstart"
    installed = Path(sysconfig.get_path("data")) / "share" / "kumulus" / "quickstart"
    for folder in (source, installed):
        if folder.is_dir():
            return folder
    raise KumulusError(f"the quickstart's manifests are neither in {source} nor in {installed}")


def rights_manifests() -> list[Manifest]:
    """The controller's namespace, and roles and bindings that let it do there what it does."""
    from controller.registry import installed  # noqa: PLC0415 it imports everything
    from controller.rights import declared, group, manifests  # noqa: PLC0415
    from controller.settings import Settings  # noqa: PLC0415

    home = Settings.from_env().namespace
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": home}},
        *manifests(
            declared(installed()), name=CONTROLLERS, namespace=home, subject=group(CONTROLLERS)
        ),
    ]


def manifests_folder() -> Path:
    """The custom resource definitions."""
    return Path(__file__).parents[2] / "crds" / "manifests"


def plugin_definitions() -> list[Manifest]:
    """The custom resource definitions of the kinds that installed plugins bring."""
    found = discovered()
    brought = [kind for kinds in found.brought.values() for kind in kinds]
    return [definition(found.kinds[kind]) for kind in brought]


def _host(pattern: Manifest, number: int) -> Manifest:
    made = copy.deepcopy(pattern)
    stem = pattern["metadata"]["name"].rstrip("0123456789")
    made["metadata"]["name"] = f"{stem}{number}"
    return made


def _kumulus(*arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-m", "controller.cli", *(str(argument) for argument in arguments))
