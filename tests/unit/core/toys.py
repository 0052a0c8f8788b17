"""Objects of the toy kinds (``fakes``)."""

from __future__ import annotations

from crds.base import ObjectMeta
from crds.refs import ObjectRef
from tests.unit.core.fakes import Branch, BranchSpec, Leaf, LeafSpec, Trunk


def trunk(name: str = "t1") -> Trunk:
    return Trunk(metadata=ObjectMeta(name=name))


def branch(name: str = "b1", of: str = "t1") -> Branch:
    return Branch(metadata=ObjectMeta(name=name), spec=BranchSpec(trunk=ObjectRef(name=of)))


def leaf(name: str = "l1", namespace: str = "ns", **refs: str) -> Leaf:
    """``refs``: field → name of what it refers to."""
    spec = LeafSpec(**{field: ObjectRef(name=target) for field, target in refs.items()})
    return Leaf(metadata=ObjectMeta(name=name, namespace=namespace), spec=spec)
