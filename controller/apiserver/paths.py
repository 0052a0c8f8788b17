"""What a request's path is about."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ResourcePath:
    """``/api/v1/…`` and ``/apis/group/version/…`` beyond discovery."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse_resource_path(path: str) -> ResourcePath | None:
    """None if the path is of no resource. Parts come decoded."""
    parts = path.strip("/").split("/")
    if len(parts) >= 3 and parts[0] == "api" and parts[1] == "v1":
        return _parse("", "v1", parts[2:])
    if len(parts) >= 4 and parts[0] == "apis":
        return _parse(parts[1], parts[2], parts[3:])
    return None


def _parse(group: str, version: str, rest: list[str]) -> ResourcePath | None:
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and not _of_namespace(group, rest):
        namespace, rest = rest[1], rest[2:]
    if not all(rest) or len(rest) > 3:
        return None
    return ResourcePath(group, version, rest[0], namespace, *rest[1:])


def _of_namespace(group: str, rest: list[str]) -> bool:
    """``/api/v1/namespaces/{name}/status`` is about the namespace itself."""
    return not group and len(rest) == 3 and rest[2] in ("status", "finalize")
