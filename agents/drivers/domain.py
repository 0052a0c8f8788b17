"""libvirt's domain XML: written from VmArgs, and read back. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

from agents.wire import Disk, NicDevice, VmArgs

NAMESPACE = "https://kumulus.dev/libvirt/v1"
ROLE_VM = "vm"
Accelerator = Literal["kvm", "qemu"]
MACHINES = {"x86_64": "pc", "aarch64": "virt"}
BLOCK_SERIAL_MAX = 20
EFI = "efi"


@dataclass(frozen=True)
class Machinery:
    """What this host gives to every guest."""

    accelerator: Accelerator
    console_log: Path
    seed: Path | None = None


def domain_xml(uid: str, args: VmArgs, machinery: Machinery) -> str:
    """The whole definition. The architecture must be one of MACHINES."""
    domain = Element("domain", type=machinery.accelerator)
    _text(domain, "name", f"kumulus-{uid}")
    _text(domain, "uuid", uid)
    _text(domain, "title", f"{args.namespace}/{args.name}")
    _metadata(domain, args)
    _text(domain, "memory", str(args.memory), unit="b")
    _text(domain, "vcpu", str(args.cpu))
    _system(domain, args, machinery)
    _devices(SubElement(domain, "devices"), args, machinery)
    return tostring(domain, encoding="unicode")


def _metadata(domain: Element, args: VmArgs) -> None:
    """What makes a domain ours."""
    own = SubElement(SubElement(domain, "metadata"), f"{{{NAMESPACE}}}{ROLE_VM}")
    own.set("namespace", args.namespace)
    own.set("name", args.name)
    if args.hostname:
        own.set("hostname", args.hostname)


def _system(domain: Element, args: VmArgs, machinery: Machinery) -> None:
    os_ = SubElement(domain, "os")
    if args.boot_mode == "UEFI":
        os_.set("firmware", EFI)  # libvirt picks the image and keeps the variables
    _text(os_, "type", "hvm", arch=args.architecture, machine=MACHINES[args.architecture])
    SubElement(os_, "boot", dev="hd")
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    if args.architecture == "x86_64":
        SubElement(features, "apic")
    # host-model can be migrated between like hosts; an emulated CPU gives all that it can.
    SubElement(domain, "cpu", mode="host-model" if machinery.accelerator == "kvm" else "maximum")
    SubElement(domain, "clock", offset="utc")
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        _text(domain, f"on_{event}", action)


def _devices(devices: Element, args: VmArgs, machinery: Machinery) -> None:
    devices.extend(_disk(disk) for disk in args.disks)
    if machinery.seed is not None:
        devices.append(_cdrom(machinery.seed))
    devices.extend(_nic(nic) for nic in args.nics)
    serial = SubElement(devices, "serial", type="pty")
    SubElement(serial, "log", file=str(machinery.console_log), append="on")
    SubElement(serial, "target", port="0")
    console = SubElement(devices, "console", type="pty")
    SubElement(console, "target", type="serial", port="0")
    channel = SubElement(devices, "channel", type="unix")
    SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    _text(SubElement(devices, "rng", model="virtio"), "backend", "/dev/urandom", model="random")
    SubElement(devices, "memballoon", model="virtio")


def firmwares_of(capabilities: str) -> frozenset[str]:
    """What libvirt can pick a firmware for, from its domain capabilities: ``efi``, ``bios``."""
    root = fromstring(capabilities)  # noqa: S314 - it comes from libvirt
    values = root.iterfind("./os/enum[@name='firmware']/value")
    return frozenset(value.text or "" for value in values)


def disk_xml(disk: Disk) -> str:
    return tostring(_disk(disk), encoding="unicode")


def nic_xml(nic: NicDevice) -> str:
    return tostring(_nic(nic), encoding="unicode")


def _disk(disk: Disk) -> Element:
    element = Element("disk", type="file", device="disk")
    SubElement(element, "driver", name="qemu", type=disk.format, discard="unmap")
    SubElement(element, "source", file=disk.path)
    SubElement(element, "target", dev=disk.device, bus="virtio")
    _text(element, "serial", disk.volume.replace("-", "")[:BLOCK_SERIAL_MAX])
    return element


def _cdrom(seed: Path) -> Element:
    """On IDE, which every guest can read."""
    element = Element("disk", type="file", device="cdrom")
    SubElement(element, "driver", name="qemu", type="raw")
    SubElement(element, "source", file=str(seed))
    SubElement(element, "target", dev="hda", bus="ide")
    SubElement(element, "readonly")
    return element


def _nic(nic: NicDevice) -> Element:
    element = Element("interface", type="bridge")
    SubElement(element, "mac", address=nic.mac)
    SubElement(element, "source", bridge=nic.bridge)
    SubElement(element, "target", dev=nic.device)
    SubElement(element, "model", type=nic.model)
    SubElement(element, "mtu", size=str(nic.mtu))
    return element


@dataclass(frozen=True)
class Devices:
    """What a definition has: disks as target → file, NICs as MAC → device on the host."""

    disks: dict[str, str]
    nics: dict[str, str]


def devices_of(xml: str) -> Devices:
    root = fromstring(xml)  # noqa: S314 - it comes from libvirt
    return Devices(dict(_disks(root)), dict(_nics(root)))


def _disks(root: Element) -> Iterator[tuple[str, str]]:
    for disk in root.iterfind("./devices/disk"):
        source, target = disk.find("source"), disk.find("target")
        if source is not None and target is not None:
            yield target.get("dev", ""), source.get("file", "")


def _nics(root: Element) -> Iterator[tuple[str, str]]:
    for nic in root.iterfind("./devices/interface"):
        mac, target = nic.find("mac"), nic.find("target")
        if mac is not None:
            yield mac.get("address", "").lower(), "" if target is None else target.get("dev", "")


def is_vm(xml: str) -> bool:
    """Did Kumulus define this domain as a VM?"""
    root = fromstring(xml)  # noqa: S314 - it comes from libvirt
    return root.find(f"./metadata/{{{NAMESPACE}}}{ROLE_VM}") is not None


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text
