"""Prints a table: what the embedded API server does, beside the upstream libraries on etcd.

The load generator is this process: two processors are shared by it and the server.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys

import uvloop
from rich.console import Console
from rich.table import Table

from bench.apiserver import load, servers
from bench.apiserver.load import FanOut, Rate, Result
from tests.support import reference

MANY = 50_000


def run(server: servers.Server, given: argparse.Namespace) -> Result:
    load.prepare(server)
    return uvloop.run(load.measure(server, given.objects, given.connections, given.many))


def table(results: dict[str, Result], title: str) -> Table:
    shown = Table(title=title)
    shown.add_column("")
    for name in results:
        shown.add_column(name, justify="right")
    if len(results) > 1:
        shown.add_column("ratio", justify="right")
    for label, values in rows(list(results.values())):
        shown.add_row(label, *(_number(value) for value in values), *_ratio(values))
    return shown


def rows(results: list[Result]) -> list[tuple[str, list[float | None]]]:
    """Label and one value for each server."""
    found: list[tuple[str, list[float | None]]] = []
    for verb in load.VERBS:
        each: list[Rate] = [result.rates[verb] for result in results]
        found.append((f"{verb}, requests/s", [rate.a_second for rate in each]))
        found.append((f"{verb}, server CPU-ms", [rate.server_ms for rate in each]))
        found.append((f"{verb}, client CPU-ms", [rate.client_ms for rate in each]))
    found += [
        (f"list of {load.LISTED:,}, ms", [result.list_ms for result in results]),
        (f"list of {load.LISTED:,}, server CPU-ms", [result.list_cpu_ms for result in results]),
        *_fan_out([result.fan_out for result in results]),
        *_memory("resident after the writes", [result.resident for result in results]),
        (f"start to ready on these data, ms, median of {load.STARTS}",
         [result.start_ms for result in results]),
        ("such a start, server CPU-ms", [result.start_cpu_ms for result in results]),
        *_memory("resident after that start", [result.resident_again for result in results]),
    ]  # fmt: skip
    return [row for row in found if any(value is not None for value in row[1])]


def _fan_out(found: list[FanOut | None]) -> list[tuple[str, list[float | None]]]:
    label = f"write to {load.WATCHERS} watchers, "
    return [
        (f"{label}ms, median", [each.median_ms if each else None for each in found]),
        (f"{label}ms, p99", [each.p99_ms if each else None for each in found]),
        (f"{label}server CPU-ms", [each.server_ms if each else None for each in found]),
    ]


def _memory(label: str, found: list[float | None]) -> list[tuple[str, list[float | None]]]:
    megabytes = [each * 2**20 / 10**6 if each is not None else None for each in found]
    return [(f"{label}, MB", megabytes), (f"{label}, MiB", found)]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _ratio(values: list[float | None]) -> list[str]:
    if len(values) < 2:
        return []
    ours, theirs = values
    return [f"{ours / theirs:.2f}" if ours is not None and theirs else "-"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.apiserver", description=__doc__)
    parser.add_argument("--objects", type=int, default=2000, help="requests of each verb")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--many", type=int, default=MANY, help="objects for list, memory, start")
    parser.add_argument("--alone", action="store_true", help="without the reference server")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end, too
    console = Console(width=120)
    results = {}
    with servers.embedded() as server:
        results[server.name] = run(server, given)
    why = "--alone" if given.alone else reference.missing()
    if why is None:
        with servers.upstream() as upstream:
            results[upstream.name] = run(upstream, given)
    else:
        console.print(f"The reference server is left out: {why}.")
    title = (
        f"1.5 KB custom resources, TLS, {given.connections} connections, {given.objects} of each; "
        f"{os.cpu_count()} CPUs shared with the client, {platform.machine()}"
    )
    console.print(table(results, title))
    console.print("CPU-ms: per request. Reference: with its etcd, which runs without fsync.")


if __name__ == "__main__":
    main()
