"""The same judge behind kopf's webhook: real reviews go through kopf's own engine."""

from __future__ import annotations

from typing import Any

import kopf
import pytest
from kopf._cogs.structs.ephemera import Memo
from kopf._cogs.structs.references import Insights, Resource
from kopf._core.engines.admission import serve_admission_request
from kopf._core.reactor.inventory import ResourceMemories

from controller.admission import Judge, webhook
from controller.apiserver.admission import Violation
from crds import kinds
from crds.base import GROUP, VERSION
from tests.support.lookup import Objects, Wire, wire

L3 = wire("L3Network", "l3", {"l2NetworkRef": {"name": "l2"}, "cidr": "10.77.0.0/24"})
VM_SPEC = {"imageRef": {"name": "i"}, "cpu": 1, "memory": "1Gi"}


def vm(**spec: Any) -> Wire:
    return wire("VirtualMachine", "web", VM_SPEC | spec, namespace="shop")


async def review(operation: str, new: Wire | None, old: Wire | None, *around: Wire) -> Any:
    """What kopf answers to an AdmissionReview."""
    registry = kopf.OperatorRegistry()
    webhook.register(registry, Judge(), Objects(*around))
    insights = Insights()
    insights.webhook_resources.update(
        Resource(GROUP, VERSION, model.INFO.plural, kind=name) for name, model in kinds().items()
    )
    obj: Wire = new or old or {}
    plural = kinds()[obj["kind"]].INFO.plural
    answer = await serve_admission_request(
        {
            "request": {
                "uid": "r1",
                "operation": operation,
                "resource": {"group": GROUP, "version": VERSION, "resource": plural},
                "userInfo": {"username": "me", "groups": ["us"]},
                "object": new,
                "oldObject": old,
                "dryRun": False,
            }
        },  # type: ignore[typeddict-item]
        settings=kopf.OperatorSettings(),
        memories=ResourceMemories(),
        memobase=Memo(),
        registry=registry,
        insights=insights,
        indices={},
    )
    return answer["response"]


async def test_a_good_object_is_allowed() -> None:
    assert (await review("CREATE", vm(), None))["allowed"] is True


async def test_a_bad_object_is_refused_with_every_field() -> None:
    nics = [{"name": "eth0", "l3NetworkRef": {"name": "l3"}, "ip": "10.78.0.1"}]
    answer = await review("CREATE", vm(nics=nics), None, L3)
    assert answer["allowed"] is False
    assert answer["status"] == {
        "code": 422,
        "message": "spec.nics[0].ip: 10.78.0.1 is no host's address in 10.77.0.0/24 of L3 "
        "network l3",
    }
    answer = await review("UPDATE", vm(cpu="x", powerState="On"), vm())
    assert answer["status"]["message"] == (
        'spec.powerState: must be one of: "Running", "Stopped" or "Paused"; '
        "spec.cpu: must be a whole number"
    )


async def test_a_deletion_that_is_refused_is_forbidden() -> None:
    root = wire("Volume", "web-root", {"type": "Root", "size": 1}, namespace="shop")
    disk = {"name": "root", "volumeRef": {"name": "web-root"}, "root": True}
    user = {**vm(), "status": {"state": "Running", "disks": [disk]}}
    answer = await review("DELETE", None, root, user)
    assert answer["status"]["code"] == 403
    assert "the root disk of VirtualMachine shop/web" in answer["status"]["message"]


def test_every_kind_is_registered_for_every_write() -> None:
    registry = kopf.OperatorRegistry()
    webhook.register(registry, Judge(), Objects())
    handlers = list(registry._webhooks.get_all_handlers())
    assert {handler.id for handler in handlers} == {
        f"validate-{model.INFO.singular}" for model in kinds().values()
    }
    for handler in handlers:
        assert set(handler.operations or ()) == {"CREATE", "UPDATE", "DELETE"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("field", "code"), [("spec.a", 422), ("", 403)])
def test_codes(field: str, code: int) -> None:
    error = webhook.to_error([Violation("no", field)])
    assert error.code == code
    assert str(error) == (f"{field}: no" if field else "no")
