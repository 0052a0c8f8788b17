"""Options that many commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATA_DIR = Path(".kumulus")
DataDir = Annotated[
    Path, typer.Option(envvar="KUMULUS_DATA_DIR", help="Where the embedded cloud keeps its data.")
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(help="The cluster. Default: $KUBECONFIG, the embedded cloud, ~/.kube/config."),
]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Only this namespace.")]
