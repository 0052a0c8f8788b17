"""The webhook's configuration: made, compared, mended, taken away; by whoever leads."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from controller.admission.registration import (
    AGAIN,
    CONFIGURATIONS,
    NAME,
    Registration,
    webhooks,
)
from controller.client import Denied
from crds import kinds
from crds.base import GROUP, VERSION
from tests.unit.core.fakes import FakeApi, Leaf

URL = "https://192.0.2.7:7071/admission"
PLACE = (CONFIGURATIONS.plural, "", NAME)


def wanted(url: str = URL) -> list[dict[str, Any]]:
    return webhooks(url, b"PEM", kinds().values())


def registration(api: FakeApi, what: list[dict[str, Any]] | None) -> Registration:
    return Registration(api, what, lambda: True)


def test_it_covers_every_kind_and_fails_open() -> None:
    (found,) = wanted()
    assert found["clientConfig"] == {"url": URL, "caBundle": base64.b64encode(b"PEM").decode()}
    (rule,) = found["rules"]
    assert (rule["apiGroups"], rule["apiVersions"]) == ([GROUP], [VERSION])
    assert set(rule["resources"]) == {model.INFO.plural for model in kinds().values()}
    assert rule["operations"] == ["CREATE", "UPDATE", "DELETE"]
    assert (found["failurePolicy"], found["sideEffects"]) == ("Ignore", "None")


def test_kinds_of_other_groups_are_not_asked_for() -> None:
    class Foreign(Leaf):
        api_version: str = "other.dev/v1"

    (found,) = webhooks(URL, b"PEM", [Leaf, Foreign])
    assert found["rules"][0]["apiVersions"] == [VERSION]
    assert found["rules"][0]["resources"] == ["leaves"]


async def test_it_is_made_once_and_not_written_again() -> None:
    api = FakeApi()
    for _ in range(3):
        await registration(api, wanted()).settle()
    assert [entry[0] for entry in api.log] == ["create"]
    assert api.objects[PLACE]["webhooks"] == wanted()


async def test_it_is_mended_and_keeps_what_others_wrote_beside() -> None:
    api = FakeApi()
    await registration(api, wanted("https://old.example/admission")).settle()
    api.objects[PLACE]["metadata"]["labels"] = {"by": "somebody"}
    await registration(api, wanted()).settle()
    assert api.objects[PLACE]["webhooks"] == wanted()
    assert api.objects[PLACE]["metadata"]["labels"] == {"by": "somebody"}
    assert [entry[0] for entry in api.log] == ["create", "replace"]


async def test_it_is_taken_away() -> None:
    api = FakeApi()
    await registration(api, None).settle()
    assert api.log == []
    await registration(api, wanted()).settle()
    await registration(api, None).settle()
    assert [entry[0] for entry in api.log] == ["create", "delete"]


@pytest.mark.looptime
async def test_only_the_leader_keeps_it_and_troubles_are_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api, leading = FakeApi(), False
    task = asyncio.create_task(Registration(api, wanted(), lambda: leading).run())
    await asyncio.sleep(100)
    assert not api.log and not caplog.records
    api.faults = [Denied("may not get it"), Denied("may not get it"), ValueError("nonsense")]
    leading = True
    await asyncio.sleep(30)
    assert PLACE in api.objects, "after the troubles it is made"
    assert [getattr(record, "why", None) for record in caplog.records if record.levelno > 20] == [
        "may not get it",
        None,
    ]
    api.objects[PLACE]["webhooks"] = []
    await asyncio.sleep(AGAIN)
    assert api.objects[PLACE]["webhooks"] == wanted(), "somebody's change is undone"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
