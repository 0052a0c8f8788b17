"""AdmissionReviews over HTTP: what is answered, to whom, and what a review may cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from controller.admission import Judge, webhook
from controller.admission.local import LocalLookup, namespaces
from controller.admission.webhook import PATH, Reviewer, admission_routes
from controller.apiserver.admission import Request, Violation
from controller.client import ApiUnavailable, NotFound, Resource
from controller.watch.base import Change
from controller.watch.store import ObjectStore
from crds import kinds
from crds.base import GROUP, VERSION
from tests.support.lookup import Wire, wire

L3 = wire("L3Network", "l3", {"l2NetworkRef": {"name": "l2"}, "cidr": "10.77.0.0/24"})
VM_SPEC = {"imageRef": {"name": "i"}, "cpu": 1, "memory": "1Gi"}
DEFAULT = wire("Zone", "first", {"default": True})
SECOND = wire("Zone", "second", {"default": True})


def vm(**spec: Any) -> Wire:
    return wire("VirtualMachine", "web", VM_SPEC | spec, namespace="shop")


OUTSIDE = vm(nics=[{"name": "eth0", "l3NetworkRef": {"name": "l3"}, "ip": "10.78.0.1"}])


def review(operation: str, obj: Wire, old: Wire | None = None, **more: Any) -> Wire:
    """As an API server sends it."""
    model = kinds()[obj["kind"]]
    call = {
        "uid": "r1",
        "kind": {"group": GROUP, "version": VERSION, "kind": obj["kind"]},
        "resource": {"group": GROUP, "version": VERSION, "resource": model.INFO.plural},
        "requestKind": {"group": GROUP, "version": VERSION, "kind": obj["kind"]},
        "name": obj["metadata"].get("name", ""),
        "namespace": obj["metadata"].get("namespace", ""),
        "operation": operation,
        "userInfo": {"username": "me", "groups": ["us"], "extra": {"a": ["b"]}},
        "object": None if operation == "DELETE" else obj,
        "oldObject": obj if operation == "DELETE" else old,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": call | more}


@dataclass
class Site:
    """A controller's store and API server. ``news`` are what a refresh finds."""

    around: Sequence[Wire] = ()
    synced: bool = True
    judge: Any = None
    news: list[tuple[Change, Wire]] = field(default_factory=list)
    trouble: Exception | None = None
    refreshed: list[str] = field(default_factory=list)
    going: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.store = ObjectStore(kinds())
        for obj in self.around:
            self.store.apply(Change.PRESENT, obj["kind"], obj)
        self.open = asyncio.Event()
        self.open.set()

    def lookup(self) -> LocalLookup:
        return LocalLookup(self.store, lambda: self.synced, namespaces(self))

    async def refresh(self, kind: str) -> None:
        self.refreshed.append(kind)
        await self.open.wait()
        if self.trouble:
            raise self.trouble
        for change, obj in self.news:
            self.store.apply(change, obj["kind"], obj)

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        assert resource.plural == "namespaces"
        if self.trouble:
            raise self.trouble
        if not name:
            raise NotFound("none")
        times = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if name in self.going else {}
        return {"metadata": {"name": name, **times}}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[TestClient[Any, Any]]:
        application = web.Application()
        reviewer = Reviewer(self.judge or Judge(), self.lookup, self.refresh)
        application.add_routes(admission_routes(reviewer))
        async with TestClient(TestServer(application)) as client:
            yield client


async def ask(site: Site, wanted: Wire) -> Wire:
    """The response within the answered AdmissionReview."""
    async with site.serving() as client:
        return await post(client, wanted)


async def post(client: TestClient[Any, Any], wanted: Wire) -> Wire:
    async with client.post(PATH, json=wanted) as answer:
        assert answer.status == 200, await answer.text()
        body = await answer.json()
    assert (body["apiVersion"], body["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: Wire = body["response"]
    assert response["uid"] == "r1"
    return response


async def test_a_good_object_is_allowed_from_memory_alone() -> None:
    site = Site([L3])
    assert await ask(site, review("CREATE", vm())) == {"uid": "r1", "allowed": True}
    assert site.refreshed == []


async def test_a_bad_object_is_refused_as_the_embedded_server_does_it() -> None:
    answer = await ask(Site([L3]), review("CREATE", OUTSIDE))
    said = "10.78.0.1 is no host's address in 10.77.0.0/24 of L3 network l3"
    assert answer["allowed"] is False
    assert answer["status"] == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": f'VirtualMachine.kumulus.dev "web" is invalid: spec.nics[0].ip: Invalid value: '
        f"{said}",
        "details": {
            "name": "web",
            "group": GROUP,
            "kind": "VirtualMachine",
            "causes": [
                {
                    "reason": "FieldValueInvalid",
                    "message": f"Invalid value: {said}",
                    "field": "spec.nics[0].ip",
                }
            ],
        },
    }


async def test_every_field_is_named() -> None:
    answer = await ask(Site(), review("UPDATE", vm(cpu="x", powerState="On"), vm()))
    causes = answer["status"]["details"]["causes"]
    assert {cause["field"] for cause in causes} == {"spec.cpu", "spec.powerState"}


def with_root_disk() -> tuple[Wire, Wire]:
    root = wire("Volume", "web-root", {"type": "Root", "size": 1}, namespace="shop")
    disk = {"name": "root", "volumeRef": {"name": "web-root"}, "root": True}
    return root, {**vm(), "status": {"state": "Running", "disks": [disk]}}


async def test_the_deletion_of_what_is_in_use_is_forbidden() -> None:
    root, user = with_root_disk()
    answer = await ask(Site([root, user]), review("DELETE", root))
    assert (answer["status"]["code"], answer["status"]["reason"]) == (403, "Forbidden")
    assert "the root disk of VirtualMachine shop/web" in answer["status"]["message"]


async def test_a_namespace_that_goes_takes_all_along() -> None:
    root, user = with_root_disk()
    site = Site([root, user], going=frozenset({"shop"}))
    assert (await ask(site, review("DELETE", root)))["allowed"] is True
    site.trouble = ApiUnavailable("down")
    assert (await ask(site, review("DELETE", root)))["allowed"] is False, "not known to be going"


async def test_before_the_store_is_filled_only_the_spec_is_judged() -> None:
    site = Site([L3], synced=False)
    answer = await ask(site, review("CREATE", OUTSIDE))
    assert (answer["allowed"], answer["warnings"]) == (True, [webhook.LOADING])
    assert (await ask(site, review("CREATE", vm(cpu="x"))))["allowed"] is False


async def test_what_the_watch_has_not_brought_yet_refuses_nothing() -> None:
    """The other zone gave up being the default a moment ago."""
    before = {**DEFAULT, "metadata": {**DEFAULT["metadata"], "resourceVersion": "5"}}
    site = Site([before])
    assert (await ask(site, review("CREATE", SECOND)))["allowed"] is False
    assert site.refreshed == ["Zone"]
    metadata = {**DEFAULT["metadata"], "resourceVersion": "6"}
    site.news = [(Change.PRESENT, {**DEFAULT, "metadata": metadata, "spec": {}})]
    assert await ask(site, review("CREATE", SECOND)) == {"uid": "r1", "allowed": True}


@pytest.mark.parametrize("trouble", [ApiUnavailable("no answer"), TimeoutError()])
async def test_a_refusal_stands_that_cannot_be_checked_again(trouble: Exception) -> None:
    site = Site([DEFAULT], trouble=trouble)
    answer = await ask(site, review("CREATE", SECOND))
    assert answer["status"]["details"]["causes"][0]["field"] == "spec.default"


async def test_many_refusals_do_not_ask_the_api_server_many_times() -> None:
    site = Site([DEFAULT])
    site.open.clear()
    async with site.serving() as client:
        asked = [asyncio.create_task(post(client, review("CREATE", SECOND))) for _ in range(20)]
        while not site.refreshed:
            await asyncio.sleep(0)
        site.open.set()
        answers = await asyncio.gather(*asked)
    assert [answer["allowed"] for answer in answers] == [False] * 20
    assert len(site.refreshed) < 10


async def test_what_cannot_be_judged_is_allowed_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(_: Request) -> Sequence[Violation]:
        raise KeyError("secret")

    async def hangs(_: Request) -> Sequence[Violation]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(webhook, "JUDGE_SECONDS", 0.05)
    for judge, warning in ((breaks, webhook.FAILED), (hangs, webhook.LATE)):
        answer = await ask(Site(judge=judge), review("CREATE", vm()))
        assert answer == {"uid": "r1", "allowed": True, "warnings": [warning]}
        assert len(warning) <= 120, "kubectl shows it whole"
    assert [record.message for record in caplog.records] == ["not judged", "not judged in time"]


async def test_a_generated_name_is_found_in_the_object() -> None:
    asked: list[Request] = []

    async def judge(request: Request) -> Sequence[Violation]:
        asked.append(request)
        return []

    await ask(Site(judge=judge), review("CREATE", vm(), name="", subResource="status", dryRun=True))
    (request,) = asked
    assert (request.name, request.namespace, request.resource) == ("web", "shop", "virtualmachines")
    assert (request.user.name, request.user.groups) == ("me", frozenset({"us"}))
    assert (request.subresource, request.dry_run) == ("status", True)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b"{}", "request"),
        (json.dumps(review("CONNECT", vm())).encode(), "request.operation"),
        (json.dumps(review("CREATE", vm(), object={"spec": 1})).encode(), "has no metadata"),
        (json.dumps({**review("CREATE", vm()), "apiVersion": "admission.k8s.io/v1beta1"}).encode(),
         "apiVersion"),
    ],
)  # fmt: skip
async def test_nonsense_is_a_bad_request_that_says_why(body: bytes, said: str) -> None:
    async with Site().serving() as client, client.post(PATH, data=body) as answer:
        assert answer.status == 400
        assert said in await answer.text()


Bodies = Callable[[], AsyncIterator[bytes]]


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b" " * 2**16


async def slow() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.sleep(30)


@pytest.mark.parametrize(("bodies", "status"), [(endless, 413), (slow, 408)])
async def test_a_body_has_a_limit_and_a_time(
    bodies: Bodies, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "BODY_SECONDS", 0.05 if status == 408 else 4.0)
    async with Site().serving() as client, client.post(PATH, data=bodies()) as answer:
        assert answer.status == status


async def test_a_large_object_is_judged() -> None:
    """Larger than the server's limit for other bodies."""
    big = vm(cpu="x")
    big["metadata"]["annotations"] = {"a": "x" * 2**20}
    body = BytesIO(json.dumps(review("CREATE", big)).encode())
    async with Site().serving() as client, client.post(PATH, data=body) as answer:
        assert (await answer.json())["response"]["status"]["code"] == 422


async def test_only_so_many_reviews_are_open_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def waits(_: Request) -> Sequence[Violation]:
        entered.set()
        await leave.wait()
        return []

    monkeypatch.setattr(webhook, "MAX_OPEN", 1)
    async with Site(judge=waits).serving() as client:
        first = asyncio.create_task(post(client, review("CREATE", vm())))
        await entered.wait()
        async with client.post(PATH, json=review("CREATE", vm())) as answer:
            assert answer.status == 503
        leave.set()
        assert (await first)["allowed"] is True
        assert (await post(client, review("CREATE", vm())))["allowed"] is True, "the place is free"


async def test_other_groups_and_kinds_are_not_there() -> None:
    lookup = Site([L3]).lookup()
    assert await lookup.get(GROUP, "L3Network", "", "l3") == L3
    assert await lookup.list(GROUP, "L3Network") == [L3]
    for group, kind in (("other.dev", "L3Network"), (GROUP, "Ghost")):
        assert await lookup.get(group, kind, "", "l3") is None
        assert await lookup.list(group, kind) == []
    read: Callable[..., Awaitable[Any]] = namespaces(Site())
    assert await read("ConfigMap", "", "l3") is None


async def test_lists_are_of_one_namespace_or_of_all_and_give_others_their_turn() -> None:
    many = [wire("Volume", f"v{i}", {"size": 1}, namespace=f"n{i % 2}") for i in range(600)]
    lookup = Site(many).lookup()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count())
    assert len(await lookup.list(GROUP, "Volume")) == 600
    other.cancel()
    assert turns >= 2
    assert len(await lookup.list(GROUP, "Volume", "n1")) == 300
