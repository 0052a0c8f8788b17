"""kopf's and the kubernetes client's own examples, unmodified, against the embedded server.

They come with the packages' sources, which ``scripts/client-examples`` fetches. Those about pods
cannot run here (02, 10 and 99 of kopf): this server has none. kopf's 17 wants a virtual machine's
or a tunnel's address for its webhook; test_kopf_admission has kopf's webhooks.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.client import Cluster
from tests.conformance.conftest import eventually
from tests.support.apiserver import ROOT, ApiServerProcess
from tests.support.apiserver import api_server as running
from tests.support.kubectl import Kubectl

EXAMPLES = ROOT / ".cache" / "examples"
OBJECTS = "/apis/kopf.dev/v1/namespaces/{}/kopfexamples"
SECONDS = 60
pytestmark = pytest.mark.skipif(
    not (EXAMPLES / "versions").exists(), reason="run scripts/client-examples to have them"
)
SAYS = {
    "01-minimal": ["And here we are! Creating: ", "Handler 'create_fn' succeeded"],
    "03-exceptions": [
        "'instant_failure_with_only_a_message' failed permanently",
        "'eventual_success_with_a_few_messages' succeeded",
        "'eventual_failure_with_tracebacks' failed",
        "'instant_failure_with_traceback' failed",
    ],
    "04-events": ["'create_fn' succeeded"],
    "05-handlers": ["CREATED 1st", "CREATED 2nd"],
    "06-peering": ["'create_fn' succeeded"],
    "07-subhandlers": ["Handling creation for item1", "'create_fn/item2' succeeded"],
    "08-events": ["Event received: ", "Oops!"],
    "09-testing": ["Something was logged here."],
    "11-filtering-handlers": ["Label is matching.", "Filter satisfied.", "Field value is satis"],
    "13-hooks": ["Starting retried...", "Logging in in 2s..."],
    "14-daemons": ["=> Ping from a sync daemon", "=> Ping from an async daemon"],
    "15-timers": ["Ping from a sync timer", "Ping from an async timer"],
    "16-indexing": ["'intervalled' succeeded"],
}
"""What each says once the object is there; nothing of it is said of an object that is absent."""
AT_THE_END = {"05-handlers": ["DELETED 1st", "DELETED 2nd"], "13-hooks": ["Cleaning up..."]}
NEVER = {"11-filtering-handlers": ["Filter not satisfied.", "Annotation callback mismatch."]}
FAILING = {"03-exceptions", "08-events"}
"""They are about exceptions, so their logs have some."""
SLOW = {"11-filtering-handlers"}
"""kopf waits for a minute before it looks again whether the daemon has ended."""


@dataclass
class Operator:
    """One example at work, in a namespace of its own."""

    example: str
    namespace: str
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def log(self) -> str:
        return self.output.read_text()

    def says(self, texts: list[str]) -> bool:
        assert self.process.poll() is None, self.log
        return all(text in self.log for text in texts)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(SECONDS)


@dataclass
class Stage:
    """The server, and the examples on it."""

    server: ApiServerProcess
    cluster: Cluster
    kubectl: Kubectl
    operators: dict[str, Operator]


def _environment(server: ApiServerProcess) -> dict[str, str]:
    own = {
        "KUBECONFIG": str(server.kubeconfig),
        "PYTHONPATH": str(EXAMPLES / "imports"),
        "PYTHONUNBUFFERED": "1",
    }
    return {**os.environ, **own}


def _start(
    stack: ExitStack, server: ApiServerProcess, arguments: list[str], output: Path
) -> subprocess.Popen[bytes]:
    log = stack.enter_context(output.open("wb"))
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=EXAMPLES / "kopf", env=_environment(server),
        stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """All examples start at once, each in its namespace, with their definition and object."""
    directory = tmp_path_factory.mktemp("examples")
    with ExitStack() as stack:
        server = stack.enter_context(running())
        kubectl = Kubectl(server.kubeconfig, directory)
        kubectl("apply", "-f", str(EXAMPLES / "kopf" / "crd.yaml"))
        operators = {}
        for example in SAYS:
            namespace = example.lower()
            kubectl("create", "namespace", namespace)
            output = directory / f"{example}.log"
            process = _start(
                stack, server,
                ["-m", "kopf", "run", "-n", namespace, "--standalone", "--verbose",
                 str(EXAMPLES / "kopf" / example / "example.py")],
                output,
            )  # fmt: skip
            operators[example] = Operator(example, namespace, process, output)
            kubectl("apply", "-n", namespace, "-f", str(EXAMPLES / "kopf" / "obj.yaml"))
        yield Stage(server, Cluster(server.kubeconfig), kubectl, operators)


@pytest.mark.parametrize("example", sorted(SAYS))
def test_an_example_of_kopf_runs(stage: Stage, example: str) -> None:
    operator = stage.operators[example]
    eventually(lambda: operator.says(SAYS[example]), SECONDS)
    path = OBJECTS.format(operator.namespace)
    _left_in_the_cluster(stage, operator)
    stage.kubectl(
        "delete", "-n", operator.namespace, "--wait=false",
        "-f", str(EXAMPLES / "kopf" / "obj.yaml"),
    )  # fmt: skip
    if example in SLOW:
        eventually(lambda: operator.says(["has exited on request"]), SECONDS)
    else:
        eventually(lambda: not stage.cluster.get(path).ok()["items"], SECONDS)
    assert operator.stop() == 0, operator.log
    for text in AT_THE_END.get(example, []):
        assert text in operator.log
    for text in NEVER.get(example, []):
        assert text not in operator.log
    if example not in FAILING:
        assert "Traceback (most recent call last)" not in operator.log


def _left_in_the_cluster(stage: Stage, operator: Operator) -> None:
    """What the examples with effects beyond their own logs have made."""
    path = f"{OBJECTS.format(operator.namespace)}/kopf-example-1"
    if operator.example == "01-minimal":
        status = stage.cluster.get(path).ok()["status"]
        assert status["create_fn"] == {"message": "hello world"}
    if operator.example == "16-indexing":
        eventually(lambda: "running-pods" in stage.cluster.get(path).ok().get("status", {}))
    if operator.example == "04-events":
        events = f"/api/v1/namespaces/{operator.namespace}/events"
        wanted = {"Some message", "Some exception: Exception text."}
        eventually(
            lambda: wanted <= {e["message"] for e in stage.cluster.get(events).ok()["items"]}
        )


def test_an_operator_inside_another_program_runs(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(running())
        Kubectl(server.kubeconfig, tmp_path)("apply", "-f", str(EXAMPLES / "kopf" / "crd.yaml"))
        example = str(EXAMPLES / "kopf" / "12-embedded" / "example.py")
        process = _start(stack, server, [example], tmp_path / "log")
        assert process.wait(SECONDS) == 0, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    for step in range(3):
        assert f"Hello, kopf-example-{step}!" in said
        assert f"Good bye, kopf-example-{step}!" in said
    assert "Traceback (most recent call last)" not in said


# The kubernetes client

ELECTION = """
import runpy
from kubernetes import config

load = config.load_kube_config
config.load_kube_config = lambda config_file=None: load(config_file or None)
runpy.run_module("kubernetes.leaderelection.example", run_name="__main__")
"""
"""The example leaves the name of the kubeconfig to its reader."""


def test_the_clients_leader_election_elects_one(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(running())
        first = _start(stack, server, ["-c", ELECTION], tmp_path / "first")
        eventually(lambda: "I am leader" in (tmp_path / "first").read_text(), SECONDS)
        _start(stack, server, ["-c", ELECTION], tmp_path / "second")
        lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/examplepython"
        cluster = Cluster(server.kubeconfig)
        held = cluster.get(lease).ok()["spec"]
        eventually(lambda: cluster.get(lease).ok()["spec"]["renewTime"] != held["renewTime"])
        assert cluster.get(lease).ok()["spec"]["holderIdentity"] == held["holderIdentity"]
        assert "I am leader" not in (tmp_path / "second").read_text()
        _end(first)
        eventually(lambda: "I am leader" in (tmp_path / "second").read_text(), SECONDS)
        assert cluster.get(lease).ok()["spec"]["holderIdentity"] != held["holderIdentity"]


def test_the_clients_watch_of_namespaces_ends_after_ten(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (EXAMPLES / "kubernetes.md").read_text(), re.DOTALL)
    [code] = [block for block in blocks if "w.stream(v1.list_namespace" in block]
    with ExitStack() as stack:
        server = stack.enter_context(running())
        process = _start(stack, server, ["-c", code], tmp_path / "log")
        cluster = Cluster(server.kubeconfig)
        for number in range(10):
            cluster.post("/api/v1/namespaces", {"metadata": {"name": f"n-{number}"}}).ok()
        assert process.wait(SECONDS) == 0, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    assert "Event: ADDED default" in said
    assert said.count("Event: ") == 10
    assert said.rstrip().endswith("Ended.")
