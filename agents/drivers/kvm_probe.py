"""Does KVM run guests here? A guest of 206 bytes tells.

/dev/kvm can be there and yet fail on instructions that every operating system needs (nested or
paravirtual hosts that emulate). So a boot sector is run that does what a kernel does first:
protected mode, an interrupt return in it, paging, long mode; then it powers the machine off. If
it gets so far KVM is used; if it hangs or dies QEMU emulates.

The code, for GNU as::

    .code16;  cli; xor %ax,%ax; mov %ax,%ds; mov %ax,%es; mov %ax,%ss; mov $0x7000,%sp
              in $0x92,%al; or $2,%al; out %al,$0x92        # A20
              lgdt gdtr; mov %cr0,%eax; or $1,%al; mov %eax,%cr0; ljmp $8,$prot
    .code32
    prot:     mov $0x10,%ax; mov %ax,%ds; mov %ax,%es; mov %ax,%ss; mov $0x7000,%esp
              pushf; push $8; push $paging; iret
    paging:   mov $0x1000,%edi; xor %eax,%eax; mov $0xc00,%ecx; rep stosl
              movl $0x2003,0x1000; movl $0x3003,0x2000; movl $0x83,0x3000
              mov $0x1000,%eax; mov %eax,%cr3; mov %cr4,%eax; or $0x20,%eax; mov %eax,%cr4
              mov $0xc0000080,%ecx; rdmsr; or $0x100,%eax; wrmsr
              mov %cr0,%eax; or $0x80000000,%eax; mov %eax,%cr0; ljmp $0x18,$long
    .code64
    long:     mov $0x604,%dx; mov $0x2000,%ax; out %ax,%dx  # ACPI S5
    1:        hlt; jmp 1b
    .align 8
    gdt:      .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00af9a000000ffff
    gdtr:     .word gdtr-gdt-1; .long gdt
"""

from __future__ import annotations

from pathlib import Path
from uuid import NAMESPACE_URL, uuid5
from xml.etree.ElementTree import Element, SubElement, tostring

from agents.drivers.domain import NAMESPACE

UID = str(uuid5(NAMESPACE_URL, f"{NAMESPACE}#kvm-probe"))
SECTOR = 512
DISK_BYTES = 1 << 20
CODE = bytes.fromhex(
    "fa31c08ed88ec08ed0bc0070e4920c02e6920f0116c87c0f20c00c010f22c0ea"
    "247c080066b810008ed88ec08ed0bc007000009c6a08683c7c0000cfbf001000"
    "0031c0b9000c0000f3abc7050010000003200000c7050020000003300000c705"
    "0030000083000000b8001000000f22d80f20e083c8200f22e0b9800000c00f32"
    "0d000100000f300f20c00d000000800f22c0ea997c0000180066ba040666b800"
    "2066eff4ebfd66900000000000000000ffff0000009acf00ffff00000092cf00"
    "ffff0000009aaf001f00a87c0000"
)


def disk_image() -> bytes:
    """A disk with the code in its boot sector."""
    sector = CODE.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"
    return sector.ljust(DISK_BYTES, b"\0")


def probe_xml(disk: Path) -> str:
    """A KVM domain of 16 MiB that switches itself off."""
    domain = Element("domain", type="kvm")
    for tag, text in (("name", "kumulus-kvm-probe"), ("uuid", UID), ("memory", "16384")):
        SubElement(domain, tag).text = text
    SubElement(domain, "vcpu").text = "1"
    os_ = SubElement(domain, "os")
    SubElement(os_, "type", arch="x86_64", machine="pc").text = "hvm"
    SubElement(os_, "boot", dev="hd")
    SubElement(SubElement(domain, "features"), "acpi")
    for event in ("poweroff", "reboot", "crash"):
        SubElement(domain, f"on_{event}").text = "destroy"
    drive = SubElement(SubElement(domain, "devices"), "disk", type="file", device="disk")
    SubElement(drive, "driver", name="qemu", type="raw")
    SubElement(drive, "source", file=str(disk))
    SubElement(drive, "target", dev="vda", bus="virtio")
    SubElement(drive, "readonly")
    return tostring(domain, encoding="unicode")
