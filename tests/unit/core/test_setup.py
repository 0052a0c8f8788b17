"""What is found and read at the start, and what is said when it does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.pki import Authority
from controller.app import _data_dir, certificates
from controller.client import Resource, _error
from controller.errors import Conflict, KumulusError, Terminal, Transient
from controller.objects import resource_of
from controller.reconcile.actuator import Actuator, Tuning
from controller.registry import RegistryError, build, discover
from controller.settings import BadSettings, Settings
from crds import kinds
from crds.v1alpha1.virtual_machine import VirtualMachine
from crds.v1alpha1.zone import Zone
from tests.unit.core.fakes import MODELS, TOYS, Leaf, LeafActuator, Trunk


def test_all_our_kinds_are_found_and_each_has_its_actuator() -> None:
    registry = discover(plugins=[])
    assert set(registry.models) == set(kinds())
    assert set(registry.actuators) == set(kinds())


def test_toys_fit_together() -> None:
    registry = build(TOYS, models=MODELS)
    assert isinstance(registry.actuators["Leaf"], LeafActuator)
    assert registry.graph.has_dependents("Trunk") and not registry.graph.has_dependents("Leaf")


def test_mistakes_are_named_all_at_once() -> None:
    class NoModel(Actuator[Any]):
        pass

    class Second(Actuator[Any]):
        model = Leaf

    class Watcher(Actuator[Any]):
        model = Trunk
        watches = {"Ghost": lambda *_: []}

    with pytest.raises(RegistryError) as caught:
        build([*TOYS[1:], NoModel, Second, Watcher], models=MODELS)
    text = str(caught.value)
    assert "NoModel has no model" in text
    assert "Leaf has two actuators" in text and "Second" in text
    assert "watches Ghost" in text


def test_settings_come_from_the_environment_and_the_command_line_wins() -> None:
    environment = {"KUMULUS_AGENT_PORT": "1234", "KUMULUS_DATA_DIR": "/d", "OTHER": "x"}
    settings = Settings.from_env(environment, agent_port=7, concurrency=None)
    assert (settings.agent_port, settings.data_dir) == (7, Path("/d"))
    assert settings.concurrency == 32
    assert settings.pki == Path("/d/pki")
    assert settings.ledger_url == "sqlite:////d/ledger.sqlite"
    assert settings.tuning() == Tuning(agent_port=7)


@pytest.mark.parametrize(
    ("environment", "given", "said"),
    [
        ({"KUMULUS_CONTROLLER_PORT": "70000"}, {}, "KUMULUS_CONTROLLER_PORT"),
        ({"KUMULUS_LOG_LEVEL": "loud"}, {}, "KUMULUS_LOG_LEVEL"),
        ({}, {"colour": "red"}, "colour"),
    ],
)
def test_bad_settings_are_named(
    environment: dict[str, str], given: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadSettings, match=said):
        Settings.from_env(environment, **given)


def test_a_data_directory_serves_one_controller_and_keeps_its_identity(tmp_path: Path) -> None:
    with (
        _data_dir(tmp_path) as identity,
        pytest.raises(BadSettings, match="another controller"),
        _data_dir(tmp_path),
    ):
        pass
    with _data_dir(tmp_path) as again:
        assert again == identity


def test_certificates_are_made_with_the_ca_or_taken_as_they_are(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, advertise_address="10.0.0.1")
    ca, pair = certificates(settings)
    assert ca == tmp_path / "pki" / "ca.crt" and pair.key.stat().st_mode & 0o077 == 0
    given = pair.cert.read_bytes()
    (tmp_path / "pki" / "ca.key").unlink()
    assert certificates(settings)[1].cert.read_bytes() == given
    assert Authority.create(tmp_path / "other").ca.exists()


def test_paths_of_resources() -> None:
    vm = resource_of(VirtualMachine)
    assert vm.path() == "/apis/kumulus.dev/v1alpha1/virtualmachines"
    assert vm.path("ns", "a", "status").endswith("/namespaces/ns/virtualmachines/a/status")
    assert resource_of(Zone).path("", "z") == "/apis/kumulus.dev/v1alpha1/zones/z"
    assert Resource("", "v1", "events", True).path("ns") == "/api/v1/namespaces/ns/events"
    assert vm.path("ns", "a/b").endswith("/virtualmachines/a%2Fb")


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", Transient),
        (422, "Invalid", Terminal),
        (403, "Forbidden", Transient),
        (404, "NotFound", Transient),
        (410, "Expired", Transient),
        (503, "", Transient),
        (0, "", Transient),
    ],
)
def test_answers_become_errors(status: int, reason: str, kind: type[KumulusError]) -> None:
    body = f'{{"reason": "{reason}", "message": "what is wrong"}}'.encode()
    error = _error(status, body, "GET /x")
    assert isinstance(error, kind)
    assert "what is wrong" in error.message and "GET /x" in error.message
    assert "Traceback" not in _error(status, b"<html>gateway</html>", "GET /x").message
