"""Brings manifests into a cluster: with kubectl when there is one, else by itself.

The built-in way is kubectl's client-side apply, with the same annotation, so that a later
``kubectl apply`` goes on where it left off: what the last manifest had and the new one has not is
removed, and what others set is left alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from controller.errors import KumulusError
from controller.up.kube import MERGE_PATCH, ApiError, Kube

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
KUBECTL_SECONDS = 60.0
ESTABLISHED_SECONDS = 30.0

Manifest = dict[str, Any]


def kubectl() -> str | None:
    """The kubectl to use, or None."""
    return shutil.which("kubectl")


def apply(kube: Kube, kubeconfig: Path, folder: Path, *, tool: str | None) -> str:
    """Apply every manifest of a folder; returns a word on how. Raises KumulusError."""
    if tool is not None:
        _with_kubectl(tool, kubeconfig, folder)
        return "kubectl"
    apply_all(kube, read_manifests(folder))
    return "the built-in apply (kubectl is not installed)"


def read_manifests(folder: Path) -> list[Manifest]:
    """Every document of the folder's YAML files, in the order of their names."""
    return [
        document
        for path in sorted(folder.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document
    ]


def apply_all(kube: Kube, manifests: Iterable[Manifest]) -> None:
    """Create each object or bring it to what its manifest says. Raises ApiError."""
    resources: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        version = manifest["apiVersion"]
        if manifest["kind"] not in resources.get(version, {}):
            resources[version] = _discover(kube, version)
        resource = resources[version].get(manifest["kind"])
        if resource is None:
            raise ApiError(f"the cluster has no kind {manifest['kind']} in {version}", 404)
        _apply_one(kube, _collection(version, resource, manifest), manifest)


def wait_established(kube: Kube, names: Iterable[str]) -> None:
    """Until the API server serves these custom resource definitions."""
    end = time.monotonic() + ESTABLISHED_SECONDS
    for name in names:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{quote(name)}"
        while not _is_true(kube.get(path), "Established"):
            if time.monotonic() > end:
                raise KumulusError(
                    f"the definition of {name} is not established after "
                    f"{ESTABLISHED_SECONDS:g} s; see `kubectl describe crd {name}`"
                )
            time.sleep(0.05)


def merge_patch(last: Any, new: Any) -> Any:
    """A JSON merge patch that sets what ``new`` says and removes what only ``last`` said."""
    if not (isinstance(last, Mapping) and isinstance(new, Mapping)):
        return new
    gone = {key: None for key in last if key not in new}
    return {**gone, **{key: merge_patch(last.get(key), value) for key, value in new.items()}}


def changes(live: Any, patch: Any) -> bool:
    """Would this merge patch change the object?"""
    if isinstance(patch, Mapping):
        if not isinstance(live, Mapping):
            return True
        return any(changes(live.get(key), value) for key, value in patch.items())
    return bool(live != patch)


def _apply_one(kube: Kube, collection: str, manifest: Manifest) -> None:
    noted = json.dumps(manifest, separators=(",", ":"), sort_keys=True) + "\n"
    wanted = json.loads(noted)
    wanted["metadata"].setdefault("annotations", {})[LAST_APPLIED] = noted
    path = f"{collection}/{quote(manifest['metadata']['name'])}"
    try:
        live = kube.get(path)
    except ApiError as error:
        if error.code != 404:
            raise
        kube.request("POST", collection, wanted)
        return
    annotations = live["metadata"].get("annotations", {})
    last = json.loads(annotations.get(LAST_APPLIED) or "{}")
    patch = merge_patch(last, wanted)
    if changes(live, patch):
        kube.request("PATCH", path, patch, content_type=MERGE_PATCH)


def _discover(kube: Kube, version: str) -> dict[str, dict[str, Any]]:
    """kind → APIResource of a group version."""
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    listed = kube.get(root)["resources"]
    return {entry["kind"]: entry for entry in listed if "/" not in entry["name"]}


def _collection(version: str, resource: Mapping[str, Any], manifest: Manifest) -> str:
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    if not resource["namespaced"]:
        return f"{root}/{resource['name']}"
    namespace = manifest["metadata"].get("namespace", "default")
    return f"{root}/namespaces/{quote(namespace)}/{resource['name']}"


def _with_kubectl(tool: str, kubeconfig: Path, folder: Path) -> None:
    command = [tool, "--kubeconfig", str(kubeconfig), "apply", "-f", str(folder)]
    try:
        done = subprocess.run(  # noqa: S603 a fixed command without a shell
            command, capture_output=True, text=True, timeout=KUBECTL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise KumulusError(
            f"kubectl apply -f {folder} took more than {KUBECTL_SECONDS:g} s; see `kumulus logs`"
        ) from None
    if done.returncode != 0:
        raise KumulusError(f"kubectl apply -f {folder} failed:\n{_errors(done.stderr)}")


def _errors(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if not line.startswith("Warning")]
    return "\n".join(lines[-8:])


def _is_true(obj: Mapping[str, Any], condition: str) -> bool:
    return any(found["status"] == "True" for found in _conditions(obj, condition))


def _conditions(obj: Mapping[str, Any], kind: str) -> Iterator[Mapping[str, Any]]:
    for condition in obj.get("status", {}).get("conditions", []):
        if condition["type"] == kind:
            yield condition
