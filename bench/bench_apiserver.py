"""What the embedded API server does in a second, measured over TLS from this machine.

    python bench/bench_apiserver.py [--objects 2000] [--connections 32]

Starts a server of its own (synchronous=FULL) and prints a table. The client runs beside it, so
both share the processors.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.conformance.client import Cluster
from tests.conformance.conftest import DEFINITIONS, definition
from tests.support.apiserver import ApiServerProcess

PATH = "/apis/conformance.kumulus.dev/v1/namespaces/default/widgets"
MERGE = {"Content-Type": "application/merge-patch+json"}
Step = Callable[[int], Awaitable[None]]


def _object(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "conformance.kumulus.dev/v1",
        "kind": "Widget",
        "metadata": {"name": f"w{number:06}", "labels": {"part": str(number % 10)}},
        "spec": {"size": 1, "free": {f"key{n}": "x" * 100 for n in range(11)}},
    }


class Bench:
    def __init__(self, session: aiohttp.ClientSession, url: str, pid: int, connections: int):
        self._session = session
        self._url = url
        self._pid = pid
        self._connections = connections

    async def run(self, name: str, count: int, step: Step) -> None:
        before, started = self._cpu(), time.perf_counter()
        numbers = iter(range(count))

        async def worker() -> None:
            for number in numbers:
                await step(number)

        await asyncio.gather(*(worker() for _ in range(self._connections)))
        seconds = time.perf_counter() - started
        cpu = (self._cpu() - before) * 1000 / count
        print(f"{name:<14}{count / seconds:>9.0f}/s {cpu:>8.2f} CPU-ms a request")

    async def ask(self, method: str, path: str, **more: Any) -> bytes:
        async with self._session.request(method, self._url + path, **more) as reply:
            body = await reply.read()
            assert reply.status in (200, 201), body[:300]
            return body

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        """MiB."""
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _measure(server: ApiServerProcess, objects: int, connections: int) -> None:
    context = ssl.create_default_context(cafile=str(server.pki / "ca.crt"))
    context.load_cert_chain(server.pki / "admin.crt", server.pki / "admin.key")
    connector = aiohttp.TCPConnector(ssl=context, limit=connections)
    async with aiohttp.ClientSession(connector=connector) as session:
        bench = Bench(session, server.url, server.pid, connections)
        at = lambda n: f"{PATH}/w{n:06}"  # noqa: E731
        await bench.run("create", objects, lambda n: bench.ask("POST", PATH, json=_object(n)))
        await bench.run("get", objects, lambda n: bench.ask("GET", at(n)))
        await bench.run(
            "status patch", objects,
            lambda n: bench.ask(
                "PATCH", at(n) + "/status", json={"status": {"ready": True}}, headers=MERGE
            ),
        )  # fmt: skip
        started = time.perf_counter()
        size = len(await bench.ask("GET", PATH))
        print(f"list of {objects}: {time.perf_counter() - started:.3f} s, {size / 2**20:.1f} MiB")
        print(f"resident: {bench.resident():.0f} MiB with {objects} objects")
        await bench.run("delete", objects, lambda n: bench.ask("DELETE", at(n)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        server = ApiServerProcess(Path(directory), "FULL").start()
        try:
            Cluster(server.kubeconfig).post(
                DEFINITIONS, definition("widgets", "conformance.kumulus.dev")
            ).ok()
            uvloop.run(_measure(server, options.objects, options.connections))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
