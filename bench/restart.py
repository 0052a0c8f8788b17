"""How soon a replica that starts knows all machines: ``python -m bench.restart [machines]``.

A real embedded API server keeps so many machines; the informer lists them into an empty store.
No reconcile is part of it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import yaml

from bench.machines import machine
from bench.watch import resident
from controller.client import Api, Resource
from controller.objects import resource_of
from controller.registry import discover
from controller.sharding.arcs import EVERYTHING, SPACE, Arcs
from controller.watch.informer import Informer
from controller.watch.store import ObjectStore
from tests.support.apiserver import embedded_cluster
from tests.support.cloud import CRDS

DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", False)
AT_ONCE = 32


async def main(count: int) -> None:
    models = discover().models
    machines = resource_of(models["VirtualMachine"])
    with embedded_cluster() as kubeconfig:
        api = await Api.connect(kubeconfig)
        try:
            for path in CRDS.glob("*.yaml"):
                for definition in yaml.safe_load_all(path.read_text()):
                    await api.create(DEFINITIONS, "", definition)
            while machines.plural not in await api.served(machines.group, machines.version):
                await asyncio.sleep(0.1)
            await fill(api, machines, count)
            for what, arcs in (("all", EVERYTHING), ("a fifth", Arcs.of([(0, SPACE // 5)]))):
                await start(api, models, what, arcs)
        finally:
            await api.close()


async def fill(api: Api, machines: Resource, count: int) -> None:
    waiting = iter(range(count))

    async def worker() -> None:
        for number in waiting:
            obj = machine(number)
            kept = {"name": obj["metadata"]["name"], "finalizers": obj["metadata"]["finalizers"]}
            await api.create(machines, "default", {**obj, "metadata": kept})
            status = {"status": obj["status"]}
            await api.patch(machines, "default", kept["name"], status, "status")

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


async def start(api: Api, models: Any, what: str, arcs: Arcs) -> None:
    store = ObjectStore(models)
    kinds = {"VirtualMachine": models["VirtualMachine"]}
    informer = Informer(api, kinds, store, arcs=arcs)
    before, began, used = resident(), time.perf_counter(), time.process_time()
    await informer.start(store.apply)
    await informer.settled()
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    count = len(store.keys("VirtualMachine"))
    await informer.stop()
    print(f"{what}: {count:,} machines known after {seconds:.1f} s, {cpu:.1f} s of CPU, "
          f"{(resident() - before) / max(1, count) / 1024:.1f} KB resident each")  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
