"""The base of every Kumulus kind.

A kind is a pydantic model. From it come the CRD (``crds.schema``), the references
(``crds.refs``) and what the controllers read. Python names are snake_case, the wire is
camelCase. Nothing in here knows of controllers, agents or any API client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

GROUP = "kumulus.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FINALIZER = f"{GROUP}/cascade"

SUFFIXES = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
QUANTITY_MAX_LENGTH = 24
_QUANTITY = re.compile(r"(?P<digits>[0-9]+(?:\.[0-9]+)?)(?P<suffix>[kMGTPE]|[KMGTPE]i|)\Z")


def parse_quantity(value: object) -> int:
    """Bytes of a Kubernetes quantity: ``512Mi``, ``2G``, ``1.5Gi`` or a plain integer.

    Exact: a fraction of a byte is dropped, nothing else. ValueError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _QUANTITY.match(value) if isinstance(value, str) else None
    if found is None or len(found[0]) > QUANTITY_MAX_LENGTH:
        raise ValueError(f"{value!r} is no quantity; write bytes as 512Mi, 10Gi or 1000000")
    return int(Fraction(found["digits"]) * SUFFIXES[found["suffix"]])


def format_quantity(size: int) -> str:
    """The shortest binary quantity that a person reads easily: 8589934592 → ``8Gi``."""
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        scaled = size / SUFFIXES[suffix]
        if scaled >= 1:
            return f"{scaled:.1f}".rstrip("0").rstrip(".") + suffix
    return str(size)


class FieldErrors(ValueError):
    """What a model's own validator found wrong, field by field.

    ``problems``: (path below the model in camelCase such as ``ranges[0].start``, what is wrong).
    """

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{path}: {text}" for path, text in self.problems))

    @classmethod
    def raise_any(cls, problems: Iterable[tuple[str, str]]) -> None:
        """Raise if there is a problem at all."""
        found = cls(problems)
        if found.problems:
            raise found


class Model(BaseModel):
    """Any part of an object. Unknown fields are dropped, as the API server prunes them."""

    RULES: ClassVar[tuple[Rule, ...]] = ()
    """CEL rules on this object, beside those that Immutable marks yield."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", validate_default=False
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = handler.resolve_ref_schema(handler(schema))
        if cls.RULES:
            found[RULES_KEY] = [vars(rule) for rule in cls.RULES]
        return found

    def wire(self) -> dict[str, Any]:
        """This model as the API server stores it: camelCase, no nulls."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


Quantity = Annotated[
    int,
    BeforeValidator(parse_quantity),
    Field(ge=0),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "pattern": QUANTITY_PATTERN,
            "maxLength": QUANTITY_MAX_LENGTH,
        }
    ),
]
"""Bytes. Written as a Kubernetes quantity, int-or-string in the schema."""


def _to_utc(moment: datetime) -> datetime:
    """In UTC; a time without a zone is taken as UTC, as Kubernetes writes it."""
    try:
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return aware.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside the years 1 to 9999") from None


def _rfc3339(moment: datetime) -> str:
    return _to_utc(moment).isoformat(timespec="seconds").replace("+00:00", "Z")


Timestamp = Annotated[
    datetime, AfterValidator(_to_utc), PlainSerializer(_rfc3339, when_used="json")
]
"""RFC 3339 in UTC, whole seconds, as ``metav1.Time``."""

_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_DOTTED = rf"({_OCTET}\.){{3}}{_OCTET}"
IPv4 = Annotated[str, Field(pattern=rf"^{_DOTTED}$", max_length=15)]
"""An IPv4 address, dotted."""

IPv4Subnet = Annotated[str, Field(pattern=rf"^{_DOTTED}/([89]|[12][0-9]|30)$", max_length=18)]
"""An IPv4 subnet from /8 to /30, so that there is room for a gateway and a guest."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
Duration = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}[smhd]$", max_length=7)]
"""A length of time: a number and its unit, s, m, h or d."""


def duration_seconds(text: str) -> int:
    """Seconds of a Duration."""
    return int(text[:-1]) * _UNITS[text[-1]]


NameStr = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
]
"""The name of an object: a DNS subdomain, as Kubernetes has it."""

RULES_KEY = "x-kumulus-rules"
IMMUTABLE_KEY = "x-kumulus-immutable"
"""Where the models' JSON schema carries our marks to ``crds.schema``, which resolves them."""


Switch = Annotated[
    Literal["Enabled", "Disabled"],
    Field(description="Disabled: nothing new uses it; what does goes on."),
]
"""The state that a user gives to what others use."""

Connection = Annotated[
    Literal["", "Connecting", "Connected", "Disconnected"],
    Field(description="Whether its agents answer."),
]


@dataclass(frozen=True)
class Immutable:
    """Marks a field that may be set once: the CRD refuses a change with ``why`` (CEL).

    With ``once`` an absent value may still be set later; a set one never changes.
    """

    why: str
    once: bool = False

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), IMMUTABLE_KEY: vars(self)}


@dataclass(frozen=True)
class ListMap:
    """Marks a list of objects as a map by ``key``: no two items have the same value there.

    Server-side apply then merges it item by item, and CEL can compare an item with its old self.
    """

    key: str

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._unique, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        marks = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.key]}
        return {**handler(schema), **marks}

    def _unique(self, items: list[Any]) -> list[Any]:
        keys = [getattr(item, self.key) for item in items]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"{self.key} {twice[0]!r} is given twice")
        return items


@dataclass(frozen=True)
class Rule:
    """One CEL rule (``x-kubernetes-validations``) on the object that declares it in ``RULES``."""

    rule: str
    message: str
    field_path: str | None = None


@dataclass(frozen=True)
class Column:
    """A printer column. ``priority`` 0 is shown always, 1 with ``-o wide``."""

    name: str
    path: str
    type: Literal["string", "integer", "date", "boolean"] = "string"
    priority: int = 0


@dataclass(frozen=True)
class KindInfo:
    """What the CRD says of a kind beside its schema."""

    plural: str
    singular: str
    short_names: tuple[str, ...] = ()
    namespaced: bool = False
    columns: tuple[Column, ...] = ()
    max_name: int = 63
    """Longest ``metadata.name``: names become DNS labels, and prefixes of other names."""

    @property
    def names(self) -> frozenset[str]:
        """What the kind is called in URLs and on command lines."""
        return frozenset((self.plural, self.singular, *self.short_names))


class OwnerReference(Model):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Model):
    """The part of Kubernetes' ObjectMeta that controllers read."""

    name: str = ""
    namespace: str | None = None
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: Timestamp | None = None
    deletion_timestamp: Timestamp | None = None
    finalizers: list[str] = []
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[OwnerReference] = []


class Condition(Model):
    """A metav1.Condition; ``type`` is one of Ready, Reconciling, Stalled (kstatus)."""

    type: Annotated[str, Field(max_length=316, description="Ready, Reconciling or Stalled.")]
    status: Literal["True", "False", "Unknown"] = Field(description="Does it hold?")
    reason: Annotated[str, Field(max_length=1024, description="Why, in one CamelCase word.")]
    message: Annotated[str, Field(max_length=32768, description="Why, and what helps.")] = ""
    observed_generation: int | None = Field(
        default=None, description="The spec's generation that this is about."
    )
    last_transition_time: Timestamp | None = Field(
        default=None, description="When status changed last."
    )


class WorkflowFailure(Model):
    """Why a flow was, or is being, rolled back."""

    step: str = Field(description="The step that failed.")
    reason: str = Field(description="Why, in one CamelCase word.")
    message: str = Field(description="Why, and what helps.")


class WorkflowBranch(Model):
    """Where one branch of a parallel group is."""

    step: str = Field(description="The step that is at work.")
    done: bool = Field(default=False, description="All of its steps are done.")
    retries: int = Field(default=0, description="How often the step was tried again.")
    step_started_at: Timestamp | None = Field(default=None, description="When the step began.")


class WorkflowStatus(Model):
    """Where a running flow is. Absent when no flow runs."""

    name: str = Field(description="The flow.")
    run_id: str = Field(description="Names this run; agents' operations are keyed by it.")
    phase: Literal["Running", "RollingBack", "RolledBack"] = Field(
        default="Running", description="Which way it goes."
    )
    step: str = Field(default="", description="The step that is at work.")
    furthest: str = Field(
        default="",
        description="A step after this one that may have run before a restart; rollback starts "
        "there.",
    )
    progress: str = Field(default="", description="For people: step 3 of 9.")
    retries: int = Field(default=0, description="How often the step was tried again.")
    generation: int = Field(default=0, description="The spec's generation that the run serves.")
    started_at: Timestamp | None = Field(default=None, description="When the run began.")
    step_started_at: Timestamp | None = Field(
        default=None, description="When the step began; its timeout counts from here."
    )
    branches: list[WorkflowBranch] = Field(
        default=[], description="In a parallel group, which begins with the step: where each is."
    )
    skipped: list[str] = Field(
        default=[], description="Steps that this run leaves out: their condition did not hold."
    )
    inputs: list[str] = Field(
        default=[],
        description="Digests of the fields that the run depends on; if one changes, the run is "
        "cancelled.",
    )
    failure: WorkflowFailure | None = None


class BaseStatus(Model):
    """What every status has. ``state`` is ZStack's, a subclass narrows it to its states."""

    observed_generation: int = Field(
        default=0, description="The spec's generation that this status is about."
    )
    state: str = Field(default="", description="Where it is in its life.")
    conditions: Annotated[
        list[Condition],
        Field(max_length=16, description="Ready, Reconciling and Stalled, as kstatus has them."),
        ListMap("type"),
    ] = []
    last_operation_time: Timestamp | None = Field(
        default=None, description="When this status changed last."
    )
    workflow: WorkflowStatus | None = None


COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "gray")
_COLOR = rf"^(#[0-9a-fA-F]{{6}}|{'|'.join(COLORS)})$"


class UserTag(Model):
    """Free text with a colour, to be found by."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^\S(.*\S)?$")] = Field(
        description="Any text; unique in the object."
    )
    color: Annotated[str, Field(pattern=_COLOR, max_length=7)] | None = Field(
        default=None, description=f"#rrggbb, or one of {', '.join(COLORS)}."
    )


class BaseSpec(Model):
    description: Annotated[str, Field(max_length=2048)] | None = Field(
        default=None, description="Free text for people."
    )
    deletion_policy: Annotated[
        Literal["Direct", "Protect"],
        Field(description="Protect: it is not deleted, nor is what it would be deleted with."),
    ] = "Direct"
    tags: Annotated[
        list[UserTag], Field(max_length=64, description="For people."), ListMap("name")
    ] = []
    system_tags: Annotated[
        list[Annotated[str, Field(max_length=320, pattern=r"^[a-zA-Z][a-zA-Z0-9]{0,62}(::.+)?$")]],
        Field(max_length=32, description="Typed: name::value. `kumulus tags` lists them."),
    ] = []


class RecoverableSpec(BaseSpec):
    """Of kinds that can be kept for a while after their deletion (``trash_item``)."""

    deletion_policy: Annotated[
        Literal["Direct", "Delay", "Protect"],
        Field(
            description="Delay: its data are kept in a TrashItem for deletionRetention, for "
            "`kumulus recover`. Protect: it is not deleted, nor is what it would be deleted with."
        ),
    ] = "Direct"  # type: ignore[assignment]
    deletion_retention: Duration | None = Field(
        default=None, description="How long Delay keeps it: 12h, 7d. Absent: 7d for VMs, else 3d."
    )


class Resource(Model):
    """A custom resource of ours. Subclasses set INFO, spec and status."""

    INFO: ClassVar[KindInfo]

    api_version: str = API_VERSION
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    spec: Any
    status: Any

    @property
    def uid(self) -> str:
        return self.metadata.uid

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def deleting(self) -> bool:
        return self.metadata.deletion_timestamp is not None

    def condition(self, kind: str) -> Condition | None:
        """The condition of this type, or None."""
        conditions: list[Condition] = self.status.conditions
        return next((c for c in conditions if c.type == kind), None)

    @property
    def ready(self) -> bool:
        """Ready=True for the spec as it is now."""
        found = self.condition("Ready")
        return (
            found is not None
            and found.status == "True"
            and found.observed_generation == self.metadata.generation
        )
