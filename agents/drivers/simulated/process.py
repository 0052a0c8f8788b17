"""A process of simulated agents."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from agents.drivers.simulated.control import extensions
from agents.drivers.simulator import Simulation
from agents.identity import Identities
from agents.runtime import running
from agents.settings import AgentSettings
from common.web import Server


def simulating(
    settings: AgentSettings, identities: Identities, simulation: Simulation
) -> AbstractAsyncContextManager[Server]:
    """Pose as every agent that ``identities`` has a certificate for. Raises what running does."""
    return running(
        settings,
        identities,
        simulation.driver,
        lambda agent: True,
        extensions=extensions(simulation),
        copies=simulation.copies,
    )
