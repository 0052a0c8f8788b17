"""The simulator's part of the HTTP interface: what goes wrong, changed while it runs."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from agents.app import Extensions
from agents.drivers.base import AgentId, Driver
from agents.drivers.simulated.chaos import ChaosConfig
from agents.drivers.simulator import Simulation, SimulatorDriver

MOST_EXECUTIONS = 100_000


class ChaosEvent(BaseModel):
    """reboot: the machine restarts. crash: the VM with this uid dies."""

    model_config = ConfigDict(extra="forbid")

    reboot: bool = False
    crash: Annotated[str, Field(max_length=253)] | None = None


def extensions(simulation: Simulation) -> Extensions:
    """The routes that agents.drivers.simulator lists."""
    return Extensions(
        routes={
            ("GET", "chaos"): _get,
            ("PUT", "chaos"): _put,
            ("DELETE", "chaos"): _delete,
            ("POST", "chaos"): _post,
            ("GET", "executions"): _executions,
        },
        dead=simulation.dead,
    )


async def _get(agent: AgentId, driver: Driver, request: web.Request) -> web.Response:
    return _json(await _simulated(driver).report())


async def _put(agent: AgentId, driver: Driver, request: web.Request) -> web.Response:
    config = ChaosConfig.model_validate_json(await request.read())
    await _simulated(driver).set_chaos(config)
    return _json(await _simulated(driver).report())


async def _delete(agent: AgentId, driver: Driver, request: web.Request) -> web.Response:
    await _simulated(driver).set_chaos(None)
    return _json(await _simulated(driver).report())


async def _post(agent: AgentId, driver: Driver, request: web.Request) -> web.Response:
    event = ChaosEvent.model_validate_json(await request.read())
    simulated = _simulated(driver)
    if event.reboot:
        await simulated.reboot()
    if event.crash is not None:
        await simulated.crash(event.crash)
    return _json(await simulated.report())


async def _executions(agent: AgentId, driver: Driver, request: web.Request) -> web.Response:
    text = request.query.get("limit", "1000")
    limit = min(MOST_EXECUTIONS, int(text)) if text.isdecimal() else 1000
    simulated = _simulated(driver)
    found = await simulated.executions(request.query.get("resource"), limit)
    return _json({"executions": found})


def _simulated(driver: Driver) -> SimulatorDriver:
    if not isinstance(driver, SimulatorDriver):
        raise TypeError("only a simulator has these routes")
    return driver


def _json(body: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")
