"""The file by which kubectl and other clients find the server."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import yaml

from common.pki import CertPair


def write_kubeconfig(
    path: Path, server_url: str, ca: Path, pair: CertPair, *, name: str = "kumulus"
) -> Path:
    """Write a kubeconfig with all certificates in it; mode 0600, replaced in one step."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [
            {
                "name": name,
                "cluster": {"server": server_url, "certificate-authority-data": _encoded(ca)},
            }
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": _encoded(pair.cert),
                    "client-key-data": _encoded(pair.key),
                },
            }
        ],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        yaml.safe_dump(config, file, sort_keys=False)
    scratch.replace(path)
    return path


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
