"""Rights are declared beside the code, and become roles."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from controller.cli.app import app
from controller.client import NotFound, Resource
from controller.clock import SystemClock
from controller.registry import build, discover
from controller.rights import OnKinds, Right, declared, group, manifests, on, rules, select
from controller.sharding.leases import Leases
from controller.up.plan import rights_manifests
from crds import kinds
from tests.unit.core.fakes import MODELS, TOYS, Leaf


def test_resources_with_the_same_verbs_share_a_rule() -> None:
    found = rules(
        [
            Right("g", "b", ("watch",)),
            Right("g", "a", ("list", "watch")),
            Right("g", "b", ("list", "watch")),
            Right("g", "c", ("list",)),
            Right("g", "a", ("get",), names=("one",)),
            Right("", "a", ("list",)),
        ]
    )
    assert found == [
        {"apiGroups": [""], "resources": ["a"], "verbs": ["list"]},
        {"apiGroups": ["g"], "resources": ["c"], "verbs": ["list"]},
        {"apiGroups": ["g"], "resources": ["a", "b"], "verbs": ["list", "watch"]},
        {"apiGroups": ["g"], "resources": ["a"], "resourceNames": ["one"], "verbs": ["get"]},
    ]


def test_plugins_declare_theirs_in_their_modules() -> None:
    plugin = ModuleType("plugin")
    setattr(plugin, "RIGHTS", (Right("x.y", "z", ("get",)), on(Leaf, "create")))  # noqa: B010
    registry = build(TOYS, models=MODELS, modules=[plugin])
    found = declared(registry)
    assert Right("x.y", "z", ("get",)) in found
    assert on(Leaf, "create") in found
    # What is done with every kind is done with the plugin's.
    assert on(Leaf, "get", "list") in found
    assert on(Leaf, "patch", subresource="status") in found


def test_a_right_on_kinds_can_choose() -> None:
    registry = build(TOYS, models=MODELS)
    deleted = {right.resource for right in declared(registry) if right.verbs == ("delete",)}
    children = {child for kind in registry.models for child in registry.graph.children(kind)}
    toys = {model.INFO.plural for model in registry.models.values()}
    assert deleted & toys == {registry.models[kind].INFO.plural for kind in children}
    assert OnKinds(("get",)).of(registry) == registry.models


def test_nothing_is_allowed_wholesale_and_no_secret_is_read() -> None:
    for rule in rules(declared(discover(plugins=[]))):
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert not {"secrets", "customresourcedefinitions", "pods"} & set(rule["resources"])


def test_features_are_left_out_unless_asked_for() -> None:
    rights = declared(discover(plugins=[]))
    plain = select(rights, home=False)
    assert not [rule for rule in plain if "namespaces" in rule["resources"]]
    more = select(rights, home=False, features=("", "namespace", "registration"))
    resources = {(resource, verb) for rule in more for resource in rule["resources"]
                 for verb in rule["verbs"]}  # fmt: skip
    assert ("namespaces", "create") in resources
    assert ("validatingwebhookconfigurations", "update") in resources


def test_manifests_bind_roles_to_the_subject() -> None:
    role, binding, own, own_binding = manifests(
        declared(discover(plugins=[])), name="n", namespace="home", subject=group("g")
    )
    assert (role["kind"], own["kind"]) == ("ClusterRole", "Role")
    assert own["metadata"] == own_binding["metadata"] == {"name": "n", "namespace": "home"}
    assert binding["roleRef"]["kind"] == "ClusterRole"
    assert binding["subjects"][0]["name"] == "g"
    assert role["rules"] and own["rules"]


def test_the_embedded_cloud_makes_the_namespace_before_what_is_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUMULUS_NAMESPACE", "elsewhere")
    first, *others = rights_manifests()
    assert (first["kind"], first["metadata"]["name"]) == ("Namespace", "elsewhere")
    assert {each["metadata"].get("namespace") for each in others} == {None, "elsewhere"}


def _rights(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["rights", *arguments])


def test_the_command_prints_manifests() -> None:
    shown = _rights("--to", "account:ns/me", "-n", "ns", "--with", "registration")
    documents = list(yaml.safe_load_all(shown.output))
    assert [each["kind"] for each in documents] == [
        "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding",
    ]  # fmt: skip
    account = {"kind": "ServiceAccount", "name": "me", "namespace": "ns"}
    assert documents[1]["subjects"] == [account]
    plurals = {plural for rule in documents[0]["rules"] for plural in rule["resources"]}
    assert {model.INFO.plural for model in kinds().values()} <= plurals
    assert "validatingwebhookconfigurations" in plurals


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--to", "me"), "account:NAMESPACE/NAME"), (("--with", "magic"), "admission: to answer")],
)
def test_the_command_says_what_it_takes(arguments: tuple[str, ...], said: str) -> None:
    assert said in str(_rights(*arguments).exception)


class NoNamespace:
    """An API whose namespaces are missing until they are made."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.lease: dict[str, Any] = {}

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        raise NotFound(f"no {resource.plural}")

    async def create(
        self, resource: Resource, namespace: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        if namespace and "namespaces" not in self.made:
            raise NotFound("no such namespace")
        self.made.append(resource.plural)
        self.lease = dict(body)
        return self.lease

    async def patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, Any]
    ) -> dict[str, Any]:
        return self.lease

    async def select(self, resource: Resource, namespace: str, labels: str) -> list[dict[str, Any]]:
        raise AssertionError

    async def delete(
        self, resource: Resource, namespace: str, name: str, uid: str
    ) -> dict[str, Any] | None:
        raise AssertionError


@pytest.mark.parametrize("there", [True, False])
async def test_a_namespace_is_asked_for_only_where_it_is_missing(there: bool) -> None:
    """Not every controller has that right."""
    api = NoNamespace()
    api.made = ["namespaces"] if there else []

    await Leases(api, "home", "me", 15.0, SystemClock()).renew()
    assert api.made == ["namespaces", "leases"]
