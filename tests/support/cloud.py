"""A whole cloud of real processes, for end-to-end tests: each can be killed and started alone.

The processes are the ones that ``kumulus up`` starts (API server, simulated hosts, controller),
on free loopback ports, without a supervisor, so that a test decides who dies and when. Every
process is ended by its own pid when the cloud is closed, also after a failure.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any, TypeVar

import yaml

from common.pki import Authority, CertPair, client_context
from controller.apiserver.kubeconfig import write_kubeconfig
from controller.ledger import schema
from controller.sharding.ring import Ring, load
from controller.sharding.ring_object import CONFIG_MAPS, CONTENT, NAME
from controller.up.layout import Layout
from controller.up.plan import rights_manifests
from crds import kinds
from tests.support.ports import free_port, free_ports

REPO = Path(__file__).parents[2]
CRDS = REPO / "crds" / "manifests"
EXAMPLES = REPO / "examples"
HOSTS = ("host-1", "host-2", "host-3")
"""The quickstart's."""
T = TypeVar("T")
Object = dict[str, Any]


def wait_for(what: str, probe: Callable[[], T | None], seconds: float = 60.0) -> T:
    """The probe's first true answer; TimeoutError naming ``what`` and the last error."""
    end = time.monotonic() + seconds
    last = ""
    while time.monotonic() < end:
        try:
            found = probe()
            if found:
                return found
        except (OSError, AssertionError, LookupError) as error:
            last = repr(error)
        time.sleep(0.05)
    raise TimeoutError(f"not within {seconds:g}s: {what} {last}")


def plural_of(kind: str) -> tuple[str, bool]:
    """(plural, namespaced)."""
    info = kinds()[kind].INFO
    return info.plural, info.namespaced


def quickstart() -> list[Object]:
    """The quickstart's manifests, in order."""
    files = sorted((EXAMPLES / "quickstart").glob("*.yaml"))
    return [doc for path in files for doc in yaml.safe_load_all(path.read_text()) if doc]


def vm_manifest(name: str, **spec: Any) -> Object:
    """A VM of the quickstart's kind."""
    base = next(doc for doc in quickstart() if doc["kind"] == "VirtualMachine")
    return {**base, "metadata": {"name": name, "namespace": "default"}, "spec": base["spec"] | spec}


@dataclass
class Cloud:
    """Start what you need, or all with ``up()``. A context manager.

    kubeconfig: of a foreign cluster; then there is no embedded API server.
    """

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    kubeconfig: Path | None = None

    def __post_init__(self) -> None:
        self.layout = Layout(self.root / "data")
        self.layout.make()
        self.api_port, self.agent_port, self.controller_port = free_ports(3)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.authority = Authority.create(self.layout.pki)
        self._admin = self.authority.issue(
            self.layout.pki,
            "test-admin",
            common_name="test-admin",
            organizations=("system:masters", "kumulus:controllers"),
            client=True,
        )
        member = self.authority.issue(
            self.layout.pki,
            "controller-client",
            common_name="kumulus-controller",
            organizations=("kumulus:controllers",),
            client=True,
        )
        server = f"https://127.0.0.1:{self.api_port}"
        write_kubeconfig(self.layout.controller_kubeconfig, server, self.authority.ca, member)

    def __enter__(self) -> Cloud:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Processes.

    def up(self) -> None:
        """Everything, with the definitions applied."""
        if self.kubeconfig is None:
            self.start_api()
            self.grant()
        self.apply_definitions()
        self.start_agents()
        self.start_controller()

    def apply_definitions(self) -> None:
        self.kubectl("apply", "-f", str(CRDS))
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")

    def grant(self) -> None:
        """The controller's namespace and rights, those of ``kumulus up``."""
        self.apply(*rights_manifests())

    def start_api(self, *flags: object) -> None:
        port = ["--port", self.api_port]
        self.start("apiserver", "api-server", "--data-dir", self.layout.root, *port, *flags)
        wait_for("the API server's readiness", lambda: self.get_raw("/readyz")[0] == 200)

    def start_agents(self, *arguments: object) -> None:
        where = ["--pki-dir", self.layout.pki, "--data-dir", self.layout.agent_data]
        self.start("agents", "agent", "simulator", "--port", self.agent_port, *where, *arguments)
        wait_for("the agents' readiness", lambda: self.answers(self.agent_port))

    def start_controller(
        self, *, wait: bool = True, kubeconfig: Path | None = None, **env: str
    ) -> None:
        """``env``: settings by their KUMULUS_ name without the prefix, in lower case."""
        config = kubeconfig or self.kubeconfig or self.layout.controller_kubeconfig
        where = ["--kubeconfig", config, "--data-dir", self.layout.root]
        ports = ["--controller-port", self.controller_port, "--agent-port", self.agent_port]
        settings = {f"KUMULUS_{key.upper()}": value for key, value in env.items()}
        self.start("controller", "run", *where, *ports, env=settings)
        if wait:
            wait_for("the controller's readiness", lambda: self.answers(self.controller_port))

    def kumulus(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, on this cloud."""
        config = str(self.kubeconfig or self.layout.kubeconfig)
        return subprocess.run(
            [sys.executable, "-m", "controller.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=REPO,
            env={**os.environ, **self.env, "KUBECONFIG": config},
        )

    def audit(self) -> tuple[int, Object]:
        """(exit code, report) of ``kumulus audit``."""
        where = ["--data-dir", self.layout.root, "--agent-port", self.agent_port]
        done = self.kumulus("audit", "-o", "json", *where)
        assert done.returncode in (0, 1, 2), done.stderr
        return done.returncode, json.loads(done.stdout)

    def start_replica(self, number: int, **env: str) -> None:
        """A controller beside others, with an identity and a port of its own."""
        config = self.kubeconfig or self.layout.controller_kubeconfig
        where = ["--kubeconfig", config, "--data-dir", self.layout.root / "replicas" / str(number)]
        shared = ["--pki-dir", self.layout.pki, "--database", f"sqlite:///{self.layout.ledger}"]
        ports = ["--controller-port", free_port(), "--agent-port", self.agent_port]
        settings = {f"KUMULUS_{key.upper()}": value for key, value in env.items()}
        self.start(f"replica-{number}", "run", *where, *shared, *ports, env=settings)

    def ring(self) -> Ring | None:
        """The ring as it is; None before there is one."""
        status, body = self.get_raw(CONFIG_MAPS.path("kumulus-system", NAME))
        return load(json.loads(body)["data"][CONTENT]) if status == 200 else None

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self.processes.pop(name)
        process.kill()
        process.wait(10)

    def stop(self, name: str) -> None:
        """SIGTERM, and SIGKILL after ten seconds."""
        process = self.processes.pop(name)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            process.kill()
            process.wait(10)

    def wait_killed(self, name: str, seconds: float = 60.0) -> None:
        """Wait until the process has killed itself."""
        process = self.processes.pop(name)
        try:
            assert process.wait(seconds) == -signal.SIGKILL, self.log(name)[-2000:]
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(10)

    def close(self) -> None:
        for name in list(self.processes)[::-1]:
            self.stop(name)

    def log(self, name: str) -> str:
        return self.layout.log(name).read_text(errors="replace")

    # The API.

    def kubectl(self, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
        """Standard output (and error, if it failed and ``check`` is off)."""
        config = self.kubeconfig or self.layout.kubeconfig
        done = subprocess.run(
            ["kubectl", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "KUBECONFIG": str(config), "HOME": str(self.root)},
        )
        if done.returncode and check:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def apply(self, *manifests: Object) -> None:
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def apply_quickstart(self) -> None:
        self.kubectl("apply", "-f", str(EXAMPLES / "quickstart"))

    def get(self, kind: str, name: str, namespace: str = "default") -> Object | None:
        """None if there is none."""
        status, body = self.get_raw(self._path(kind, namespace, name))
        assert status in (200, 404), body
        return json.loads(body) if status == 200 else None

    def list(self, kind: str) -> list[Object]:
        plural, _ = plural_of(kind)
        status, body = self.get_raw(f"/apis/kumulus.dev/v1alpha1/{plural}")
        assert status == 200, body
        found: list[Object] = json.loads(body)["items"]
        return found

    def get_raw(self, path: str) -> tuple[int, bytes]:
        """(status, body) of a GET as the administrator."""
        host, port, tls = self._server()
        connection = HTTPSConnection(host, port, timeout=10, context=tls)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def send(self, verb: str, kind: str, name: str, body: Object) -> None:
        """A write as the administrator; tried again while the server is too busy to answer."""
        path = self._path(kind, "default", name).rstrip("/")
        data = json.dumps(body)
        wait_for(f"{verb} {path}", lambda: self._sent(verb, path, data), 60)

    def _sent(self, verb: str, path: str, data: str) -> bool:
        host, port, tls = self._server()
        connection = HTTPSConnection(host, port, timeout=20, context=tls)
        try:
            connection.request(verb, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            # Sent once more after an answer that was lost: it is there, or gone, already.
            assert answer.status < 300 or answer.status in (404, 409), text
            return True
        finally:
            connection.close()

    def state(self, kind: str, name: str) -> str:
        """``status.state``, "" while there is none; "gone" without the object."""
        found = self.get(kind, name)
        return "gone" if found is None else str(found.get("status", {}).get("state", ""))

    def wait_state(self, kind: str, name: str, state: str, seconds: float = 60.0) -> Object:
        """The object once it has this state and is Ready for its present spec."""

        def probe() -> Object | None:
            found = self.get(kind, name)
            good = found and found.get("status", {}).get("state") == state and is_ready(found)
            return found if good else None

        try:
            return wait_for(f"{kind}/{name} {state}", probe, seconds)
        except TimeoutError as error:
            status = (self.get(kind, name) or {}).get("status")
            raise TimeoutError(f"{error}: {json.dumps(status, indent=1)}") from None

    def wait_gone(self, kind: str, name: str, seconds: float = 60.0) -> None:
        try:
            wait_for(f"{kind}/{name} gone", lambda: self.get(kind, name) is None, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {json.dumps(self.get(kind, name), indent=1)}") from None

    # Agents and the ledger.

    def agent(
        self, name: str, path: str, *, role: str = "host", body: Any = None, verb: str = "PUT"
    ) -> Any:
        """The JSON that an agent answers to GET (or PUT of ``body``) ``/v1/agents/name/path``."""
        tls = client_context(self.authority.ca, self._admin)
        raw = socket.create_connection(("127.0.0.1", self.agent_port), timeout=10)
        connection = HTTPSConnection("127.0.0.1", self.agent_port, timeout=10)
        connection.sock = tls.wrap_socket(raw, server_hostname=f"{name}.{role}.kumulus.dev")
        try:
            verb = "GET" if body is None else verb
            data = None if body is None else json.dumps(body)
            headers = {"Content-Type": "application/json"}
            connection.request(verb, f"/v1/agents/{name}/{path}", data, headers)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status < 300, f"{answer.status} {text!r}"
            return json.loads(text) if text else None
        finally:
            connection.close()

    def inventory(self, hosts: Iterable[str] = HOSTS) -> dict[str, Any]:
        """What is really on the hosts, taken together."""
        total: dict[str, list[str]] = {}
        for host in hosts:
            for area, found in self.agent(host, "inventory").items():
                total.setdefault(area, []).extend(found)
        return total

    def ledger_rows(self) -> list[tuple[str, str]]:
        """(scope, owner) of every claim, unique and counted."""
        path = self.layout.root / "ledger.sqlite"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        try:
            return [
                (str(scope), str(owner))
                for table in (schema.addresses, schema.names, schema.amounts)
                for scope, owner in connection.execute(f"select scope, owner from {table.name}")
            ]
        finally:
            connection.close()

    def _path(self, kind: str, namespace: str, name: str) -> str:
        plural, namespaced = plural_of(kind)
        scope = f"namespaces/{namespace}/" if namespaced else ""
        return f"/apis/kumulus.dev/v1alpha1/{scope}{plural}/{name}"

    def _server(self) -> tuple[str, int, ssl.SSLContext]:
        if self.kubeconfig is None:
            return "127.0.0.1", self.api_port, client_context(self.authority.ca, self._admin)
        config = yaml.safe_load(self.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        pair = CertPair(Path(user["client-certificate"]), Path(user["client-key"]))
        port = int(cluster["server"].rsplit(":", 1)[1])
        return "127.0.0.1", port, client_context(Path(cluster["certificate-authority"]), pair)

    def answers(self, port: int) -> bool:
        """Is the process that listens on this port ready?"""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        connection = HTTPSConnection("127.0.0.1", port, timeout=5, context=tls)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        finally:
            connection.close()

    def start(self, name: str, *arguments: object, env: Mapping[str, str] | None = None) -> None:
        """Run ``kumulus`` with these arguments as the process ``name``."""
        assert name not in self.processes, f"{name} runs already"
        with self.layout.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "controller.cli", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=REPO,
                env={**os.environ, **self.env, **(env or {})},
                start_new_session=True,
            )


def is_ready(found: Object) -> bool:
    """Ready=True for the present generation."""
    generation = found["metadata"]["generation"]
    return any(
        c["type"] == "Ready" and c["status"] == "True" and c["observedGeneration"] == generation
        for c in found.get("status", {}).get("conditions", [])
    )


def condition(found: Object, kind: str) -> Object:
    """The condition of this type. LookupError if there is none."""
    for each in found.get("status", {}).get("conditions", []):
        if each["type"] == kind:
            return dict(each)
    raise LookupError(f"no condition {kind}")
