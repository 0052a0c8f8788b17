"""What goes wrong in a simulated data centre, and how long things take: all of it configured.

A configuration is YAML or JSON::

    seed: 7                      # same seed, same latencies and faults per agent
    latency:                     # seconds; the first pattern that matches an action holds
      vm.start: {uniform: [0.5, 2]}
      "*": 0.02
    faults:
      - {actions: [vm.start], agents: [host-2], probability: 0.1, effect: error,
         code: hypervisor, message: the guest kernel cannot be read}
      - {actions: [volume.create], nth: 3, effect: hang}
      - {actions: ["vm.*"], every: 10, times: 5, effect: lose-callback}
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agents.checks import describe
from agents.drivers.base import Code, DriverError

Seconds = Annotated[float, Field(ge=0, le=86400)]
Effect = Literal["error", "hang", "slow", "die", "die-after", "lose-callback", "duplicate-callback"]
Patterns = Annotated[list[str], Field(max_length=256)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True)


class Distribution(_Part):
    """Exactly one of these. normal: mean and deviation, never below 0."""

    uniform: tuple[Seconds, Seconds] | None = None
    normal: tuple[Seconds, Seconds] | None = None
    exponential: Seconds | None = None

    @model_validator(mode="after")
    def _one(self) -> Distribution:
        if sum(x is not None for x in (self.uniform, self.normal, self.exponential)) != 1:
            raise ValueError("give one of uniform, normal, exponential")
        return self

    def sample(self, rng: random.Random) -> float:
        if self.uniform is not None:
            return rng.uniform(*self.uniform)
        if self.normal is not None:
            return max(0.0, rng.gauss(*self.normal))
        mean = self.exponential or 0.0
        return rng.expovariate(1.0 / mean) if mean else 0.0


class Fault(_Part):
    """Something that goes wrong when an operation matches.

    Of the operations that match agents, actions and resources (patterns with ``*``): with ``nth``
    the nth alone, with ``every`` each so-manieth, otherwise each with ``probability``; at most
    ``times`` times.

    error: fails with code and message before anything is done. hang: never answers (until the
    operation's timeout). slow: takes ``seconds`` longer. die, die-after: the process ends as by
    kill -9, before or after the work. lose-callback, duplicate-callback: the work is done.
    """

    agents: Patterns = ["*"]
    actions: Patterns = ["*"]
    resources: Patterns = ["*"]
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    nth: Annotated[int, Field(ge=1)] | None = None
    every: Annotated[int, Field(ge=1)] | None = None
    times: Annotated[int, Field(ge=1)] | None = None
    effect: Effect
    code: Code = "hypervisor"
    message: str = "a fault injected by the simulator"
    seconds: Seconds = 10.0

    def matches(self, agent: str, action: str, resource: str) -> bool:
        return (
            _any(self.actions, action)
            and _any(self.agents, agent)
            and _any(self.resources, resource)
        )

    @property
    def key(self) -> str:
        """Names this very rule, so that what it has done is remembered across a restart."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


class ChaosConfig(_Part):
    """unreachable: patterns of agents that do not answer at all."""

    seed: int = 0
    latency: Annotated[dict[str, Seconds | Distribution], Field(max_length=256)] = {}
    faults: Annotated[list[Fault], Field(max_length=256)] = []
    unreachable: Patterns = []

    @classmethod
    def load(cls, file: Path) -> ChaosConfig:
        """Raises DriverError ``invalid`` naming the file and the field."""
        try:
            return cls.model_validate(yaml.safe_load(file.read_text()) or {})
        except OSError as error:
            raise DriverError("invalid", f"{file}: {error.strerror}") from None
        except yaml.YAMLError as error:
            raise DriverError("invalid", f"{file} is no YAML: {error}") from None
        except ValidationError as error:
            raise DriverError("invalid", f"{file}: {describe(error)}") from None


@dataclass
class Tally:
    """How often a fault's operation came, and how often it struck."""

    seen: int = 0
    fired: int = 0


@dataclass(frozen=True)
class Plan:
    """What happens to one operation."""

    delay: float = 0.0
    faults: tuple[Fault, ...] = ()

    def fault(self, *effects: Effect) -> Fault | None:
        return next((f for f in self.faults if f.effect in effects), None)

    @property
    def copies(self) -> int:
        """How often the callback is delivered."""
        if self.fault("lose-callback"):
            return 0
        return 2 if self.fault("duplicate-callback") else 1


@dataclass
class Chaos:
    """Decides for one agent. Deterministic: seed, agent and order of operations say it all."""

    agent: str
    config: ChaosConfig
    tallies: dict[str, Tally] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = random.Random(f"{self.config.seed}/{self.agent}")  # noqa: S311 - no secret

    @property
    def unreachable(self) -> bool:
        return _any(self.config.unreachable, self.agent)

    def ping_delay(self) -> float:
        """Seconds, if ``ping`` itself is among the latencies; patterns do not mean it."""
        return _latency(
            {k: v for k, v in self.config.latency.items() if k == "ping"}, "ping", self._rng
        )

    def plan(self, action: str, resource: str) -> Plan:
        delay = _latency(self.config.latency, action, self._rng)
        struck = tuple(f for f in self.config.faults if self._strikes(f, action, resource))
        slow = sum(f.seconds for f in struck if f.effect == "slow")
        return Plan(delay + slow, struck)

    def _strikes(self, fault: Fault, action: str, resource: str) -> bool:
        if not fault.matches(self.agent, action, resource):
            return False
        tally = self.tallies.setdefault(fault.key, Tally())
        tally.seen += 1
        if fault.times is not None and tally.fired >= fault.times:
            return False
        if fault.nth is not None:
            strikes = tally.seen == fault.nth
        elif fault.every is not None:
            strikes = tally.seen % fault.every == 0
        else:
            strikes = self._rng.random() < fault.probability
        tally.fired += strikes
        return strikes


def _latency(latency: Mapping[str, float | Distribution], action: str, rng: random.Random) -> float:
    for pattern, value in latency.items():
        if fnmatchcase(action, pattern):
            return value.sample(rng) if isinstance(value, Distribution) else value
    return 0.0


def _any(patterns: list[str], value: str) -> bool:
    return any(pattern in ("*", value) or fnmatchcase(value, pattern) for pattern in patterns)
