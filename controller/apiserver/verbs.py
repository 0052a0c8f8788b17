"""One method a verb: from a request's parts to an answer's bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from controller.apiserver import (
    applying,
    decoding,
    errors,
    listing,
    negotiate,
    options,
    patches,
    protobuf,
    scale,
    strategic,
    tables,
    yaml_bodies,
)
from controller.apiserver.access.reviews import Asked, Reviews
from controller.apiserver.admission import User
from controller.apiserver.catalog import Resource
from controller.apiserver.decoding import FieldValidation
from controller.apiserver.errors import ApiError
from controller.apiserver.negotiate import Accepted
from controller.apiserver.registry import Registry
from controller.apiserver.store import Store
from controller.apiserver.store.bodies import SLICE
from controller.apiserver.streams import Watch
from controller.apiserver.writes import Mutate, WriteOptions

Wire = dict[str, Any]
_CUSTOM_PATCHES = (patches.JSON_PATCH, patches.MERGE_PATCH)
_BUILTIN_PATCHES = (*_CUSTOM_PATCHES, patches.STRATEGIC_PATCH)


@dataclass(frozen=True)
class Call:
    """A request for a resource, taken apart."""

    resource: Resource
    namespace: str
    name: str
    subresource: str
    query: Mapping[str, str]
    user: User
    accepted: Accepted
    agent: str = ""


@dataclass(frozen=True)
class Answer:
    """``body`` is JSON; ``media`` is what it is to be sent as. ``pieces``: instead of a body, one
    that is made while it is sent (Forgotten: it cannot be made any more)."""

    body: bytes
    code: int = 200
    warnings: Sequence[str] = ()
    media: str = negotiate.JSON
    pieces: AsyncGenerator[bytes, None] | None = None


class Verbs:
    """The verbs of all resources. Everything refused raises ApiError."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry

    # Reading

    async def get(self, call: Call) -> Answer:
        wanted = options.version_of(call.query)
        if wanted is not None and wanted > self._store.version:
            raise errors.too_large_version(wanted, self._store.version)
        entry = self._registry.get(call.resource, call.namespace, call.name)
        if call.subresource == "scale":
            wire = decoding.present_wire(call.resource, entry.object())
            return self._one(call, orjson.dumps(scale.of(call.resource, wire)))
        return self._one(call, decoding.present(call.resource, entry.body))

    async def list(self, call: Call) -> Answer:
        wanted = options.list_options(call.resource, call.namespace, call.query)
        page = await listing.list_page(self._store, call.resource, wanted)
        metadata: Wire = {"resourceVersion": str(page.version)}
        if page.token:
            metadata["continue"] = page.token
        if page.remaining:
            metadata["remainingItemCount"] = page.remaining
        if wanted.selection.shards is not None:
            metadata["shardInfo"] = {"selector": wanted.selection.shards.text}
        if len(page.entries) > SLICE and call.accepted == Accepted():
            return Answer(
                b"", pieces=listing.pieces(self._store, call.resource, metadata, page.entries)
            )
        bodies = [
            decoding.present(call.resource, body)
            for body in await listing.bodies(self._store, page.entries)
        ]
        return Answer(self._collection(call, metadata, bodies), media=call.accepted.media)

    def _collection(self, call: Call, metadata: Wire, bodies: Sequence[bytes]) -> bytes:
        form = call.accepted.form
        if form == "Table":
            items = map(orjson.loads, bodies)
            return orjson.dumps(tables.table(call.resource, metadata, items, _include(call)))
        if form != "object":
            return orjson.dumps(tables.partial_list(metadata, map(orjson.loads, bodies)))
        return listing.whole(call.resource, metadata, bodies)

    def watch(self, call: Call) -> Watch:
        wanted = options.watch_options(call.resource, call.namespace, call.query)
        return Watch(self._store, call.resource, wanted, _renderer(call))

    def _one(
        self, call: Call, body: bytes, code: int = 200, warnings: Sequence[str] = ()
    ) -> Answer:
        form = call.accepted.form
        if form == "Table":
            wire = orjson.loads(body)
            metadata = {"resourceVersion": wire["metadata"].get("resourceVersion", "")}
            shown = scale.RESOURCE if call.subresource == "scale" else call.resource
            body = orjson.dumps(tables.table(shown, metadata, [wire], _include(call)))
        elif form != "object":
            body = orjson.dumps(tables.partial(orjson.loads(body)))
        return Answer(body, code, warnings, call.accepted.media)

    # Writing

    async def create(self, call: Call, body: bytes, media: str) -> Answer:
        if call.name:
            raise errors.method_not_allowed()
        wanted = options.write_options(call.query, call.user, "CreateOptions", call.agent)
        decoded = _decode(call.resource, body, media, wanted.validation)
        with errors.warned(decoded.oddities):
            outcome = await self._registry.create(
                call.resource, call.namespace, decoded.wire, wanted
            )
        return self._one(call, outcome.body, 201, [*decoded.oddities, *wanted.warnings])

    async def review(
        self, call: Call, body: bytes, media: str, form: Resource, reviews: Reviews
    ) -> Answer:
        """A question that is answered and not stored; it comes as a ``form``."""
        wanted = options.write_options(call.query, call.user, "CreateOptions", call.agent)
        decoded = _decode(form, body, media, wanted.validation)
        asked = Asked(call.user, call.namespace, call.name, decoded.wire)
        found = reviews.answer(call.resource, call.subresource, asked)
        return Answer(decoding.encode(found), 201, decoded.oddities, media=call.accepted.media)

    async def update(self, call: Call, body: bytes, media: str) -> Answer:
        if not call.name:
            raise errors.bad_request("name must be provided")
        if call.subresource == "scale":
            return await self._update_scale(call, body, media)
        wanted = options.write_options(call.query, call.user, "UpdateOptions", call.agent)
        decoded = _decode(call.resource, body, media, wanted.validation)
        given = decoded.wire["metadata"]
        version = given.get("resourceVersion")

        def mutate(old: Wire) -> Wire:
            _check_uid(call, given, old)
            # Anew at each try: the registry fills it in.
            wire = {**decoded.wire, "metadata": dict(given)}
            if version:
                wire["metadata"]["resourceVersion"] = version
            return wire

        with errors.warned(decoded.oddities):
            outcome = await self._registry.update(
                call.resource, call.namespace, call.name, mutate, wanted,
                subresource=call.subresource, conditional=call.resource.custom,
            )  # fmt: skip
        return self._one(call, outcome.body, warnings=[*decoded.oddities, *wanted.warnings])

    async def patch(self, call: Call, body: bytes, media: str) -> Answer:
        if not call.name:
            raise errors.method_not_allowed()
        if media == patches.APPLY_PATCH:
            return await self._apply(call, body)
        accepted = _CUSTOM_PATCHES if call.resource.custom else _BUILTIN_PATCHES
        if media not in accepted:
            raise errors.unsupported_media((*accepted, patches.APPLY_PATCH))
        wanted = options.write_options(call.query, call.user, "PatchOptions", call.agent)
        patch = self._parse_patch(call, body)
        if call.subresource == "scale":
            return await self._patch_scale(call, media, patch, wanted)
        warnings: list[str] = []

        def mutate(wire: Wire) -> Wire:
            new = _apply(call.resource, media, wire, patch)
            decoding.check_patched_type(call.resource, new)
            oddities = decoding.shape(call.resource, new)
            warnings[:] = oddities if wanted.validation == "Warn" else []
            if wanted.validation == "Strict" and oddities:
                raise _strict(new, oddities)
            return new

        with errors.warned(warnings):
            outcome = await self._registry.update(
                call.resource, call.namespace, call.name, mutate, wanted,
                subresource=call.subresource, conditional=call.resource.custom,
            )  # fmt: skip
        return self._one(call, outcome.body, warnings=[*warnings, *wanted.warnings])

    def _parse_patch(self, call: Call, body: bytes) -> Any:
        try:
            return _parse_patch(body)
        except ApiError:
            self._registry.get(call.resource, call.namespace, call.name)  # 404 comes first
            raise

    async def _update_scale(self, call: Call, body: bytes, media: str) -> Answer:
        wanted = options.write_options(call.query, call.user, "UpdateOptions", call.agent)
        decoded = _decode(scale.RESOURCE, body, media, wanted.validation)

        def mutate(wire: Wire) -> Wire:
            return scale.applied(call.resource, wire, decoded.wire)

        return await self._write_scale(call, mutate, wanted, decoded.oddities)

    async def _patch_scale(
        self, call: Call, media: str, patch: Any, wanted: WriteOptions
    ) -> Answer:
        oddities: list[str] = []

        def mutate(wire: Wire) -> Wire:
            patched = _apply(scale.RESOURCE, media, scale.lenient(call.resource, wire), patch)
            given = orjson.dumps(patched)
            try:
                decoded = decoding.decode(scale.RESOURCE, given, "Warn")
            except ApiError as error:
                raise errors.bad_patch(given, error.message) from None
            oddities[:] = decoded.oddities
            if wanted.validation == "Strict" and oddities:
                raise errors.bad_patch(given, "strict decoding error: " + ", ".join(oddities))
            return scale.applied(call.resource, wire, decoded.wire)

        return await self._write_scale(call, mutate, wanted, oddities)

    async def _write_scale(
        self, call: Call, mutate: Mutate, wanted: WriteOptions, oddities: Sequence[str]
    ) -> Answer:
        outcome = await self._registry.update(
            call.resource, call.namespace, call.name, mutate, wanted, subresource="scale"
        )
        found = scale.of(call.resource, orjson.loads(outcome.body))
        warnings = oddities if wanted.validation == "Warn" else []
        return self._one(call, orjson.dumps(found), warnings=warnings)

    async def _apply(self, call: Call, body: bytes) -> Answer:
        wanted = options.write_options(
            call.query, call.user, "PatchOptions", call.agent, apply=True
        )
        config, oddities = applying.parse(body, wanted.validation)
        target = applying.Target(call.resource, call.namespace, call.name, call.subresource)
        force = options.is_true(call.query, "force")
        outcome = await applying.apply(self._registry, target, config, wanted, force)
        return self._one(call, outcome.body, 201 if outcome.created else 200, oddities)

    async def delete(self, call: Call, body: bytes, media: str) -> Answer:
        if call.subresource:
            raise errors.method_not_allowed()
        given = _delete_body(body, media)
        delete, write = options.delete_options({} if body else call.query, given, call.user)
        outcome = await self._registry.delete(
            call.resource, call.namespace, call.name, delete, write
        )
        if not outcome.deleted:
            return self._one(call, outcome.body, warnings=write.warnings)
        metadata = outcome.metadata
        details = {
            "name": metadata["name"],
            "group": call.resource.group,
            "kind": call.resource.plural,
            "uid": metadata["uid"],
        }
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {key: value for key, value in details.items() if value},
        }
        return Answer(orjson.dumps(status), 200, write.warnings, call.accepted.media)

    async def delete_collection(self, call: Call, body: bytes, media: str) -> Answer:
        given = _delete_body(body, media)
        wanted = options.list_options(call.resource, call.namespace, call.query)
        delete, write = options.delete_options({} if body else call.query, given, call.user)
        page = await listing.list_page(self._store, call.resource, wanted)
        bodies = []
        for stored in await listing.bodies(self._store, page.entries):
            body = decoding.present(call.resource, stored)
            metadata = orjson.loads(body)["metadata"]
            try:
                await self._registry.delete(
                    call.resource, metadata.get("namespace", ""), metadata["name"], delete, write
                )
            except ApiError as error:
                if error.code != 404:
                    raise
            bodies.append(body)
        head = {"resourceVersion": str(page.version)}
        return Answer(self._collection(call, head, bodies), media=call.accepted.media)


def _check_uid(call: Call, given: Wire, old: Wire) -> None:
    """A PUT that names a uid is about that object alone."""
    uid, real = given.get("uid"), old["metadata"]["uid"]
    if uid and uid != real:
        raise errors.conflict(
            call.resource.group, call.resource.plural, call.name,
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {real}",
        )  # fmt: skip


def _include(call: Call) -> str:
    return call.query.get("includeObject") or "Metadata"


def _renderer(call: Call) -> Any:
    form = call.accepted.form
    if form == "object":
        return None
    if form != "Table":
        return tables.partial
    first = [True]

    def render(wire: Wire) -> Wire:
        headers, first[0] = first[0], False
        metadata = {"resourceVersion": wire["metadata"].get("resourceVersion", "")}
        return tables.table(call.resource, metadata, [wire], _include(call), headers)

    return render


def _decode(
    resource: Resource, body: bytes, media: str, validation: FieldValidation
) -> decoding.Decoded:
    doubled: list[str] = []
    if media == negotiate.PROTOBUF and resource.custom is False:
        body = protobuf.to_json(resource, body)
    elif media == negotiate.YAML:
        body, doubled = yaml_bodies.to_json(body)
    elif media != negotiate.JSON:
        raise errors.unsupported_media(negotiate.MEDIA_TYPES)
    return decoding.decode(resource, body, validation, doubled)


def _parse_patch(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        why = "unexpected end of JSON input" if error.pos >= len(body) else str(error)
        raise errors.bad_request(f"error decoding patch: {why}") from None


def _apply(resource: Resource, media: str, wire: Wire, patch: Any) -> Wire:
    if media == patches.JSON_PATCH:
        return patches.apply_json_patch(wire, patches.parse_json_patch(patch))
    document = patches.parse_merge(patch)
    if media == patches.STRATEGIC_PATCH:
        return strategic.merge(wire, document, resource.schema.raw)
    found: Wire = patches.merge(wire, document)
    return found


def _strict(new: Wire, oddities: list[str]) -> ApiError:
    return errors.bad_patch(orjson.dumps(new), "strict decoding error: " + ", ".join(oddities))


def _delete_body(body: bytes, media: str) -> Wire:
    if not body:
        return {}
    if media == negotiate.PROTOBUF:
        return protobuf.delete_options(body)
    if media == negotiate.YAML:
        body, _ = yaml_bodies.to_json(body)
    elif media != negotiate.JSON:
        raise errors.unsupported_media(negotiate.MEDIA_TYPES)
    return decoding.parse(body, "DeleteOptions")
