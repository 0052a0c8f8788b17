"""Implements ``controller.agentlink.client.Agents`` over HTTPS."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import ssl
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from agents.wire import (
    Error,
    Facts,
    Inventory,
    Operation,
    OperationBatch,
    OperationReplies,
    OperationReply,
    Ping,
    Wire,
)
from common.pki import CertPair
from controller.agentlink.callbacks import Ticket
from controller.agentlink.client import Endpoint
from controller.agentlink.mailbox import Mailbox, Outcome
from controller.agentlink.metrics import CALLS, OPERATION_SECONDS
from controller.agentlink.transport import Answer, Limits, Transport, describe, identity_of
from controller.errors import AgentFailed, AgentUnreachable, OperationPending, Transient
from controller.keys import Key

log = logging.getLogger(__name__)
W = TypeVar("W", bound=Wire)
_LIMITS = Limits()
_MANY_MAILBOXES = 1024
FENCED_SECONDS = 0.1
"""In which a replica hears of a change of the ring, as a rule."""


@dataclass
class _Work:
    """An operation that we know the agent has, or are just sending. ``look_at``: loop time of the
    next read-back, in case its callback is lost. ``awaited``: how many wait for it right now."""

    ticket: Ticket
    action: str
    since: float
    look_at: float
    pause: float
    reply: OperationReply | None = None
    awaited: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class AgentsClient:
    """One per process, made inside the running loop. ``close`` it.

    ``callback_base``: https://host:port under which agents reach our ``callback_routes``.
    ``ring_generation``: asked for each request. Nothing that it remembers is needed: after a
    restart operations are submitted again, and an agent knows them by their ids.
    """

    def __init__(
        self,
        *,
        ca: Path,
        identity: CertPair,
        callback_base: str,
        secret: bytes,
        ring_generation: Callable[[], int] = lambda: 0,
        limits: Limits = _LIMITS,
    ) -> None:
        self.callback_base = callback_base
        self._secret = secret
        self._ring_generation = ring_generation
        self._limits = limits
        self._transport = Transport(ca, identity, limits)
        self._mailboxes: dict[Endpoint, Mailbox] = {}
        self._known: OrderedDict[tuple[str, str], _Work] = OrderedDict()

    @property
    def tls(self) -> ssl.SSLContext:
        """What calls to agents are made with; a renewed certificate can be loaded into it."""
        return self._transport.tls

    async def close(self) -> None:
        for mailbox in list(self._mailboxes.values()):
            await mailbox.close()
        await self._transport.close()

    async def run(
        self,
        endpoint: Endpoint,
        action: str,
        resource: str,
        args: Wire,
        result: type[W],
        *,
        operation: str,
        owner: Key,
    ) -> W:
        key = identity_of(endpoint), operation
        work = self._known.get(key)
        if work is not None and work.reply is None and work.look_at <= self._now():
            work = await self._read_back(endpoint, key, work)
        if work is None:
            command = Operation(
                id=operation, action=action, resource=resource,
                args=args.model_dump(mode="json", by_alias=True),
            )  # fmt: skip
            work = await self._submit(endpoint, key, command, owner)
        if work.reply is None:
            await self._a_moment(work)
        if key in self._known:  # used last: forgotten last
            self._known.move_to_end(key)
        return self._result(endpoint, key, work, result)

    async def ping(self, endpoint: Endpoint) -> Ping:
        return await self._ask(endpoint, "ping", Ping, self._limits.ping, probe=True)

    async def facts(self, endpoint: Endpoint) -> Facts:
        return await self._ask(endpoint, "facts", Facts, self._limits.request)

    async def inventory(self, endpoint: Endpoint) -> Inventory:
        return await self._ask(endpoint, "inventory", Inventory, self._limits.request)

    async def fence(self, endpoint: Endpoint, generation: int) -> None:
        """Have the agent refuse commands of older ring generations. Raises AgentUnreachable."""
        answer = await self._send(endpoint, generation, [])
        _parsed(endpoint, "fence", answer, OperationReplies)

    def deliver(self, identity: str, ticket: Ticket, reply: OperationReply) -> str:
        """A callback's result. A success counts whenever it comes. A failure counts only for the
        attempt that is under way: an old one's echo must not fail a new attempt."""
        if reply.state not in ("Succeeded", "Failed"):
            return "unknown"
        key = identity, ticket.operation
        work = self._known.get(key)
        if work is None:
            if reply.state == "Succeeded":
                self._remember(key, _Work(ticket, "", self._now(), 0, 0, reply))
            return "unknown"
        if work.reply is not None:
            return "duplicate"
        if reply.state == "Failed" and ticket.attempt != work.ticket.attempt:
            work.look_at = self._now()
            return "stale"
        self._finish(work, reply)
        return "awaited" if work.awaited else "delivered"

    async def _a_moment(self, work: _Work) -> None:
        """Wait for an operation that may end within milliseconds of its submission, as most do:
        that spares its owner a look and a status that would be out of date at once."""
        left = work.since + self._limits.patience - self._now()
        if left <= 0:
            return
        work.awaited += 1
        try:
            async with asyncio.timeout(left):
                await work.ended.wait()
        except TimeoutError:
            pass
        finally:
            work.awaited -= 1

    async def _submit(
        self, endpoint: Endpoint, key: tuple[str, str], command: Operation, owner: Key
    ) -> _Work:
        identity, _ = key
        ticket = Ticket(owner, command.id, secrets.token_hex(4))
        url = ticket.url(self.callback_base, self._secret, identity)
        now = self._now()
        look_at = now + self._limits.request
        work = _Work(ticket, command.action, now, look_at, self._limits.first_look)
        self._remember(key, work)  # before it is sent: the callback may overtake the answer
        try:
            mailbox = self._mailbox(endpoint)
            reply = await mailbox.submit(command.model_copy(update={"callback": url}))
        except BaseException:
            # Sent or not, we cannot tell. If the result has come nevertheless, it is kept.
            if work.reply is None and self._known.get(key) is work:
                del self._known[key]
            raise
        CALLS.labels(command.action, "accepted").inc()
        work.look_at = self._now() + self._jittered(work.pause)
        if work.reply is None and reply.state in ("Succeeded", "Failed"):
            self._finish(work, reply)
        return work

    async def _read_back(
        self, endpoint: Endpoint, key: tuple[str, str], work: _Work
    ) -> _Work | None:
        """Ask what became of it; None if the agent does not know it."""
        answer = await self._transport.get(endpoint, f"/operations/{quote(key[1], safe='')}")
        if work.reply is not None:  # the callback came meanwhile
            return work
        if answer.status == 404:
            CALLS.labels("read-back", "unknown").inc()
            if self._known.get(key) is work:
                del self._known[key]
            return None
        reply = _parsed(endpoint, "read-back", answer, OperationReply)
        if reply.state in ("Succeeded", "Failed"):
            self._finish(work, reply)
        else:
            CALLS.labels("read-back", "pending").inc()
            work.pause = min(work.pause * 2, self._limits.longest_look)
            work.look_at = self._now() + self._jittered(work.pause)
        return work

    def _result(self, endpoint: Endpoint, key: tuple[str, str], work: _Work, result: type[W]) -> W:
        reply = work.reply
        if reply is None:
            raise OperationPending(
                f"{endpoint.role} {endpoint.name} is at work on {work.action}",
                retry_after=max(0.0, work.look_at - self._now()),
            )
        if reply.state == "Failed":
            self._known.pop(key, None)
            error = reply.error or Error(code="internal", message="it gives no reason")
            raise AgentFailed(
                f"{endpoint.role} {endpoint.name}: {work.action}: {error.message}",
                code=error.code,
            )
        try:
            return result.model_validate(reply.result)
        except ValidationError as error:
            self._known.pop(key, None)
            raise _mismatch(endpoint, error) from None

    async def _ask(
        self, endpoint: Endpoint, what: str, model: type[W], seconds: float, *, probe: bool = False
    ) -> W:
        try:
            answer = await self._transport.get(endpoint, f"/{what}", seconds=seconds, probe=probe)
            found = _parsed(endpoint, what, answer, model)
        except AgentUnreachable:
            CALLS.labels(what, "unreachable").inc()
            raise
        CALLS.labels(what, "succeeded").inc()
        return found

    async def _post(
        self, endpoint: Endpoint, operations: Sequence[Operation]
    ) -> Mapping[str, Outcome]:
        """One batch. If the agent finds fault with it, its operations go one by one, so that a bad
        one does not take the others with it."""
        try:
            answer = await self._offer(endpoint, operations)
            if answer.status in (400, 413, 422):
                return await self._apart(endpoint, operations, answer)
            replies = _parsed(endpoint, "submit", answer, OperationReplies)
        except Transient as error:
            outcome = "fenced" if error.reason == "Fenced" else "unreachable"
            for operation in operations:
                CALLS.labels(operation.action, outcome).inc()
            raise
        return {reply.id: reply for reply in replies.operations}

    async def _offer(self, endpoint: Endpoint, operations: Sequence[Operation]) -> Answer:
        """Again, should the agent have heard of a newer ring before we did: if these are still
        ours, that is nothing but a matter of milliseconds."""
        generation = self._ring_generation()
        answer = await self._send(endpoint, generation, operations)
        if answer.status == 409:
            await asyncio.sleep(FENCED_SECONDS)
            if self._ring_generation() > generation:
                return await self._send(endpoint, self._ring_generation(), operations)
        return answer

    async def _send(
        self, endpoint: Endpoint, generation: int, operations: Sequence[Operation]
    ) -> Answer:
        batch = OperationBatch(ring_generation=generation, operations=list(operations))
        body = batch.model_dump_json(by_alias=True, exclude_none=True).encode()
        return await self._transport.post(endpoint, "/operations", body)

    async def _apart(
        self, endpoint: Endpoint, operations: Sequence[Operation], answer: Answer
    ) -> Mapping[str, Outcome]:
        if len(operations) == 1:
            error = _error(answer)
            CALLS.labels(operations[0].action, "refused").inc()
            message = f"{describe(endpoint)} refuses {operations[0].action}: {error.message}"
            return {operations[0].id: AgentFailed(message, code=error.code)}
        outcomes: dict[str, Outcome] = {}
        for operation in operations:
            outcomes.update(await self._post(endpoint, [operation]))
        return outcomes

    def _mailbox(self, endpoint: Endpoint) -> Mailbox:
        if endpoint not in self._mailboxes:
            if len(self._mailboxes) >= _MANY_MAILBOXES:
                self._mailboxes = {e: m for e, m in self._mailboxes.items() if not m.idle}
            self._mailboxes[endpoint] = Mailbox(
                partial(self._post, endpoint),
                batch=self._limits.batch,
                window=self._limits.batch_window,
                capacity=self._limits.waiting_per_agent,
            )
        return self._mailboxes[endpoint]

    def _finish(self, work: _Work, reply: OperationReply) -> None:
        work.reply = reply
        work.ended.set()
        CALLS.labels(work.action, reply.state.lower()).inc()
        OPERATION_SECONDS.labels(work.action).observe(self._now() - work.since)

    def _remember(self, key: tuple[str, str], work: _Work) -> None:
        self._known[key] = work
        self._known.move_to_end(key)
        while len(self._known) > self._limits.remembered:
            self._known.popitem(last=False)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _jittered(self, seconds: float) -> float:
        return random.uniform(0.75 * seconds, 1.25 * seconds)  # noqa: S311


def _parsed(endpoint: Endpoint, what: str, answer: Answer, model: type[W]) -> W:
    """The answer's body. Raises AgentUnreachable, or Transient if we are fenced off."""
    if answer.status not in (200, 202):
        raise _refused(endpoint, what, answer)
    try:
        return model.model_validate_json(answer.body)
    except ValidationError as error:
        raise _mismatch(endpoint, error) from None


def _refused(endpoint: Endpoint, what: str, answer: Answer) -> Transient:
    error = _error(answer)
    if answer.status == 409 and error.code == "fenced":
        return Transient(
            f"{describe(endpoint)} takes no more orders under our ring generation: "
            f"{error.message}; another controller has taken over, this one must read the ring anew",
            reason="Fenced",
        )
    if answer.status in (401, 403):
        return AgentUnreachable(
            f"{describe(endpoint)} does not accept our certificate: {error.message}"
        )
    if answer.status == 404:
        return AgentUnreachable(
            f"at {endpoint.address}:{endpoint.port} no agent is called {endpoint.name} "
            f"({endpoint.role}): {error.message}"
        )
    return AgentUnreachable(
        f"{describe(endpoint)} answered {what} with HTTP {answer.status}: {error.message}"
    )


def _error(answer: Answer) -> Error:
    try:
        return Error.model_validate_json(answer.body)
    except ValidationError:
        text = answer.body[:200].decode(errors="replace").strip()
        return Error(code="internal", message=text or "no further word")


def _mismatch(endpoint: Endpoint, error: ValidationError) -> AgentUnreachable:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return AgentUnreachable(
        f"{describe(endpoint)} answers what we cannot read ({where}: {first['msg']}); "
        "is it of another version? Upgrade the older of the two",
        reason="AgentMismatch",
    )
