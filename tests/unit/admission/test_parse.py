"""What is wrong with a spec, in the API's words."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from controller.admission.parse import field_path, parse_spec
from crds import kinds
from crds.schema import object_schema
from tests.support.openapi import values
from tests.unit.crds.test_specs import JUNK, leaves, replaced

VM = {"imageRef": {"name": "i"}, "cpu": 1, "memory": "1Gi"}
L3 = {"l2NetworkRef": {"name": "l2"}, "cidr": "10.0.0.0/24"}
NIC = {"name": "eth0", "l3NetworkRef": {"name": "l3"}}


@pytest.mark.parametrize(
    ("kind", "spec", "field", "message", "reason"),
    [
        ("VirtualMachine", {}, "spec.imageRef", "is required", "FieldValueRequired"),
        ("VirtualMachine", VM | {"imageRef": {}}, "spec.imageRef.name", "is required",
         "FieldValueRequired"),
        ("VirtualMachine", VM | {"imageRef": "debian"}, "spec.imageRef", "must be an object", ""),
        ("VirtualMachine", VM | {"powerState": "On"}, "spec.powerState",
         'must be one of: "Running", "Stopped" or "Paused"', "FieldValueNotSupported"),
        ("VirtualMachine", VM | {"cpu": "many"}, "spec.cpu", "must be a whole number", ""),
        ("VirtualMachine", VM | {"cpu": 0}, "spec.cpu",
         "must be greater than or equal to 1", ""),
        ("VirtualMachine", VM | {"memory": "1 GB"}, "spec.memory",
         "'1 GB' is no quantity; write bytes as 512Mi, 10Gi or 1000000", ""),
        ("VirtualMachine", VM | {"restartedAt": "now"}, "spec.restartedAt",
         "must be a time such as 2026-01-31T12:00:00Z", ""),
        ("VirtualMachine", VM | {"nics": {}}, "spec.nics", "must be a list", ""),
        ("VirtualMachine", VM | {"nics": [NIC, NIC | {"mac": "01:00:00:00:00:00"}]},
         "spec.nics[1].mac", "must match ^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$", ""),
        ("VirtualMachine", VM | {"nics": [NIC, NIC]}, "spec.nics",
         "name 'eth0' is given twice", ""),
        ("VirtualMachine",
         VM | {"nics": [NIC | {"ip": "10.0.0.9"}, NIC | {"name": "b", "ip": "10.0.0.9"}]},
         "spec.nics[1].ip", "the address 10.0.0.9 on l3 is given twice", ""),
        ("VirtualMachine", VM | {"hostname": "x" * 64}, "spec.hostname",
         "string should have at most 63 characters", ""),
        ("L3Network", L3 | {"cidr": "10.0.0.7/24"}, "spec.cidr",
         "10.0.0.7/24 is an address, not a subnet; write 10.0.0.0/24", ""),
        ("L3Network", L3 | {"gateway": "10.0.1.1"}, "spec.gateway",
         "10.0.1.1 is no host's address in 10.0.0.0/24", ""),
        ("L3Network", L3 | {"ranges": [{"start": "10.0.0.9", "end": "10.0.0.5"}]},
         "spec.ranges[0].end", "10.0.0.5 is before the start, 10.0.0.9", ""),
        ("L3Network", L3 | {"dhcp": {"enabled": "perhaps"}}, "spec.dhcp.enabled",
         "must be true or false", ""),
        ("Zone", {"default": []}, "spec.default", "must be true or false", ""),
    ],
)  # fmt: skip
def test_messages_name_the_field(
    kind: str, spec: dict[str, Any], field: str, message: str, reason: str
) -> None:
    parsed, violations = parse_spec(kinds()[kind], spec)
    assert parsed is None
    found = violations[0]
    text = message.replace("string should", "string must")
    assert (found.field, found.message) == (field, text)
    assert found.reason == (reason or "FieldValueInvalid")


def test_all_problems_are_told_at_once() -> None:
    spec = L3 | {
        "gateway": "10.9.0.1",
        "ranges": [
            {"start": "10.0.0.10", "end": "10.0.0.20"},
            {"start": "10.0.0.20", "end": "10.0.1.30"},
        ],
    }
    _, violations = parse_spec(kinds()["L3Network"], spec)
    assert [found.field for found in violations] == [
        "spec.ranges[1].end", "spec.ranges", "spec.gateway",
    ]  # fmt: skip


@pytest.mark.parametrize("junk", [None, [], "text", 5])
def test_a_spec_that_is_no_object(junk: object) -> None:
    _, violations = parse_spec(kinds()["VirtualMachine"], junk)
    assert [(v.field, v.message) for v in violations] == [("spec", "must be an object")]


def test_a_good_spec_comes_back_parsed() -> None:
    spec, violations = parse_spec(kinds()["VirtualMachine"], VM)
    assert violations == []
    assert spec.memory == 2**30


def test_names_of_validators_are_left_out_of_paths() -> None:
    assert field_path("spec", ("nics", 0, "function-after[x]", "ip")) == "spec.nics[0].ip"


STRATEGIES = {
    kind: values(object_schema(model)["properties"]["spec"]) for kind, model in kinds().items()
}
PATH = re.compile(r"spec((\.[a-z][A-Za-z0-9]*)|(\[\d+\]))*\Z")
INSIDE = re.compile(r"value_error|pydantic|https?://errors|function-|ctx|Traceback|<class")


@pytest.mark.parametrize("kind", sorted(kinds()))
@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_of_the_inside_shows(kind: str, data: st.DataObject) -> None:
    """Whatever is put anywhere into a spec: paths are the API's, texts are for people."""
    spec = data.draw(STRATEGIES[kind])
    where = list(leaves(spec))
    assume(where)
    bad = replaced(spec, data.draw(st.sampled_from(where)), data.draw(JUNK))
    _, violations = parse_spec(kinds()[kind], bad)
    for found in violations:
        assert PATH.match(found.field)
        assert found.message
        assert not INSIDE.search(found.message)
