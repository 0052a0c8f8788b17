"""What a client sends and what it wants back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from controller.apiserver import errors

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
MEDIA_TYPES = (JSON, YAML, PROTOBUF)

Form = Literal["object", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"]
_FORMS = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")


@dataclass(frozen=True)
class Accepted:
    """How an answer is to look: its media type and its form."""

    media: str = JSON
    form: Form = "object"


def accepted(header: str) -> Accepted:
    """The first of the client's wishes that can be fulfilled. Raises ApiError (406).

    Protobuf is never sent: every client that asks for it also takes JSON.
    """
    if not header:
        return Accepted()
    for media, parameters in _ranges(header):
        if media in ("*/*", "application/*"):
            return Accepted()
        if media not in (JSON, YAML):
            continue
        form = parameters.get("as", "")
        if not form:
            return Accepted(media)
        good = parameters.get("g") == "meta.k8s.io" and parameters.get("v") in ("v1", "v1beta1")
        if form in _FORMS and good:
            return Accepted(media, form)  # type: ignore[arg-type]
    raise errors.not_acceptable(MEDIA_TYPES)


def wants_aggregated(header: str) -> bool:
    """Whether discovery is asked for in its aggregated form (v2)."""
    for media, parameters in _ranges(header):
        if media == JSON and parameters.get("as") == "APIGroupDiscoveryList":
            if parameters.get("g") == "apidiscovery.k8s.io" and parameters.get("v") == "v2":
                return True
        elif media in (JSON, "*/*"):
            return False
    return False


def _ranges(header: str) -> list[tuple[str, dict[str, str]]]:
    found = []
    for part in header.split(","):
        media, *rest = (piece.strip() for piece in part.split(";"))
        parameters = dict(item.split("=", 1) for item in rest if "=" in item)
        found.append((media.lower(), parameters))
    return found


def media_type(header: str) -> str:
    """A Content-Type without its parameters; JSON if there is none."""
    return header.split(";", 1)[0].strip().lower() or JSON
