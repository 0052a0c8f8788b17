"""Image: a template for root volumes, kept on a backup storage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crds.base import BaseStatus, Column, Immutable, KindInfo, RecoverableSpec, Resource, Switch
from crds.refs import ObjectRef, Ref


class ImageSpec(RecoverableSpec):
    backup_storage_ref: Annotated[
        ObjectRef,
        Ref("BackupStorage", on_delete="cascade"),
        Immutable("an image stays where it is"),
    ]
    url: Annotated[
        str,
        Field(
            pattern=r"^(https?|file)://", max_length=2048, description="Where the bits come from."
        ),
        Immutable("an image's bits never change; create another image"),
    ]
    checksum: (
        Annotated[
            str,
            Field(
                pattern=r"^sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$",
                max_length=135,
                description="sha256:… or sha512:…, of the file",
            ),
            Immutable("an image's bits never change; create another image", once=True),
        ]
        | None
    ) = None
    media_type: Annotated[
        Literal["RootVolumeTemplate", "DataVolumeTemplate", "ISO"],
        Field(description="What it is made for."),
        Immutable("create another image"),
    ] = "RootVolumeTemplate"
    format: Annotated[
        Literal["qcow2", "raw", "iso"],
        Field(description="Of the file at the URL."),
        Immutable("create another image"),
    ] = "qcow2"
    platform: Literal["Linux", "Windows", "Other"] = Field(
        default="Linux", description="What the guest is; the devices it is given suit it."
    )
    architecture: Annotated[
        Literal["x86_64", "aarch64"],
        Field(description="Hosts of another one do not run it."),
        Immutable("create another image"),
    ] = "x86_64"
    guest_os: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="The guest's name and version, for people."
    )
    virtio: bool = Field(default=True, description="The guest has virtio drivers.")
    state: Switch = "Enabled"


class ImageStatus(BaseStatus):
    state: Literal["", "Creating", "Downloading", "Ready", "Disabled", "Error", "Deleting"] = ""
    size: str = Field(default="", description="Virtual size, a quantity.")
    virtual_size: int = Field(default=0, description="Bytes that the guest sees.")
    actual_size: int = Field(default=0, description="Bytes on the backup storage.")
    checksum: str = Field(default="", description="Of the stored file, sha256:….")


class Image(Resource):
    """A template for volumes."""

    INFO = KindInfo(
        plural="images",
        singular="image",
        columns=(
            Column("State", ".status.state"),
            Column("Size", ".status.size"),
            Column("Format", ".spec.format"),
            Column("Storage", ".spec.backupStorageRef.name", priority=1),
            Column("URL", ".spec.url", priority=1),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    kind: str = "Image"
    spec: ImageSpec
    status: ImageStatus = ImageStatus()
