"""``kumulus up`` and ``kumulus down``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.live import Live

from common.pki import client_context
from controller.cli.hints import summarize
from controller.cli.logs import last_words
from controller.cli.output import CommandFailed, out, say, shown
from controller.cli.status import rows, table
from controller.up import apply, plan, state
from controller.up.kube import ApiError, Kube
from controller.up.layout import Layout
from controller.up.options import LOOPBACK, Options
from controller.up.process import SUPERVISED
from controller.up.progress import Key, Lines, Reporter, explain, wait_ready
from controller.up.view import Row

START_SECONDS = 30.0
SETTLE_SECONDS = 8.0
"""How long a restarted cloud is watched for objects that are not ready: they may be a user's
own affair, and the cloud is up all the same."""
STOP_SECONDS = 45.0
POLL_SECONDS = 0.05
MANY_DEATHS = 3


@dataclass(frozen=True)
class UpRequest:
    """``quickstart`` None: only the first time. ``timeout``: seconds until all is ready."""

    options: Options
    quickstart: bool | None
    foreground: bool
    timeout: float


def bring_up(request: UpRequest) -> None:
    """Start the cloud, wait until it is ready, say what to do next. Raises KumulusError."""
    layout = request.options.layout
    found = state.running(layout)
    if found is not None:
        say(f"Kumulus runs already (pid {found.pid}).")
        summarize(layout, Kube(layout.kubeconfig))
        return
    for process in state.leftovers(layout):
        process.stop(STOP_SECONDS)
    taken = plan.taken_port(request.options)
    if taken is not None:
        raise CommandFailed(taken)
    plan.prepare(request.options)
    supervisor = _start_supervisor(request)
    try:
        _fill(request, supervisor)
        if request.foreground:
            say("Ctrl-C stops it.")
            supervisor.wait()
    finally:
        if request.foreground:
            take_down(layout.root)


def take_down(data_dir: Path) -> None:
    """Stop the cloud of a data directory and wait until it is gone. Raises CommandFailed."""
    layout = Layout(data_dir)
    found = state.running(layout)
    processes = [found.process] if found is not None else state.leftovers(layout)
    if not processes:
        say(f"No cloud runs on {shown(layout.root)}.")
        return
    for process in processes:
        process.stop(STOP_SECONDS)
        if process.alive:
            raise CommandFailed(f"pid {process.pid} does not end, not even killed")
    say(f"Stopped. The data stay in {shown(layout.root)}; `kumulus up` starts it again.")


def _start_supervisor(request: UpRequest) -> subprocess.Popen[bytes]:
    """Detached, unless in the foreground: then it ends when this process does."""
    layout = request.options.layout
    environment = dict(os.environ)
    environment.pop(SUPERVISED, None)
    if request.foreground:
        environment[SUPERVISED] = str(os.getpid())
    # Both are written afresh; nobody shall read what an earlier cloud left.
    layout.state.unlink(missing_ok=True)
    layout.kubeconfig.unlink(missing_ok=True)
    with layout.log("supervisor").open("ab") as output:
        return subprocess.Popen(  # noqa: S603 our own command, no shell
            [sys.executable, "-m", "controller.cli", "supervise", *request.options.flags()],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
            start_new_session=True, cwd=Path.cwd(),
        )  # fmt: skip


def _fill(request: UpRequest, supervisor: subprocess.Popen[bytes]) -> None:
    """Bring in the definitions and the quickstart, and wait until all is ready."""
    layout = request.options.layout
    started = time.monotonic()
    kube = _wait_for_api(layout, supervisor)
    say(f"API server answers at {kube.server} ({time.monotonic() - started:.1f} s).")
    apply.apply_all(kube, plan.rights_manifests())
    definitions = [*apply.read_manifests(plan.manifests_folder()), *plan.plugin_definitions()]
    apply.apply_all(kube, definitions)
    apply.wait_established(kube, [each["metadata"]["name"] for each in definitions])
    wanted, seconds = _apply_quickstart(request, kube)
    _wait_for_controller(request.options, supervisor)
    missing = _wait(kube, wanted, seconds)
    took = time.monotonic() - started
    if missing and wanted:
        raise CommandFailed(
            f"not everything is ready after {took:.0f} s:\n{explain(missing)}\n"
            "The cloud goes on trying; see `kumulus status` and `kumulus logs`."
        )
    say(f"Up in {took:.1f} s." if not missing else f"Up; not ready yet:\n{explain(missing)}")
    summarize(layout, kube)


def _apply_quickstart(request: UpRequest, kube: Kube) -> tuple[set[Key], float]:
    """Apply it if it is due. What to wait for (nothing: whatever is there), and how long."""
    layout = request.options.layout
    first = not layout.quickstart_done.exists()
    if request.quickstart is False or (request.quickstart is None and not first):
        return set(), SETTLE_SECONDS
    how = apply.apply(kube, layout.kubeconfig, layout.quickstart, tool=apply.kubectl())
    layout.quickstart_done.touch()
    say(f"Applied {shown(layout.quickstart)} with {how}.")
    manifests = apply.read_manifests(layout.quickstart)
    return {_key(each) for each in manifests}, request.timeout


def _key(manifest: apply.Manifest) -> Key:
    metadata = manifest["metadata"]
    return (manifest["kind"], metadata.get("namespace", ""), metadata["name"])


def _wait_for_api(layout: Layout, supervisor: subprocess.Popen[bytes]) -> Kube:
    for _ in _until(START_SECONDS, layout, supervisor, "apiserver"):
        if not layout.kubeconfig.exists():
            continue
        kube = Kube(layout.kubeconfig)
        try:
            kube.get("/readyz")
        except ApiError:
            continue
        return kube
    raise CommandFailed(
        f"the API server does not answer after {START_SECONDS:g} s; see `kumulus logs apiserver`"
    )


def _wait_for_controller(options: Options, supervisor: subprocess.Popen[bytes]) -> None:
    layout = options.layout
    tls = client_context(layout.pki / "ca.crt", None)
    for name, port in options.controllers.items():
        url = f"https://{LOOPBACK}:{port}/readyz"
        for _ in _until(START_SECONDS, layout, supervisor, name):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url, timeout=plan.PROBE_SECONDS, context=tls).close()
                break
        else:
            raise CommandFailed(
                f"the {name} is not ready after {START_SECONDS:g} s; see `kumulus logs {name}`"
            )


def _until(
    seconds: float, layout: Layout, supervisor: subprocess.Popen[bytes], component: str
) -> Iterator[None]:
    """Tick until the time is over; raises CommandFailed when a child keeps dying."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if supervisor.poll() is not None:
            words = last_words(layout.log("supervisor"))
            raise CommandFailed(f"the supervisor ended: {words}")
        found = state.load(layout)
        child = found.children.get(component) if found is not None else None
        if child is not None and child.restarts >= MANY_DEATHS:
            supervisor.terminate()
            supervisor.wait(STOP_SECONDS)
            words = last_words(layout.log(component))
            raise CommandFailed(f"the {component} keeps dying ({child.exit}): {words}")
        yield
        time.sleep(POLL_SECONDS)


def _wait(kube: Kube, wanted: Collection[Key], seconds: float) -> list[Row]:
    """Wait for ``wanted``, or for everything there is if that is empty."""

    def look() -> list[Row]:
        try:
            return rows(kube)
        except ApiError as error:
            if error.code:
                raise
            return []  # the API server is being restarted

    targets = wanted or {each.key for each in look() if not each.deleting}
    with _reporter() as reporter:
        return wait_ready(look, targets, seconds, reporter)


@contextlib.contextmanager
def _reporter() -> Iterator[Reporter]:
    """A live table on a terminal, lines elsewhere."""
    if not out.is_terminal:
        yield Lines(say)
        return
    with Live(console=out, auto_refresh=False) as live:
        yield _LiveTable(live)


@dataclass(frozen=True)
class _LiveTable:
    live: Live

    def show(self, rows: Sequence[Row]) -> None:
        self.live.update(table(rows), refresh=True)
