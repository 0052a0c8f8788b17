"""What every write passes beside the schema: webhooks, and the check against escalation."""

from __future__ import annotations

from dataclasses import dataclass

from controller.apiserver.access import rbac
from controller.apiserver.access.escalation import Giver
from controller.apiserver.access.rbac import Rbac
from controller.apiserver.webhooks.dispatcher import Dispatcher, Write


@dataclass(frozen=True)
class Gates:
    """Asked by the registry. Everything refused raises ApiError."""

    authorizer: Rbac
    webhooks: Dispatcher

    async def before(self, write: Write, *, internal: bool = False) -> None:
        """Before the schema is asked: webhooks may change the object (``write.new``).

        ``internal``: the server's own doing, in which no webhook can stand in the way.
        """
        if not internal and self.webhooks.concerned(write.resource)[0]:
            await self.webhooks.mutate(write)
        if write.new is not None and write.resource.storage in rbac.KINDS:
            giver = Giver(self.authorizer, write.user, write.resource, write.namespace)
            giver.check(write.new, write.old)

    async def after(self, write: Write, *, internal: bool = False) -> None:
        """When the object has proved valid."""
        if not internal and self.webhooks.concerned(write.resource)[1]:
            await self.webhooks.validate(write)
