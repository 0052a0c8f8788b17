"""The smallest guest that behaves like one: Debian's cloud kernel and busybox on a bootable disk.

``build_guest()`` makes a qcow2 of about 16 MB and keeps it under ``.cache/guest``. What the guest
does can be read on its serial console, one line each:

======================================  =========================================================
``GUEST boot=<n>``                      user space is up; n counts the boots of this disk
``SEED hostname=<h> instance=<i>``      the NoCloud seed was found
``DHCP <nic> <ip>/<bits> gw=… dns=…``   a NIC got its address (NICs plugged in later too)
``DISK <name> serial=<s> bytes=<n>``    a disk appeared (``DISK <name> gone``: it went)
``NIC <name> gone``                     a NIC went
``READY``                               it serves HTTP on port 80: ``/`` and ``/user-data``
``POWER BUTTON``                        it was asked to shut down, and will
======================================  =========================================================

User data that starts with ``#!`` is run once ready, with its output on the console.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

KERNEL_PACKAGE = "linux-image-cloud-amd64"
BOOT_MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")
CACHE = Path(__file__).parents[2] / ".cache" / "guest"
APT_PACKAGES = (
    "apt-utils", "busybox-static", "cpio", "fdisk", "dosfstools", "kmod", "mtools", "qemu-utils",
    "syslinux", "syslinux-common",
)  # fmt: skip
TOOLS = (
    "apt-get", "busybox", "cpio", "depmod", "dpkg-deb", "mcopy", "mkfs.vfat", "modprobe",
    "qemu-img", "sfdisk", "syslinux",
)  # fmt: skip
MODULES = (
    "virtio_pci", "virtio_net", "virtio_blk", "virtio_rng", "virtio_balloon", "ata_piix", "sr_mod",
    "isofs", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "button", "evdev",
)  # fmt: skip
PARTITION_OFFSET = 2048 * 512
DISK_BYTES = 48 << 20

DHCP_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr flush dev $interface
ip addr add $ip/$mask dev $interface
[ -n "$mtu" ] && ip link set $interface mtu $mtu
[ -n "$router" ] && ip route add default via $router
echo "DHCP $interface $ip/$mask gw=$router dns=$dns domain=$domain mtu=$mtu from=$serverid"
"""

POWER_SCRIPT = """#!/bin/sh
echo "POWER BUTTON" >/dev/console
sync
umount /disk 2>/dev/null
poweroff -f
"""

WATCH_SCRIPT = """#!/bin/sh
# Tells of disks and NICs that come and go.
mkdir -p /run/seen
while :; do
  for path in /sys/block/vd* /sys/class/net/e*; do
    [ -e $path ] || continue
    name=$(basename $path)
    [ -e /run/seen/$name ] && continue
    : >/run/seen/$name
    case $name in
      vd*) echo "DISK $name serial=$(cat $path/serial) bytes=$(($(cat $path/size) * 512))" ;;
      e*) ip link set $name up
          udhcpc -i $name -n -q -t 20 -T 1 -O mtu -s /sbin/dhcp 2>/dev/null | grep -a ^DHCP ;;
    esac
  done
  for name in $(ls /run/seen); do
    [ -e /sys/block/$name ] || [ -e /sys/class/net/$name ] && continue
    rm /run/seen/$name
    case $name in vd*) echo "DISK $name gone" ;; *) echo "NIC $name gone" ;; esac
  done
  [ "$1" = once ] && exit
  sleep 0.3
done
"""

INIT_SCRIPT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
export PATH=/bin:/sbin
for module in $(cat /lib/modules/order); do insmod /lib/modules/$module 2>/dev/null; done
acpid -l /dev/null
ip link set lo up
n=0
for try in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda1 ] && break; sleep 0.1; done
if mount -t vfat /dev/vda1 /disk; then
  [ -f /disk/boots ] && n=$(cat /disk/boots)
  n=$((n + 1)); echo $n >/disk/boots; sync
fi
echo "GUEST boot=$n"
for try in 1 2 3 4 5; do [ -b /dev/sr0 ] && break; sleep 0.1; done
if mount -t iso9660 -o ro /dev/sr0 /seed 2>/dev/null; then
  hostname $(sed -n 's/^local-hostname: //p' /seed/meta-data)
  echo "SEED hostname=$(hostname) instance=$(sed -n 's/^instance-id: //p' /seed/meta-data)"
  cp /seed/user-data /www/user-data
fi
/sbin/watch once
echo "hello from $(hostname)" >/www/index.html
httpd -h /www -p 80
echo READY
if head -c2 /www/user-data 2>/dev/null | grep -q '#!'; then
  cp /www/user-data /run/user-data; chmod +x /run/user-data; /run/user-data
fi
/sbin/watch forever &
while :; do setsid sh -c 'exec sh </dev/console >/dev/console 2>&1'; done
"""

FILES = {
    "init": INIT_SCRIPT,
    "sbin/dhcp": DHCP_SCRIPT,
    "sbin/watch": WATCH_SCRIPT,
    "etc/acpi/PWRF/00000080": POWER_SCRIPT,
}
SYSLINUX = """SERIAL 0 115200
DEFAULT guest
PROMPT 0
LABEL guest
 KERNEL vmlinuz
 INITRD initrd.gz
 APPEND console=ttyS0 quiet panic=-1 tsc=unstable
"""


class GuestUnavailable(Exception):
    """The guest cannot be built here; says what is missing."""


def build_guest(cache: Path = CACHE) -> Path:
    """The guest's disk image (qcow2). Built once, by whoever is first; GuestUnavailable says what
    is missing."""
    require_tools(TOOLS)
    cache.mkdir(parents=True, exist_ok=True)
    image = cache / f"guest-{_version()}.qcow2"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            kernel = _kernel(cache)
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                _build(kernel, Path(scratch)).rename(image)
    return image


def require_tools(tools: tuple[str, ...]) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if not BOOT_MBR.exists():
        missing.append(str(BOOT_MBR))
    if missing:
        raise GuestUnavailable(f"missing: {', '.join(missing)}")


def _version() -> str:
    """Of the recipe: another one makes another image."""
    recipe = repr((FILES, SYSLINUX, MODULES, DISK_BYTES, KERNEL_PACKAGE))
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def _run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300,
        check=False, **options,  # type: ignore[call-overload]
    )  # fmt: skip
    if done.returncode:
        raise GuestUnavailable(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
    return str(done.stdout)


def _kernel(cache: Path) -> Path:
    """The unpacked kernel package: boot/vmlinuz-<v> and lib/modules/<v>."""
    unpacked = cache / "kernel"
    if unpacked.exists():
        return unpacked
    depends = _run("apt-cache", "depends", KERNEL_PACKAGE)
    packages = [line.split()[-1] for line in depends.splitlines() if "Depends: linux-image" in line]
    if not packages:
        raise GuestUnavailable(f"apt knows no {KERNEL_PACKAGE}; run apt-get update")
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        _run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", packages[0], cwd=scratch)
        _run("dpkg-deb", "-x", next(Path(scratch).glob("*.deb")), f"{scratch}/x")
        version = next(Path(scratch, "x/lib/modules").iterdir()).name
        _run("depmod", "-b", f"{scratch}/x", version)
        Path(scratch, "x").rename(unpacked)
    return unpacked


def _build(kernel: Path, scratch: Path) -> Path:
    raw, image = scratch / "disk.raw", scratch / "disk.qcow2"
    initrd = scratch / "initrd.gz"
    initrd.write_bytes(gzip.compress(_initrd(kernel, scratch / "root"), 1))
    config = scratch / "syslinux.cfg"
    config.write_text(SYSLINUX)
    with raw.open("wb") as disk:
        disk.truncate(DISK_BYTES)
    _run("sfdisk", "-q", raw, input="2048,,6,*\n")
    with raw.open("r+b") as disk:
        disk.write(BOOT_MBR.read_bytes()[:440])
    _run(
        "mkfs.vfat", "-F", "16", "--offset", "2048", raw, str((DISK_BYTES - PARTITION_OFFSET) >> 10)
    )
    files = {
        "vmlinuz": next(kernel.glob("boot/vmlinuz-*")),
        "initrd.gz": initrd,
        "syslinux.cfg": config,
    }
    environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    for name, path in files.items():
        _run("mcopy", "-i", f"{raw}@@{PARTITION_OFFSET}", path, f"::/{name}", env=environment)
    _run("syslinux", "--offset", str(PARTITION_OFFSET), "--install", raw, env=environment)
    _run("qemu-img", "convert", "-c", "-O", "qcow2", raw, image)
    return image


def _initrd(kernel: Path, root: Path) -> bytes:
    version = next(kernel.glob("lib/modules/*")).name
    for directory in (
        "bin",
        "sbin",
        "dev",
        "proc",
        "sys",
        "run",
        "www",
        "disk",
        "seed",
        "lib/modules",
    ):
        (root / directory).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin/busybox")
    order = []
    for module in _modules(kernel, version):
        shutil.copy(module, root / "lib/modules" / module.name)
        order.append(module.name)
    (root / "lib/modules/order").write_text("\n".join(order))
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    names = "\0".join(sorted(str(path.relative_to(root)) for path in root.rglob("*")))
    packed = subprocess.run(
        ["cpio", "-o", "-0", "-H", "newc", "-R", "0:0"], input=names.encode(), cwd=root,
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    return packed.stdout


def _modules(kernel: Path, version: str) -> list[Path]:
    """The modules and what they need, in loading order."""
    found: dict[str, Path] = {}
    for module in MODULES:
        listed = _run("modprobe", "-d", kernel, "-S", version, "--show-depends", module)
        for line in listed.splitlines():
            if line.startswith("insmod"):
                path = Path(line.split()[1])
                found.setdefault(path.name, path)
    return list(found.values())
