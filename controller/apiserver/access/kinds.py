"""The kinds of RBAC, of reviews and of tokens: schemas (with protobuf numbers), columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.apiserver import tables
from controller.apiserver.access.rbac import GROUP
from controller.apiserver.builtin_schemas import OBJECT_META
from controller.apiserver.catalog import Column, Resource
from controller.apiserver.schema.structural import compile_schema

Schema = dict[str, Any]
AUTHENTICATION = "authentication.k8s.io"
AUTHORIZATION = "authorization.k8s.io"
STRING: Schema = {"type": "string"}
INT32: Schema = {"type": "integer", "format": "int32"}
INT64: Schema = {"type": "integer", "format": "int64"}
BOOLEAN: Schema = {"type": "boolean"}
STRINGS: Schema = {"type": "array", "items": STRING}
TIME: Schema = {"type": "string", "format": "date-time", "x-time": 0, "nullable": True}


def numbered(description: str, required: tuple[str, ...] = (), /, **fields: Schema) -> Schema:
    """An object whose fields are numbered in order; a field may bring its own ``x-number``."""
    properties = {
        name: schema if "x-number" in schema else {**schema, "x-number": number}
        for number, (name, schema) in enumerate(fields.items(), 1)
    }
    found: Schema = {"type": "object", "description": description, "properties": properties}
    if required:
        found["required"] = list(required)
    return found


def at(number: int, schema: Schema, description: str = "") -> Schema:
    found = {**schema, "x-number": number}
    return {**found, "description": description} if description else found


def listed(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def kind(description: str, /, **fields: Schema) -> Schema:
    """A top-level object: metadata is field 1, the others follow."""
    found = numbered(description, metadata=OBJECT_META, **fields)
    found["properties"] = {"apiVersion": STRING, "kind": STRING, **found["properties"]}
    return found


_EXTRA: Schema = {"type": "object", "additionalProperties": STRINGS}
LABEL_SELECTOR = numbered(
    "Selects by labels.",
    matchLabels={"type": "object", "additionalProperties": STRING},
    matchExpressions=listed(
        numbered("", ("key", "operator"), key=STRING, operator=STRING, values=STRINGS)
    ),
)
_RULE = numbered(
    "What may be done.", ("verbs",),
    verbs=at(1, STRINGS, "What may be done; * is everything."),
    apiGroups=at(2, STRINGS, "To kinds of these groups; the core group is empty."),
    resources=at(3, STRINGS, "To these resources, or resource/subresource."),
    resourceNames=at(4, STRINGS, "To these objects alone; none: to all."),
    nonResourceURLs=at(5, STRINGS, "To these paths."),
)  # fmt: skip
_SUBJECT = numbered(
    "Who.", ("kind", "name"), kind=STRING, apiGroup=STRING, name=STRING, namespace=STRING
)
_ROLE_REF = numbered(
    "The role; it never changes.", ("apiGroup", "kind", "name"),
    apiGroup=STRING, kind=STRING, name=STRING,
)  # fmt: skip
_ROLE = kind("Rights within a namespace.", rules=listed(_RULE))
_CLUSTER_ROLE = kind(
    "Rights in all namespaces, or to what has none.",
    rules=listed(_RULE),
    aggregationRule=numbered(
        "Collects the rules of other cluster roles.", clusterRoleSelectors=listed(LABEL_SELECTOR)
    ),
)
_ROLE_BINDING = kind("Gives rights in a namespace.", subjects=listed(_SUBJECT), roleRef=_ROLE_REF)
_CLUSTER_ROLE_BINDING = kind(
    "Gives rights everywhere.", subjects=listed(_SUBJECT), roleRef=_ROLE_REF
)

_RESOURCE_ATTRIBUTES = numbered(
    "What is to be done to an object.",
    namespace=STRING, verb=STRING, group=STRING, version=STRING, resource=STRING,
    subresource=STRING, name=STRING,
    fieldSelector={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    labelSelector={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
)  # fmt: skip
_URL_ATTRIBUTES = numbered("What is to be done to a path.", path=STRING, verb=STRING)
_ACCESS_STATUS = numbered(
    "The answer.", allowed=BOOLEAN, reason=STRING, evaluationError=STRING, denied=BOOLEAN
)
_SUBJECT_ACCESS = {
    "spec": numbered(
        "The question.",
        resourceAttributes=_RESOURCE_ATTRIBUTES,
        nonResourceAttributes=_URL_ATTRIBUTES,
        user=STRING, groups=STRINGS, extra=_EXTRA, uid=STRING,
    ),
    "status": _ACCESS_STATUS,
}  # fmt: skip
_SELF_ACCESS = {
    "spec": numbered(
        "The question.",
        resourceAttributes=_RESOURCE_ATTRIBUTES,
        nonResourceAttributes=_URL_ATTRIBUTES,
    ),
    "status": _ACCESS_STATUS,
}
_ANY: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_SELF_RULES = {
    "spec": numbered("The question.", namespace=STRING),
    "status": numbered(
        "The answer.", resourceRules=listed(_ANY), nonResourceRules=listed(_ANY),
        incomplete=BOOLEAN, evaluationError=STRING,
    ),
}  # fmt: skip
_USER_INFO = numbered("A user.", username=STRING, uid=STRING, groups=STRINGS, extra=_EXTRA)
_TOKEN_REVIEW = {
    "spec": numbered("The question.", token=STRING, audiences=STRINGS),
    "status": numbered(
        "The answer.", authenticated=BOOLEAN, user=_USER_INFO, error=STRING, audiences=STRINGS
    ),
}
_TOKEN_REQUEST = {
    "spec": numbered(
        "What is asked for.",
        audiences=at(1, STRINGS, "Whom the token is for; this server by default."),
        boundObjectRef=at(
            3, numbered("", kind=STRING, apiVersion=STRING, name=STRING, uid=STRING),
            "The token ends with this object.",
        ),
        expirationSeconds=at(4, INT64, "How long it is good."),
    ),
    "status": numbered("The token.", token=STRING, expirationTimestamp=TIME),
}  # fmt: skip


def _text(path: str) -> Any:
    return lambda wire: tables.text_at(wire, path)


_NAME = Column("Name", "string", _text("metadata.name"), format="name", description="The name.")
_CREATED = Column("Created At", "date", _text("metadata.creationTimestamp"))
_AGE = Column("Age", "string", lambda w: tables.age(w["metadata"].get("creationTimestamp")))


def _role_text(wire: Mapping[str, Any]) -> str:
    reference = wire.get("roleRef") or {}
    return f"{reference.get('kind', '')}/{reference.get('name', '')}"


def _subjects(kind_: str) -> Any:
    def cell(wire: Mapping[str, Any]) -> str:
        names = [
            f"{s['namespace']}/{s['name']}" if s.get("namespace") else s.get("name", "")
            for s in wire.get("subjects") or ()
            if s.get("kind") == kind_
        ]
        return ", ".join(names)

    return cell


_BINDING_COLUMNS = (
    _NAME,
    Column("Role", "string", _role_text),
    _AGE,
    Column("Users", "string", _subjects("User"), priority=1),
    Column("Groups", "string", _subjects("Group"), priority=1),
    Column("ServiceAccounts", "string", _subjects("ServiceAccount"), priority=1),
)


def builtin(
    group: str, kind_: str, plural: str, schema: Schema, columns: tuple[Column, ...] = (_NAME,),
    **more: Any,
) -> Resource:  # fmt: skip
    """A built-in resource in version v1."""
    defaults: dict[str, Any] = {"generations": False, "namespaced": False, "name_style": "path"}
    return Resource(
        group, "v1", kind_, plural, kind_.lower(), schema=compile_schema(schema),
        list_kind=f"{kind_}List", custom=False, columns=columns, storage=f"{group}/{plural}",
        stored_as=f"{group}/v1", **{**defaults, **more},
    )  # fmt: skip


def _review(group: str, kind_: str, schema: dict[str, Schema], **more: Any) -> Resource:
    """Something that is asked and answered, never stored."""
    described = kind("A question to the server.", **schema)
    return builtin(group, kind_, f"{kind_.lower()}s", described, verbs=("create",), **more)


def access_kinds() -> list[Resource]:
    """RBAC, and the reviews."""
    return [
        builtin(GROUP, "Role", "roles", _ROLE, (_NAME, _CREATED), namespaced=True),
        builtin(GROUP, "ClusterRole", "clusterroles", _CLUSTER_ROLE, (_NAME, _CREATED)),
        builtin(
            GROUP, "RoleBinding", "rolebindings", _ROLE_BINDING, _BINDING_COLUMNS, namespaced=True
        ),
        builtin(
            GROUP, "ClusterRoleBinding", "clusterrolebindings", _CLUSTER_ROLE_BINDING,
            _BINDING_COLUMNS,
        ),
        _review(AUTHORIZATION, "SubjectAccessReview", _SUBJECT_ACCESS),
        _review(AUTHORIZATION, "LocalSubjectAccessReview", _SUBJECT_ACCESS, namespaced=True),
        _review(AUTHORIZATION, "SelfSubjectAccessReview", _SELF_ACCESS),
        _review(AUTHORIZATION, "SelfSubjectRulesReview", _SELF_RULES),
        _review(AUTHENTICATION, "SelfSubjectReview",
                {"status": at(2, numbered("Who you are.", userInfo=_USER_INFO))}),
        _review(AUTHENTICATION, "TokenReview", _TOKEN_REVIEW),
    ]  # fmt: skip


TOKEN_REQUEST = _review(AUTHENTICATION, "TokenRequest", _TOKEN_REQUEST, namespaced=True)
"""Not in the catalog: it is only a subresource, serviceaccounts/token."""
