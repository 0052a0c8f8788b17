"""What is asked of a server, and what it took."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from bench.apiserver.servers import Server
from bench.apiserver.wire import TIMEOUT_SECONDS, Address, Connection, Watcher, request

GROUP = "bench.kumulus.dev"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PATH = f"/apis/{GROUP}/v1/namespaces/default/parts"
MERGE_PATCH = "application/merge-patch+json"
FILL_CONNECTIONS = 64
BATCH_SECONDS = 600.0
"""How long one measurement may take: a limit for each request would cost what is measured."""
LISTED = 10_000
LISTS = 5
STARTS = 3
WATCHERS = 200
FAN_OUTS = 50
FAN_OUT_PAUSE = 0.05
_WORD = 108

DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"parts.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "parts", "kind": "Part"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["spec"],
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["size"],
                                "properties": {
                                    "size": {"type": "integer", "minimum": 1, "maximum": 64},
                                    "mode": {"enum": ["A", "B"], "type": "string", "default": "A"},
                                    "zoneRef": {
                                        "type": "object",
                                        "required": ["name"],
                                        "properties": {
                                            "name": {"type": "string", "maxLength": 253}
                                        },
                                    },
                                    "disks": {
                                        "type": "array",
                                        "maxItems": 16,
                                        "items": {
                                            "type": "object",
                                            "properties": {
                                                "name": {"type": "string", "maxLength": 63},
                                                "digest": {"type": "string", "maxLength": 128},
                                            },
                                        },
                                    },
                                    "notes": {
                                        "type": "object",
                                        "additionalProperties": {"type": "string"},
                                    },
                                },
                                "x-kubernetes-validations": [
                                    {
                                        "rule": "self.mode == oldSelf.mode",
                                        "message": "mode is immutable",
                                    }
                                ],
                            },
                            "status": {
                                "type": "object",
                                "properties": {
                                    "ready": {"type": "boolean"},
                                    "round": {"type": "integer"},
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}


def part(number: int) -> bytes:
    """A custom resource of 1.5 KB. What is in it does not repeat, as real data does not."""
    dice = random.Random(number)

    def word() -> str:
        return f"{dice.getrandbits(_WORD * 4):0{_WORD}x}"

    return orjson.dumps(
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "Part",
            "metadata": {"name": f"part-{number:06}", "labels": {"rack": str(number % 10)}},
            "spec": {
                "size": 1 + number % 64,
                "zoneRef": {"name": f"zone-{number % 3}"},
                "disks": [{"name": f"disk-{n}", "digest": word()} for n in range(5)],
                "notes": {f"note-{n}": word() for n in range(5)},
            },
        }
    )


@dataclass(frozen=True)
class Rate:
    """Requests a second, and the CPU that each took, in milliseconds."""

    a_second: float
    server_ms: float
    client_ms: float


@dataclass(frozen=True)
class FanOut:
    """From a write's sending until each of many watchers has it, and the server's CPU for that."""

    median_ms: float
    p99_ms: float
    server_ms: float


@dataclass
class Result:
    """What one server did. Times in milliseconds, memory in MiB; None: not measured."""

    rates: dict[str, Rate] = field(default_factory=dict)
    list_ms: float | None = None
    list_cpu_ms: float | None = None
    fan_out: FanOut | None = None
    resident: float | None = None
    resident_again: float | None = None
    start_ms: float | None = None
    start_cpu_ms: float | None = None


def prepare(server: Server) -> None:
    """Make the kind and wait until it is served."""
    cluster = server.cluster()
    cluster.post(DEFINITIONS, DEFINITION).ok()
    deadline = time.monotonic() + 30
    while cluster.get(PATH).code != 200:
        if time.monotonic() > deadline:
            raise RuntimeError("the server does not serve the benchmark's kind")
        time.sleep(0.1)


class Load:
    """Requests of one measurement. Connections are opened before the clock starts."""

    def __init__(self, server: Server, address: Address) -> None:
        self._server, self._address = server, address

    async def requests(self, data: Sequence[bytes], connections: int) -> Rate:
        """Send all of ``data`` over so many connections. Raises TimeoutError, Failed."""
        opened = await self._open(connections)
        await asyncio.gather(*(each.ask(request("GET", "/version")) for each in opened))
        left = iter(data)

        async def work(connection: Connection) -> None:
            for each in left:
                await connection.ask(each)

        cpu, own, began = self._server.cpu(), time.process_time(), time.perf_counter()
        async with asyncio.timeout(BATCH_SECONDS):
            await asyncio.gather(*map(work, opened))
        seconds = time.perf_counter() - began
        own, cpu = time.process_time() - own, self._server.cpu() - cpu
        for each in opened:
            each.close()
        return Rate(len(data) / seconds, 1000 * cpu / len(data), 1000 * own / len(data))

    async def lists(self) -> tuple[float, float]:
        """The median time of a list of everything, and the server's CPU for it (milliseconds)."""
        (connection,) = await self._open(1)
        took = []
        cpu = self._server.cpu()
        for _ in range(LISTS):
            began = time.perf_counter()
            await asyncio.wait_for(connection.ask(request("GET", PATH)), TIMEOUT_SECONDS)
            took.append(time.perf_counter() - began)
        connection.close()
        return 1000 * statistics.median(took), 1000 * (self._server.cpu() - cpu) / LISTS

    async def fan_out(self) -> FanOut:
        """The watchers live in this process, so that its time to read them all counts too."""
        seen: list[float] = []
        path = f"{PATH}?watch=1&resourceVersion={await self._version()}"
        watchers = [await Watcher.watch(self._address, path, seen.append) for _ in range(WATCHERS)]
        (connection,) = await self._open(1)
        found: list[float] = []
        cpu = self._server.cpu()
        for number in range(FAN_OUTS):
            await asyncio.sleep(FAN_OUT_PAUSE)
            seen.clear()
            began = time.perf_counter()
            await asyncio.wait_for(connection.ask(_status(0, 1000 + number)), TIMEOUT_SECONDS)
            while len(seen) < WATCHERS:
                if time.perf_counter() - began > 30:
                    raise RuntimeError("watchers did not get a change within 30 seconds")
                await asyncio.sleep(0.001)
            found += [moment - began for moment in seen]
        cpu = self._server.cpu() - cpu
        for each in (*watchers, connection):
            each.close()
        found.sort()
        p99 = found[int(len(found) * 0.99)]
        return FanOut(1000 * statistics.median(found), 1000 * p99, 1000 * cpu / FAN_OUTS)

    async def _version(self) -> str:
        reply = await asyncio.to_thread(self._server.cluster().get, PATH, limit=1)
        return str(reply.ok()["metadata"]["resourceVersion"])

    async def _open(self, count: int) -> list[Connection]:
        return [await Connection.open(self._address) for _ in range(count)]


def _at(number: int) -> str:
    return f"{PATH}/part-{number:06}"


def _status(number: int, round_: int) -> bytes:
    body = orjson.dumps({"status": {"ready": True, "round": round_}})
    return request("PATCH", _at(number) + "/status", body, MERGE_PATCH)


VERBS: dict[str, Callable[[int], bytes]] = {
    "create": lambda n: request("POST", PATH, part(n)),
    "get": lambda n: request("GET", _at(n)),
    "status patch": lambda n: _status(n, 1),
    "delete": lambda n: request("DELETE", _at(n)),
}


async def rates(load: Load, objects: int, connections: int) -> dict[str, Rate]:
    """Create objects, read them, patch their status, delete them."""
    return {
        verb: await load.requests([make(n) for n in range(objects)], connections)
        for verb, make in VERBS.items()
    }


async def fill(load: Load, first: int, last: int) -> None:
    """Create objects that are only to be there."""
    step = 5000
    for start in range(first, last, step):
        numbers = range(start, min(start + step, last))
        await load.requests([VERBS["create"](n) for n in numbers], FILL_CONNECTIONS)


async def measure(server: Server, objects: int, connections: int, many: int) -> Result:
    """All measurements of a server; those with more than ``many`` objects are left out."""
    load = Load(server, server.address())
    result = Result(await rates(load, objects, connections))
    if many >= LISTED:
        await fill(load, 0, LISTED)
        result.list_ms, result.list_cpu_ms = await load.lists()
    else:
        await fill(load, 0, 1)
    result.fan_out = await load.fan_out()
    if many > LISTED:
        await fill(load, LISTED, many)
        result.resident = server.resident()
    if many:
        starts = [await asyncio.to_thread(server.restart) for _ in range(STARTS)]
        result.start_ms = 1000 * statistics.median(start.seconds for start in starts)
        result.start_cpu_ms = 1000 * statistics.median(start.cpu for start in starts)
        result.resident_again = server.resident()
    return result
