"""TrashItem: what a deleted VM, volume or image left behind, until it is recovered or expires.

Kubernetes cannot take a deletion back, so a deletion is not delayed: the object goes at once, and
with ``deletionPolicy: Delay`` its data and its manifest stay behind in one of these. Its name is
free for a new object meanwhile. A new object of that kind with the annotation
``kumulus.dev/recover-from: <the item>`` takes the data over (``kumulus recover`` makes one);
deleting the item deletes the data for good.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crds.base import (
    BaseSpec,
    BaseStatus,
    Column,
    Immutable,
    KindInfo,
    ListMap,
    Model,
    NameStr,
    Resource,
    Timestamp,
)
from crds.refs import ObjectRef, Ref

Uid = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Manifest = Annotated[str, Field(max_length=262144)]


class Subject(Model):
    """What was deleted."""

    kind: Literal["VirtualMachine", "Volume", "Image"] = Field(description="Its kind.")
    name: NameStr = Field(description="Its name.")
    uid: Uid = Field(description="Its UUID; agents know its data by it.")
    manifest: Manifest = Field(description="Labels, annotations and spec as they were, in JSON.")


class TrashedDisk(Model):
    """A volume whose data are kept."""

    name: NameStr = Field(description="Of the disk in its VM; of a single volume: its own.")
    volume: NameStr = Field(description="The volume's name.")
    uid: Uid = Field(description="The volume's UUID; hosts know its data by it.")
    manifest: Manifest = Field(description="The volume's labels, annotations and spec, in JSON.")
    owned: bool = Field(default=False, description="It belonged to the VM.")
    host_ref: Annotated[ObjectRef, Ref("Host", on_delete="keep", wait=False)] = Field(
        description="The host whose disk holds the data."
    )
    primary_storage_ref: Annotated[
        ObjectRef, Ref("PrimaryStorage", on_delete="cascade", wait=False)
    ] = Field(description="The storage that holds them.")
    path: Annotated[str, Field(max_length=1024)] = Field(default="", description="On the host.")
    bytes: Annotated[int, Field(ge=0)] = Field(default=0, description="Their size for a guest.")
    image_uid: Annotated[str, Field(max_length=253)] = Field(
        default="", description="Of the image that they are based on."
    )


class TrashedNic(Model):
    """The addresses that a NIC had. They are given out again; a recovered VM asks for them."""

    name: NameStr = Field(description="Of the NIC.")
    network: NameStr = Field(description="Its L3 network.")
    mac: Annotated[str, Field(max_length=17)] = Field(default="", description="Its MAC address.")
    ip: Annotated[str, Field(max_length=45)] = Field(default="", description="Its IP address.")


class TrashItemSpec(BaseSpec):
    subject: Annotated[Subject, Immutable("it says what was deleted")] = Field(
        description="What was deleted."
    )
    expires_at: Timestamp = Field(description="When the data go; set it later to keep them longer.")
    disks: Annotated[
        list[TrashedDisk],
        Field(max_length=25, description="Volumes whose data are kept, the root disk first."),
        ListMap("name"),
        Immutable("it says what was deleted"),
    ] = []
    nics: Annotated[
        list[TrashedNic],
        Field(max_length=16, description="Addresses that it had."),
        ListMap("name"),
        Immutable("it says what was deleted"),
    ] = []
    backup_storage_ref: (
        Annotated[
            ObjectRef,
            Ref("BackupStorage", on_delete="cascade", wait=False),
            Immutable("it says what was deleted", once=True),
        ]
        | None
    ) = Field(default=None, description="The storage that holds the image.")


class TrashItemStatus(BaseStatus):
    state: Literal["", "Kept", "Recovering", "Deleting"] = ""


class TrashItem(Resource):
    """What a deleted object left behind; deleting this deletes it for good."""

    INFO = KindInfo(
        plural="trashitems",
        singular="trashitem",
        short_names=("trash",),
        namespaced=True,
        columns=(
            Column("State", ".status.state"),
            Column("Kind", ".spec.subject.kind"),
            Column("Was", ".spec.subject.name"),
            Column("Expires", ".spec.expiresAt"),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
        max_name=90,
    )
    kind: str = "TrashItem"
    spec: TrashItemSpec
    status: TrashItemStatus = TrashItemStatus()
