"""The ValidatingWebhookConfiguration that has an API server ask this controller.

failurePolicy is Ignore: the reconciler looks at every object itself and reports what is wrong in
its conditions, so a controller that is down, or not reached, must hold up neither Git nor people.
A match condition keeps away what the judge would let through anyway: updates that leave the spec
as it is, of which controllers make many.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from controller.client import NotFound, Resource
from controller.errors import KumulusError
from controller.objects import resource_of
from controller.rights import Right
from crds.base import GROUP
from crds.base import Resource as Model

log = logging.getLogger(__name__)

CONFIGURATIONS = Resource(
    "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", False
)
NAME = "kumulus"
RIGHTS = (
    Right(CONFIGURATIONS.group, CONFIGURATIONS.plural, ("create",), feature="registration"),
    Right(
        CONFIGURATIONS.group,
        CONFIGURATIONS.plural,
        ("delete", "get", "update"),
        names=(NAME,),
        feature="registration",
    ),
)
WEBHOOK = "admission.kumulus.dev"
TIMEOUT_SECONDS = 5
SPEC_CHANGES = 'request.operation != "UPDATE" || object.?spec != oldObject.?spec'
FOLLOWING, RETRY, AGAIN = 1.0, 5.0, 60.0
"""Seconds between looks: as long as another controller leads, after a failure, after a success."""


class RegistrationApi(Protocol):
    """The part of client.Api that is needed here."""

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]: ...
    async def create(
        self, resource: Resource, namespace: str, body: Mapping[str, Any]
    ) -> dict[str, Any]: ...
    async def replace(
        self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]
    ) -> dict[str, Any]: ...
    async def delete(
        self, resource: Resource, namespace: str, name: str, uid: str
    ) -> dict[str, Any] | None: ...


@dataclass
class Registration:
    """Keeps the configuration as ``webhooks`` says; None: keeps it away. Only while ``leading``:
    of several controllers, the one at work is asked."""

    api: RegistrationApi
    webhooks: list[dict[str, Any]] | None
    leading: Callable[[], bool]
    _told: str = field(default="", init=False)

    async def run(self) -> None:
        """For ever; cancel it."""
        while True:
            pause = await self._round() if self.leading() else FOLLOWING
            await asyncio.sleep(pause * (1 - random.random() / 4))  # noqa: S311 - jitter

    async def settle(self) -> None:
        """Compare, and write what differs. Raises KumulusError."""
        try:
            found = await self.api.get(CONFIGURATIONS, "", NAME)
        except NotFound:
            if self.webhooks is not None:
                await self.api.create(CONFIGURATIONS, "", self._body({"name": NAME}))
                log.info("the API server asks this controller from now on")
            return
        if self.webhooks is None:
            await self.api.delete(CONFIGURATIONS, "", NAME, found["metadata"]["uid"])
            log.info("the API server asks no controller any more")
        elif found.get("webhooks") != self.webhooks:
            await self.api.replace(CONFIGURATIONS, "", NAME, self._body(found["metadata"]))
            log.info("the API server asks this controller from now on, and as it wants")

    def _body(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": f"{CONFIGURATIONS.group}/{CONFIGURATIONS.version}",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": dict(metadata),
            "webhooks": self.webhooks,
        }

    async def _round(self) -> float:
        """Seconds until the next."""
        try:
            await self.settle()
        except KumulusError as error:
            if error.message != self._told:
                self._told = error.message
                log.warning("the admission webhook is not set up", extra={"why": error.message})
            return RETRY
        except Exception:  # an answer that makes no sense must not end the controller
            log.exception("the admission webhook is not set up")
            return RETRY
        self._told = ""
        return AGAIN


def webhooks(url: str, ca: bytes, models: Iterable[type[Model]]) -> list[dict[str, Any]]:
    """The webhooks of the configuration, defaults written out so that they can be compared.

    ``url``: https, as the API server reaches us; ``ca``: PEM of what signed our certificate.
    """
    resources = [resource for model in models if (resource := resource_of(model)).group == GROUP]
    return [
        {
            "name": WEBHOOK,
            "clientConfig": {"url": url, "caBundle": base64.b64encode(ca).decode()},
            "rules": [
                {
                    "apiGroups": [GROUP],
                    "apiVersions": sorted({resource.version for resource in resources}),
                    "resources": sorted(resource.plural for resource in resources),
                    "operations": ["CREATE", "UPDATE", "DELETE"],
                    "scope": "*",
                }
            ],
            "failurePolicy": "Ignore",
            "matchPolicy": "Equivalent",
            "namespaceSelector": {},
            "objectSelector": {},
            "sideEffects": "None",
            "timeoutSeconds": TIMEOUT_SECONDS,
            "admissionReviewVersions": ["v1"],
            "matchConditions": [{"name": "spec-changes", "expression": SPEC_CHANGES}],
        }
    ]
