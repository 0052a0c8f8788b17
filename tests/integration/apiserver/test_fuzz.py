"""Whatever is sent, the answer is a Status of the client's making: no 500, no traceback.

``KUMULUS_FUZZ`` is a seed for other cases than CI's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from unittest import mock

import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from controller.apiserver import auth
from controller.apiserver.access.kinds import access_kinds
from controller.apiserver.access.rbac import Rbac
from controller.apiserver.access.reviews import Reviews
from controller.apiserver.access.tokens import Bearers, Signer
from controller.apiserver.admission import User
from controller.apiserver.builtins import builtins
from controller.apiserver.catalog import Catalog
from controller.apiserver.definitions import Definitions
from controller.apiserver.gates import Gates
from controller.apiserver.http import Gate, HttpApi
from controller.apiserver.registry import Registry
from controller.apiserver.store import Store
from controller.apiserver.verbs import Verbs
from controller.apiserver.webhooks.dispatcher import Dispatcher
from controller.apiserver.webhooks.kinds import webhook_kinds
from tests.integration.apiserver import fuzzing
from tests.integration.apiserver.fuzzing import Case

CASES = 10_000
SEED = int(os.environ.get("KUMULUS_FUZZ", "20260101"))
ADMIN = User("fuzz", frozenset({auth.MASTERS}))
AS_UPSTREAM = (
    "resourceVersion should not be set on objects to be created",
    "strconv.ParseUint: parsing",
    "the spec replicas field",
)
"""What Kubernetes too answers with 500, though the client is to blame."""


class Server:
    """The server's handler, called without a network."""

    def __init__(self, store: Store, directory: Path) -> None:
        catalog = Catalog()
        catalog.add([*builtins(), *access_kinds(), *webhook_kinds()])
        Definitions(store, catalog).start()
        rbac, signer = Rbac(store), Signer.load(directory / "signer.key")
        self.webhooks = Dispatcher(store, catalog, rbac)
        reviews = Reviews(store, rbac, Bearers(store, signer), signer)
        gate = Gate(lambda _: ADMIN, rbac, 3 * 2**20, reviews)
        verbs = Verbs(store, Registry(store, catalog, None, Gates(rbac, self.webhooks)))
        self._api = HttpApi(catalog, verbs, gate, lambda: True)
        self._app = web.Application()

    async def __call__(self, case: Case) -> web.Response:
        payload = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
        payload.feed_data(case.body)
        payload.feed_eof()
        transport = mock.Mock()
        transport.get_extra_info.return_value = None
        request = make_mocked_request(
            case.method, case.target, {**case.headers, "Authorization": "Bearer x", "Host": "h"},
            payload=payload, transport=transport, app=self._app,
        )  # fmt: skip
        response = await asyncio.wait_for(self._api.handle(request), 10)
        assert isinstance(response, web.Response)
        return response


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    store = Store(tmp_path / "db", "OFF")
    await store.start()
    found = Server(store, tmp_path)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
    for path, wire in (
        ("/api/v1/namespaces", namespace),
        (fuzzing.CRDS, fuzzing.definition(schema=fuzzing.SCHEMA)),
        (fuzzing.BASE, fuzzing.GOOD),
    ):
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        made = await found(Case("POST", path, body=json.dumps(wire).encode(), headers=headers))
        assert made.status == 201, made.body
    yield found
    await found.webhooks.close()
    await store.close()


async def test_no_request_is_answered_with_a_failure_of_ours(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    codes: Counter[int] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    good = Case("POST", fuzzing.BASE, body=json.dumps(fuzzing.GOOD).encode(),
                headers={"Content-Type": "application/json"})  # fmt: skip
    dice = Random(SEED)
    for number in range(CASES):
        case = fuzzing.case(dice)
        response = await server(case)
        codes[response.status] += 1
        if case.method == "DELETE" and response.status == 200:
            await server(good)  # what was deleted comes back
        _judge(response, f"case {number} of seed {SEED}: {case}", caplog)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 150 * 1024, f"{grown} KiB"
    # The cases are neither all nonsense nor all good.
    assert codes[200] + codes[201] > CASES / 20, codes
    assert codes[400] + codes[422] > CASES / 5, codes


def _judge(response: web.Response, about: str, caplog: pytest.LogCaptureFixture) -> None:
    body = response.body if isinstance(response.body, bytes) else b""
    assert b"Traceback" not in body, about
    assert not caplog.records, f"{about}\n{caplog.text}"
    if response.status >= 500 and response.status != 504:
        message = json.loads(body)["message"]
        assert any(text in message for text in AS_UPSTREAM), f"{about}: {message}"
    elif response.status >= 400 and response.content_type == "application/json":
        status = json.loads(body)
        assert (status["kind"], status["code"]) == ("Status", response.status), about
