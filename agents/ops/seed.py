"""The cloud-init seed: an ISO with the label ``cidata`` (the NoCloud data source)."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pycdlib

from agents.ops.files import write_atomically

LABEL = "cidata"
NO_USER_DATA = "#cloud-config\n{}\n"


def meta_data(uid: str, hostname: str | None) -> str:
    """The instance id is the VM's uid: cloud-init runs once for a VM, however often it starts."""
    lines = [f"instance-id: {uid}"]
    if hostname:
        lines.append(f"local-hostname: {json.dumps(hostname) if _odd(hostname) else hostname}")
    return "\n".join(lines) + "\n"


def _odd(hostname: str) -> bool:
    """Would YAML read it as something else than a string?"""
    return not hostname.replace("-", "").isalnum() or not any(c.isalpha() for c in hostname)


def seed_iso(uid: str, hostname: str | None, user_data: str | None) -> bytes:
    """The image's bytes; a few hundred KB."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    try:
        _add(iso, "META_DAT", "meta-data", meta_data(uid, hostname))
        _add(iso, "USER_DAT", "user-data", user_data or NO_USER_DATA)
        out = io.BytesIO()
        iso.write_fp(out)
        return out.getvalue()
    finally:
        iso.close()


def write_seed(path: Path, uid: str, hostname: str | None, user_data: str | None) -> None:
    """User data may hold secrets: readable for the owner alone (libvirt hands it to QEMU)."""
    write_atomically(path, seed_iso(uid, hostname, user_data), mode=0o600)


def _add(iso: pycdlib.PyCdlib, short: str, name: str, text: str) -> None:
    content = text.encode()
    iso.add_fp(
        io.BytesIO(content),
        len(content),
        f"/{short}.;1",
        rr_name=name,
        joliet_path=f"/{name}",
    )
