"""Injected faults: deterministic, counted, and named when they are configured wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.drivers.base import DriverError
from agents.drivers.simulated.chaos import Chaos, ChaosConfig, Distribution, Fault


def chaos(agent: str = "host-1", **config: Any) -> Chaos:
    return Chaos(agent, ChaosConfig.model_validate(config))


def struck(c: Chaos, count: int, action: str = "vm.start") -> list[int]:
    return [n for n in range(1, count + 1) if c.plan(action, "r").faults]


def test_nothing_goes_wrong_unless_told() -> None:
    plan = chaos().plan("vm.start", "r")
    assert plan.delay == 0 and plan.faults == () and plan.copies == 1


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"nth": 3}, [3]),
        ({"every": 4}, [4, 8, 12]),
        ({"every": 4, "times": 2}, [4, 8]),
        ({"times": 1}, [1]),
        ({"probability": 0.0}, []),
        ({"agents": ["host-2"]}, []),
        ({"agents": ["host-*"], "actions": ["vm.*"], "times": 2}, [1, 2]),
        ({"actions": ["volume.*"]}, []),
        ({"resources": ["x"]}, []),
    ],
)
def test_which_operations_are_struck(rule: dict[str, Any], expected: list[int]) -> None:
    assert struck(chaos(faults=[{"effect": "error", **rule}]), 12) == expected


def test_the_same_seed_gives_the_same_faults_whatever_other_agents_do() -> None:
    config = {"seed": 7, "latency": {"*": {"exponential": 1}},
              "faults": [{"effect": "hang", "probability": 0.3}]}  # fmt: skip
    first, second, other = chaos(**config), chaos(**config), chaos("host-2", **config)
    plans = []
    for _ in range(100):
        other.plan("vm.start", "r")
        plans.append((first.plan("vm.start", "r"), second.plan("vm.start", "r")))
    assert all(a == b for a, b in plans)
    assert 15 < sum(bool(a.faults) for a, _ in plans) < 50
    assert struck(chaos(**{**config, "seed": 8}), 100) != struck(chaos(**config), 100)


def test_the_first_pattern_that_matches_holds() -> None:
    c = chaos(latency={"vm.start": 2, "vm.*": 1, "*": 0.5})
    assert [c.plan(a, "r").delay for a in ("vm.start", "vm.stop", "volume.create")] == [2, 1, 0.5]


def test_slow_adds_and_ping_is_meant_by_name_only() -> None:
    c = chaos(latency={"*": 1}, faults=[{"effect": "slow", "seconds": 5}])
    assert c.plan("vm.start", "r").delay == 6
    assert c.ping_delay() == 0
    assert chaos(latency={"ping": 3}).ping_delay() == 3


def test_callbacks() -> None:
    assert chaos(faults=[{"effect": "lose-callback"}]).plan("vm.start", "r").copies == 0
    assert chaos(faults=[{"effect": "duplicate-callback"}]).plan("vm.start", "r").copies == 2


@given(
    st.one_of(
        st.tuples(st.floats(0, 100), st.floats(0, 100)).map(lambda p: Distribution(uniform=p)),
        st.tuples(st.floats(0, 100), st.floats(0, 100)).map(lambda p: Distribution(normal=p)),
        st.floats(0, 100).map(lambda mean: Distribution(exponential=mean)),
    )
)
def test_no_latency_is_negative(distribution: Distribution) -> None:
    c = Chaos("h", ChaosConfig(latency={"*": distribution}))
    assert all(c.plan("vm.start", "r").delay >= 0 for _ in range(20))


@given(
    st.builds(Fault, effect=st.sampled_from(["error", "die"]), nth=st.none() | st.integers(1, 9))
)
def test_a_rule_keeps_its_key_over_json(fault: Fault) -> None:
    assert Fault.model_validate_json(fault.model_dump_json()).key == fault.key


def test_it_is_read_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "chaos.yaml"
    file.write_text(
        'latency: {vm.start: {normal: [1, 0.2]}, "*": 0.02}\n'
        "faults:\n- {actions: [vm.start], nth: 2, effect: error, code: no-space}\n"
    )
    loaded = ChaosConfig.load(file)
    assert loaded.faults[0].code == "no-space" and loaded.latency["*"] == 0.02


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("faults: [{effect: explode}]", "faults.0.effect"),
        ("faults: [{effect: error, nth: 0}]", "faults.0.nth"),
        ("latency: {a: {uniform: [1, 2], exponential: 1}}", "give one of"),
        ("lateny: {}", "lateny"),
        ("{", "no YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "chaos.yaml"
    file.write_text(text)
    with pytest.raises(DriverError) as error:
        ChaosConfig.load(file)
    assert says in error.value.message and "chaos.yaml" in error.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="No such file"):
        ChaosConfig.load(tmp_path / "none.yaml")


def test_the_config_survives_json() -> None:
    config = ChaosConfig.model_validate({"latency": {"a": {"uniform": [0, 1]}}, "seed": 3})
    assert ChaosConfig.model_validate(json.loads(config.model_dump_json())) == config
    with pytest.raises(ValidationError):
        ChaosConfig.model_validate({"unknown": 1})
