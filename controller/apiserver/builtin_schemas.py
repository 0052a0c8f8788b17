"""The schemas of the built-in kinds.

Each field carries its protobuf number (``x-number``), because Go clients send built-in kinds as
protobuf (``protobuf.py``).
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def _field(number: int, schema: Schema, description: str = "") -> Schema:
    found = {**schema, "x-number": number}
    if description:
        found["description"] = description
    return found


def _object(description: str = "", required: tuple[str, ...] = (), /, **fields: Schema) -> Schema:
    found: Schema = {"type": "object", "properties": fields}
    if description:
        found["description"] = description
    if required:
        found["required"] = list(required)
    return found


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _by_key(*keys: str) -> Schema:
    """Marks a list whose items are told apart by these fields."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


_STRING: Schema = {"type": "string"}
_BOOLEAN: Schema = {"type": "boolean"}
_INT32: Schema = {"type": "integer", "format": "int32"}
_INT64: Schema = {"type": "integer", "format": "int64"}
_TIME: Schema = {"type": "string", "format": "date-time", "x-time": 0, "nullable": True}
_MICRO_TIME: Schema = {"type": "string", "format": "date-time", "x-time": 6, "nullable": True}
_STRING_MAP: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_BYTES_MAP: Schema = {
    "type": "object",
    "additionalProperties": {"type": "string", "format": "byte"},
}

_OWNER = _object(
    "Names an object that owns this one; this one is deleted after it.",
    ("apiVersion", "kind", "name", "uid"),
    kind=_field(1, _STRING),
    name=_field(3, _STRING),
    uid=_field(4, _STRING),
    apiVersion=_field(5, _STRING),
    controller=_field(6, _BOOLEAN),
    blockOwnerDeletion=_field(7, _BOOLEAN),
) | {"x-kubernetes-map-type": "atomic"}
_MANAGED = _object(
    "Which fields a manager owns.",
    manager=_field(1, _STRING),
    operation=_field(2, _STRING),
    apiVersion=_field(3, _STRING),
    time=_field(4, _TIME),
    fieldsType=_field(6, _STRING),
    fieldsV1=_field(7, {"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
    subresource=_field(8, _STRING),
)
OBJECT_META = _object(
    "What every object has: its name, labels and the like.",
    name=_field(1, _STRING, "Unique in its namespace; never changes."),
    generateName=_field(2, _STRING, "A prefix for a name that the server makes."),
    namespace=_field(3, _STRING, "The namespace that the object lives in."),
    selfLink=_field(4, _STRING),
    uid=_field(5, _STRING, "Unique in time and space; set by the server."),
    resourceVersion=_field(6, _STRING, "Changes at every write; opaque."),
    generation=_field(7, _INT64, "Counts changes of the desired state."),
    creationTimestamp=_field(8, _TIME, "When the server created the object."),
    deletionTimestamp=_field(9, _TIME, "When deletion was asked for."),
    deletionGracePeriodSeconds=_field(10, _INT64),
    labels=_field(11, _STRING_MAP, "For selecting objects."),
    annotations=_field(12, _STRING_MAP, "For tools; not for selecting."),
    ownerReferences=_field(
        13,
        _list(_OWNER, **{"x-kubernetes-patch-merge-key": "uid",
                         "x-kubernetes-patch-strategy": "merge"}, **_by_key("uid")),
        "Objects that own this one.",
    ),
    finalizers=_field(
        14,
        _list(_STRING, **{"x-kubernetes-patch-strategy": "merge",
                          "x-kubernetes-list-type": "set"}),
        "Deletion waits until this list is empty.",
    ),
    managedFields=_field(17, _list(_MANAGED), "Who owns which field."),
)  # fmt: skip
_REFERENCE = _object(
    "Names another object.",
    kind=_field(1, _STRING),
    namespace=_field(2, _STRING),
    name=_field(3, _STRING),
    uid=_field(4, _STRING),
    apiVersion=_field(5, _STRING),
    resourceVersion=_field(6, _STRING),
    fieldPath=_field(7, _STRING),
) | {"x-kubernetes-map-type": "atomic"}
_SOURCE = _object("Who reported.", component=_field(1, _STRING), host=_field(2, _STRING))
_SERIES = _object(
    "A row of the same event.",
    count=_field(1, _INT32),
    lastObservedTime=_field(2, _MICRO_TIME),
)


def _kind(description: str, /, **fields: Schema) -> Schema:
    return _object(
        description, apiVersion=_STRING, kind=_STRING, metadata=_field(1, OBJECT_META), **fields
    )


NAMESPACE = _kind(
    "A namespace: a scope for names, and a tenant's project.",
    spec=_field(2, _object("Wanted.", finalizers=_field(1, _list(_STRING)))),
    status=_field(
        3,
        _object(
            "Observed.",
            phase=_field(1, _STRING, "Active or Terminating."),
            conditions=_field(
                2,
                _list(
                    {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    **_by_key("type"),
                ),
            ),
        ),
    ),
)
CONFIG_MAP = _kind(
    "Configuration for programs, as text.",
    data=_field(2, _STRING_MAP, "Text by key."),
    binaryData=_field(3, _BYTES_MAP, "Bytes by key, base64."),
    immutable=_field(4, _BOOLEAN, "If true, data cannot change."),
)
SECRET = _kind(
    "Secret data: passwords, keys, tokens.",
    data=_field(2, _BYTES_MAP, "Bytes by key, base64."),
    type=_field(3, _STRING, "What kind of secret this is; Opaque by default."),
    stringData=_field(4, _STRING_MAP, "Text by key; stored in data, never read back."),
    immutable=_field(5, _BOOLEAN, "If true, data cannot change."),
)
SERVICE_ACCOUNT = _kind(
    "An identity for programs.",
    secrets=_field(2, _list(_REFERENCE, **_by_key("name"))),
    imagePullSecrets=_field(3, _list(_object(name=_field(1, _STRING)))),
    automountServiceAccountToken=_field(4, _BOOLEAN),
)
LEASE = _kind(
    "A lease that one holder has for a time.",
    spec=_field(
        2,
        _object(
            "Who holds it, and for how long.",
            holderIdentity=_field(1, _STRING),
            leaseDurationSeconds=_field(2, _INT32),
            acquireTime=_field(3, _MICRO_TIME),
            renewTime=_field(4, _MICRO_TIME),
            leaseTransitions=_field(5, _INT32),
            strategy=_field(6, _STRING),
            preferredHolder=_field(7, _STRING),
        ),
    ),
)
CORE_EVENT = _kind(
    "Something that happened to an object.",
    involvedObject=_field(2, _REFERENCE, "The object it is about."),
    reason=_field(3, _STRING, "One word for machines."),
    message=_field(4, _STRING, "A sentence for people."),
    source=_field(5, _SOURCE),
    firstTimestamp=_field(6, _TIME),
    lastTimestamp=_field(7, _TIME),
    count=_field(8, _INT32),
    type=_field(9, _STRING, "Normal or Warning."),
    eventTime=_field(10, _MICRO_TIME),
    series=_field(11, _SERIES),
    action=_field(12, _STRING),
    related=_field(13, _REFERENCE),
    reportingComponent=_field(14, _STRING),
    reportingInstance=_field(15, _STRING),
)
EVENT = _kind(
    "Something that happened to an object.",
    eventTime=_field(2, _MICRO_TIME),
    series=_field(3, _SERIES),
    reportingController=_field(4, _STRING),
    reportingInstance=_field(5, _STRING),
    action=_field(6, _STRING),
    reason=_field(7, _STRING, "One word for machines."),
    regarding=_field(8, _REFERENCE, "The object it is about."),
    related=_field(9, _REFERENCE),
    note=_field(10, _STRING, "A sentence for people."),
    type=_field(11, _STRING, "Normal or Warning."),
    deprecatedSource=_field(12, _SOURCE),
    deprecatedFirstTimestamp=_field(13, _TIME),
    deprecatedLastTimestamp=_field(14, _TIME),
    deprecatedCount=_field(15, _INT32),
)

_OPEN: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_NAMES = _object(
    "How the resource is called.",
    ("plural", "kind"),
    plural=_STRING,
    singular=_STRING,
    shortNames=_list(_STRING),
    kind=_STRING,
    listKind=_STRING,
    categories=_list(_STRING),
)
_CRD_COLUMN = _object(
    "A column that kubectl get shows.",
    ("name", "type", "jsonPath"),
    name=_STRING,
    type=_STRING,
    format=_STRING,
    description=_STRING,
    priority=_INT32,
    jsonPath=_STRING,
)
_SCALE = _object(specReplicasPath=_STRING, statusReplicasPath=_STRING, labelSelectorPath=_STRING)
_CRD_VERSION = _object(
    "One version of the resource.",
    ("name", "served", "storage"),
    name=_STRING,
    served=_BOOLEAN,
    storage=_BOOLEAN,
    deprecated=_BOOLEAN,
    deprecationWarning=_STRING,
    schema=_object("What is valid.", openAPIV3Schema=_OPEN),
    subresources=_object(status={**_OPEN, "nullable": True}, scale=_SCALE),
    additionalPrinterColumns=_list(_CRD_COLUMN),
    selectableFields=_list(_object(jsonPath=_STRING)),
)
CRD = _kind(
    "Declares a kind of object that the server then serves.",
    spec=_object(
        "Wanted.",
        ("group", "names", "scope", "versions"),
        group=_STRING,
        names=_NAMES,
        scope=_STRING,
        versions=_list(_CRD_VERSION),
        conversion=_OPEN,
        preserveUnknownFields=_BOOLEAN,
    ),
    status=_object(
        "Observed.",
        conditions=_list(_OPEN, nullable=True, **_by_key("type")),
        acceptedNames=_NAMES,
        storedVersions=_list(_STRING),
        observedGeneration=_INT64,
    ),
)
