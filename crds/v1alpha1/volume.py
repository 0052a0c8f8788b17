"""Volume: a disk, on the primary storage of the host where its VM runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crds.base import (
    BaseStatus,
    Column,
    Immutable,
    KindInfo,
    Quantity,
    RecoverableSpec,
    Resource,
    Rule,
)
from crds.refs import ObjectRef, Ref


class VolumeSpec(RecoverableSpec):
    RULES = (
        Rule(
            "has(self.size) || has(self.diskOfferingRef) || has(self.imageRef)",
            "give a size, a diskOfferingRef or an imageRef",
        ),
    )
    type: Annotated[
        Literal["Root", "Data"],
        Field(description="Root: a VM boots from it. Data: any VM can take it."),
        Immutable("create another volume"),
    ] = "Data"
    primary_storage_ref: (
        Annotated[
            ObjectRef,
            Ref("PrimaryStorage", on_delete="cascade"),
            Immutable("the data would have to move; create another volume", once=True),
        ]
        | None
    ) = Field(default=None, description="Absent: chosen with the host.")
    disk_offering_ref: (
        Annotated[
            ObjectRef,
            Ref("DiskOffering", on_delete="keep"),
            Immutable("create another volume", once=True),
        ]
        | None
    ) = None
    image_ref: (
        Annotated[
            ObjectRef, Ref("Image", on_delete="keep"), Immutable("create another volume", once=True)
        ]
        | None
    ) = Field(default=None, description="Filled from this image.")
    size: (
        Annotated[
            Quantity, Immutable("a volume cannot be resized yet; create another volume", once=True)
        ]
        | None
    ) = Field(default=None, description="Absent: the offering's or image's.")
    host_ref: (
        Annotated[
            ObjectRef,
            Ref("Host", on_delete="keep", wait=False),
            Immutable("a local volume cannot move", once=True),
        ]
        | None
    ) = Field(
        default=None,
        description="The host whose disk holds it. Set when it is first attached (as a "
        "PersistentVolume's claim is), or by a user to choose the host.",
    )


class VolumeStatus(BaseStatus):
    state: Literal[
        "", "NotInstantiated", "Creating", "Ready", "Deleting", "Error", "Unavailable"
    ] = ""
    size: str = Field(default="", description="A quantity.")
    bytes: int = Field(default=0, description="The size that the guest sees.")
    path: str = Field(default="", description="On the host.")
    format: str = Field(default="", description="Of the file.")
    image_uid: str = Field(default="", description="Of the image that it is based on.")
    host_ref: Annotated[ObjectRef, Ref("Host", on_delete="stop")] | None = Field(
        default=None, description="The host whose disk holds the data now."
    )
    vm_ref: Annotated[ObjectRef, Ref("VirtualMachine", on_delete="keep")] | None = Field(
        default=None, description="The VM that it is attached to."
    )


class Volume(Resource):
    """A disk."""

    INFO = KindInfo(
        plural="volumes",
        singular="volume",
        short_names=("vol",),
        namespaced=True,
        columns=(
            Column("State", ".status.state"),
            Column("Type", ".spec.type"),
            Column("Size", ".status.size"),
            Column("VM", ".status.vmRef.name"),
            Column("Storage", ".spec.primaryStorageRef.name", priority=1),
            Column("Host", ".spec.hostRef.name", priority=1),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    kind: str = "Volume"
    spec: VolumeSpec
    status: VolumeStatus = VolumeStatus()
