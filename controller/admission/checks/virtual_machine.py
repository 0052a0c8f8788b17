"""VirtualMachine: its addresses, image, volumes and places fit together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network

from controller.admission.neighbours import Neighbours, name_of, ref_of
from controller.apiserver.admission import Violation
from crds.base import format_quantity
from crds.refs import ObjectRef
from crds.tags import read_all
from crds.v1alpha1.l3_network import usable
from crds.v1alpha1.virtual_machine import VirtualMachineSpec

KIND = "VirtualMachine"


async def check(spec: VirtualMachineSpec, around: Neighbours) -> AsyncIterator[Violation]:
    """Addresses fit their networks, the image can boot, volumes are data disks, and the places
    that are asked for lie in each other."""
    for i, nic in enumerate(spec.nics):
        async for violation in _address(nic.ip, nic.l3_network_ref, f"spec.nics[{i}].ip", around):
            yield violation
    for found in read_all("VirtualMachine", spec)[0]:
        if found.tag.name == "staticIp":
            network = ObjectRef(name=found.values["l3Network"])
            path = f"spec.systemTags[{found.index}]"
            async for violation in _address(found.values["ip"], network, path, around):
                yield violation
    async for violation in _image(spec, around):
        yield violation
    async for violation in _volumes(spec, around):
        yield violation
    async for violation in _placement(spec, around):
        yield violation


async def _address(
    ip: str | None, ref: ObjectRef, path: str, around: Neighbours
) -> AsyncIterator[Violation]:
    network = await around.get("L3Network", ref) if ip else None
    if network is None:
        return
    name, cidr = ref.name, IPv4Network(network["spec"]["cidr"], strict=False)
    if not usable(IPv4Address(ip), cidr):
        yield Violation(f"{ip} is no host's address in {cidr} of L3 network {name}", path)
    elif ip == network["spec"].get("gateway"):
        yield Violation(f"{ip} is the gateway of L3 network {name}", path)


async def _image(spec: VirtualMachineSpec, around: Neighbours) -> AsyncIterator[Violation]:
    image = await around.get("Image", spec.image_ref)
    if image is None:
        return
    name, wanted = spec.image_ref.name, spec.root_disk.size
    if image["spec"].get("mediaType") == "DataVolumeTemplate":
        yield Violation(
            f"image {name} is a DataVolumeTemplate; a VM boots from a RootVolumeTemplate",
            "spec.imageRef",
        )
    holds = image.get("status", {}).get("virtualSize", 0)
    if wanted is not None and wanted < holds:
        yield Violation(
            f"the image needs {format_quantity(holds)}, more than {format_quantity(wanted)}",
            "spec.rootDisk.size",
        )
    cluster = await around.get("Cluster", spec.placement.cluster_ref)
    theirs = cluster["spec"].get("architecture") if cluster else None
    if theirs and image["spec"].get("architecture", theirs) != theirs:
        yield Violation(
            f"image {name} is for {image['spec']['architecture']}, the cluster has {theirs}",
            "spec.imageRef",
        )


async def _volumes(spec: VirtualMachineSpec, around: Neighbours) -> AsyncIterator[Violation]:
    for i, disk in enumerate(spec.data_disks):
        volume = await around.get("Volume", disk.volume_ref, around.request.namespace)
        if volume and disk.volume_ref and volume["spec"].get("type") == "Root":
            yield Violation(
                f"volume {disk.volume_ref.name} is a VM's root disk, not a data disk",
                f"spec.dataDisks[{i}].volumeRef",
            )


async def _placement(spec: VirtualMachineSpec, around: Neighbours) -> AsyncIterator[Violation]:
    """From the host upwards: each place is in the next larger one, where both are known."""
    wanted = spec.placement
    host = await around.get("Host", wanted.host_ref)
    above = ref_of(host, "clusterRef") if host else None
    if above and wanted.host_ref and wanted.cluster_ref and above != wanted.cluster_ref.name:
        yield Violation(
            f"host {wanted.host_ref.name} is in cluster {above}, not in {wanted.cluster_ref.name}",
            "spec.placement.hostRef",
        )
    inside = ObjectRef(name=above) if above else wanted.cluster_ref
    cluster = await around.get("Cluster", inside)
    if cluster and wanted.zone_ref and ref_of(cluster, "zoneRef") != wanted.zone_ref.name:
        theirs = ref_of(cluster, "zoneRef")
        yield Violation(
            f"cluster {name_of(cluster)} is in zone {theirs}, not in {wanted.zone_ref.name}",
            f"spec.placement.{'hostRef' if above else 'clusterRef'}",
        )
