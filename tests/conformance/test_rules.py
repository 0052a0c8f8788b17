"""What functions CEL rules have, and what becomes of a rule that costs too much.

One definition holds all expressions: each is asked of the object whose ``case`` names it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance import pages
from tests.conformance.client import Cluster, Reply
from tests.conformance.conftest import DEFINITIONS, definition, eventually
from tests.conformance.pages import page

GROUP = "rules.kumulus.dev"
CRD = f"{DEFINITIONS}/rules.{GROUP}"
PATH = f"/apis/{GROUP}/v1/namespaces/default/rules"
DOCS = pages.DOCS + pages.CEL
LIBRARIES: dict[str, list[str]] = {
    f"{DOCS}#kubernetes-list-library": [
        "[1, 2, 2, 5].isSorted()",
        "!self.names.map(n, n == 'a' ? 2 : 1).isSorted()",
        "[].isSorted()",
        "[1, 3].sum() == 4",
        "[1.0, 3.5].sum() == 4.5",
        "[duration('1h'), duration('90m')].isSorted()",
        "[4, 1, 3].min() == 1",
        "[4, 1, 3].max() == 4",
        "[1, 2, 2, 3].indexOf(2) == 1",
        "[1, 2, 2, 3].lastIndexOf(2) == 2",
        "[1, 2].indexOf(9) == -1",
        "self.numbers.sum() == 6",
        "self.numbers.max() == 3",
        "self.numbers.indexOf(2) == 1",
        "self.names.isSorted()",
    ],
    f"{DOCS}#kubernetes-regex-library": [
        "'abc 123'.find('[0-9]+') == '123'",
        "'abc'.find('[0-9]+') == ''",
        "'123 abc 456'.findAll('[0-9]+') == ['123', '456']",
        "'123 abc 456'.findAll('[0-9]+', 1) == ['123']",
        "'123 abc 456'.findAll('[0-9]+', 0) == []",
        "'k=v'.find('(k)=(v)') == 'k=v'",
        "'a1b2'.findAll('([a-z])([0-9])') == ['a1', 'b2']",
        "'(x)'.find('[(]x[)]') == '(x)'",
        "'name'.matches('^\\\\pL+$')",
    ],
    f"{DOCS}#kubernetes-url-library": [
        "isURL('https://example.com:80/path?k=v')",
        "isURL('/absolute')",
        "!isURL('../relative')",
        "!isURL('')",
        "!isURL('https://a b.com/')",
        "!isURL('http://a:b/')",
        "url('https://example.com:80/a%20b?k=v&k=w').getScheme() == 'https'",
        "url('https://example.com:80/').getHost() == 'example.com:80'",
        "url('https://[::1]:80/').getHost() == '[::1]:80'",
        "url('https://[::1]:80/').getHostname() == '::1'",
        "url('https://example.com/').getPort() == ''",
        "url('https://example.com:80/').getPort() == '80'",
        "url('https://example.com/with space').getEscapedPath() == '/with%20space'",
        "url('https://example.com/').getQuery() == {}",
        "url('https://example.com/?k=a&k=b&c=d').getQuery()['k'] == ['a', 'b']",
        "url('mailto:someone').getScheme() == 'mailto'",
        "url('http://a/') == url('http://a/')",
    ],
    f"{DOCS}#kubernetes-ip-address-library": [
        "isIP('127.0.0.1')",
        "isIP('::1')",
        "!isIP('127.0.0.256')",
        "!isIP('127.0.0.01')",
        "!isIP('::ffff:1.2.3.4')",
        "!isIP('fe80::1%eth0')",
        "ip.isCanonical('2001:db8::abcd')",
        "!ip.isCanonical('2001:DB8::ABCD')",
        "ip('127.0.0.1').family() == 4",
        "ip('::1').family() == 6",
        "ip('127.0.0.1').isLoopback()",
        "ip('0.0.0.0').isUnspecified()",
        "ip('224.0.0.1').isLinkLocalMulticast()",
        "ip('ff02::1').isLinkLocalMulticast()",
        "!ip('224.0.1.1').isLinkLocalMulticast()",
        "ip('169.254.169.254').isLinkLocalUnicast()",
        "ip('10.1.1.1').isGlobalUnicast()",
        "!ip('255.255.255.255').isGlobalUnicast()",
        "ip('2001:DB8::1') == ip('2001:db8:0::1')",
        "string(ip('2001:DB8::1')) == '2001:db8::1'",
    ],
    f"{DOCS}#kubernetes-cidr-library": [
        "isCIDR('192.168.0.0/16')",
        "!isCIDR('192.168.0.0')",
        "!isCIDR('192.168.0.0/255.255.0.0')",
        "!isCIDR('192.168.0.0/33')",
        "!isCIDR('192.168.0.0/016')",
        "cidr('192.168.0.0/24').containsIP('192.168.0.1')",
        "cidr('192.168.0.0/24').containsIP(ip('192.168.0.1'))",
        "!cidr('192.168.0.0/24').containsIP('::1')",
        "cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24')",
        "!cidr('192.168.1.0/24').containsCIDR(cidr('192.168.0.0/16'))",
        "cidr('192.168.0.1/24').ip() == ip('192.168.0.1')",
        "cidr('192.168.0.1/24').masked() == cidr('192.168.0.0/24')",
        "cidr('192.168.0.1/24').prefixLength() == 24",
        "string(cidr('192.168.0.0/24')) == '192.168.0.0/24'",
    ],
    f"{DOCS}#kubernetes-quantity-library": [
        "isQuantity('1.3Gi')",
        "isQuantity('-5e3')",
        "!isQuantity('1.3GB')",
        "!isQuantity('')",
        "quantity('1Ki').isInteger()",
        "!quantity('1500m').isInteger()",
        "quantity('1Ki').asInteger() == 1024",
        "quantity('1500m').asApproximateFloat() == 1.5",
        "quantity('50k').sub(20000) == quantity('30k')",
        "quantity('50k').add(quantity('20k')) == quantity('70k')",
        "quantity('200M').compareTo(quantity('0.2G')) == 0",
        "quantity('1Gi').isGreaterThan(quantity('1G'))",
        "quantity('150Mi').isLessThan(quantity('1Gi'))",
        "sign(quantity('-1')) == -1",
        "quantity('1.0') == quantity('1')",
        "quantity('0.1n').compareTo(quantity('1n')) == 0",
    ],
    f"{DOCS}#kubernetes-semver-library": [
        "isSemver('1.0.0')",
        "!isSemver('v1.0')",
        "isSemver('v1.0', true)",
        "!isSemver('hello')",
        "semver('1.2.3').major() == 1",
        "semver('1.2.3').minor() == 2",
        "semver('1.2.3').patch() == 3",
        "semver('1.2.3').compareTo(semver('2.0.0')) == -1",
        "semver('1.0.0-alpha.9').isLessThan(semver('1.0.0-alpha.10'))",
        "semver('1.0.0').isGreaterThan(semver('1.0.0-rc.1'))",
        "semver('01.01.01', true) == semver('1.1.1')",
    ],
    f"{DOCS}#kubernetes-format-library": [
        "!format.dns1123Label().validate('my-name').hasValue()",
        "format.dns1123Label().validate('My_name').hasValue()",
        "format.dns1123Label().validate('My_name').value().size() == 1",
        "!format.dns1123Subdomain().validate('a.b').hasValue()",
        "format.dns1035Label().validate('1a').hasValue()",
        "!format.dns1123LabelPrefix().validate('my-').hasValue()",
        "!format.qualifiedName().validate('a.b/c').hasValue()",
        "format.labelValue().validate('a b').hasValue()",
        "!format.uri().validate('http://a/b').hasValue()",
        "!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()",
        "format.byte().validate('not base64!').hasValue()",
        "!format.date().validate('2021-01-01').hasValue()",
        "!format.datetime().validate('2021-01-01T00:00:00Z').hasValue()",
        "format.named('dns1123Label').hasValue()",
        "!format.named('nonsense').hasValue()",
    ],
    f"{DOCS}#cel-options-language-features-and-libraries": [
        "' a '.trim() == 'a'",
        "'aBc'.lowerAscii() == 'abc'",
        "'aBc'.upperAscii() == 'ABC'",
        "'abc'.charAt(1) == 'b'",
        "'abcb'.indexOf('b') == 1",
        "'abcb'.indexOf('b', 2) == 3",
        "'abcb'.lastIndexOf('b') == 3",
        "'a,b,c'.split(',') == ['a', 'b', 'c']",
        "'a,b,c'.split(',', 2) == ['a', 'b,c']",
        "'abc'.substring(1) == 'bc'",
        "'abc'.substring(1, 2) == 'b'",
        "'hello'.replace('l', 'L') == 'heLLo'",
        "'hello'.replace('l', 'L', 1) == 'heLlo'",
        "self.names.join('-') == 'a-b'",
        "'%s is %d'.format(['x', 1]) == 'x is 1'",
        "strings.quote('a\"b') == '\"a\\\\\"b\"'",
        "sets.contains([1, 2, 3], [3, 1])",
        "sets.equivalent([1, 1, 2], [2, 1])",
        "!sets.intersects([1], [2])",
        "[3, 1, 2].sort() == [1, 2, 3]",
        "[1, 2, 1].distinct() == [1, 2]",
        "[[1], [2, 3]].flatten() == [1, 2, 3]",
        "lists.range(3) == [0, 1, 2]",
        "[1, 2, 3].slice(1, 3) == [2, 3]",
        "[1, 2, 3].reverse() == [3, 2, 1]",
        "[3, 1, 2].sortBy(x, -x) == [3, 2, 1]",
        "1 < 1.5",
        "self.?absent.orValue('x') == 'x'",
        "self.?names.hasValue()",
        "optional.of(1).value() == 1",
        "[?optional.none(), 1] == [1]",
    ],
    f"{pages.CEL_SPECIFICATION}#macros": [
        "self.numbers.all(i, v, v == i + 1)",
        "self.labels.exists(k, v, k == 'a' && v == 'x')",
        "self.numbers.existsOne(i, v, v == 2)",
        "self.numbers.transformList(i, v, v * i) == [0, 2, 6]",
        "self.labels.transformMap(k, v, v + '!') == {'a': 'x!', 'b': 'y!'}",
        "self.labels.transformMapEntry(k, v, {v: k}) == {'x': 'a', 'y': 'b'}",
        "self.numbers.filter(n, n > 1).map(n, n * 2) == [4, 6]",
        "self.numbers.map(n, n > 1, n * 2) == [4, 6]",
        "self.numbers.exists_one(n, n == 2)",
    ],
    f"{pages.DOCS}{pages.DEFINITIONS}#available-validation-functions": [
        "timestamp(self.when) > timestamp('2020-01-01T00:00:00Z')",
        "timestamp(self.when).getFullYear() == 2024",
        "duration(self.lasts) == duration('90m')",
        "self.bytes == b'hello'",
        "self.ratio == 2.0",
        "type(self.port) == int",
    ],
}
CASES = [
    (f"c{number}-{at}", url, expression)
    for number, (url, expressions) in enumerate(LIBRARIES.items())
    for at, expression in enumerate(expressions)
]


def _text(**more: Any) -> dict[str, Any]:
    return {"type": "string", "maxLength": 40, **more}


def schema() -> dict[str, Any]:
    rules = []
    for case, _, expression in CASES:
        for name, asked in ((case, f"({expression})"), (f"not-{case}", f"!({expression})")):
            rule = f"!has(self.name) || self.name != '{name}' || {asked}"
            rules.append({"rule": rule, "message": name})
    properties = {
        "name": _text(),
        "numbers": {"type": "array", "maxItems": 5, "items": {"type": "integer"}},
        "names": {"type": "array", "maxItems": 5, "items": _text()},
        "labels": {"type": "object", "maxProperties": 5, "additionalProperties": _text()},
        "when": _text(format="date-time"),
        "lasts": _text(format="duration"),
        "bytes": _text(format="byte"),
        "ratio": {"type": "number"},
        "port": {"x-kubernetes-int-or-string": True},
        "absent": _text(),
    }
    spec = {"type": "object", "properties": properties, "x-kubernetes-validations": rules}
    return {"type": "object", "properties": {"spec": spec}}


SPEC = {
    "numbers": [1, 2, 3], "names": ["a", "b"], "labels": {"a": "x", "b": "y"},
    "when": "2024-01-31T10:00:00Z", "lasts": "90m", "bytes": "aGVsbG8=",
    "ratio": 2, "port": 80,
}  # fmt: skip


@pytest.fixture(scope="module")
def asked(cluster: Cluster) -> Iterator[Cluster]:
    wire = definition("rules", GROUP, schema())
    wire["spec"]["names"].pop("shortNames")
    cluster.post(DEFINITIONS, wire).ok()
    eventually(lambda: cluster.get(PATH).code == 200)
    yield cluster
    cluster.delete(CRD).ok()
    eventually(lambda: cluster.get(CRD).code == 404)


def ask(cluster: Cluster, name: str) -> Reply:
    wire = {
        "apiVersion": f"{GROUP}/v1", "kind": "Rule", "metadata": {"generateName": "r-"},
        "spec": {**SPEC, "name": name},
    }  # fmt: skip
    return cluster.post(PATH, wire, dryRun="All")


@pytest.mark.parametrize(
    ("case", "expression"),
    [
        pytest.param(case, expression, marks=page(url), id=expression)
        for case, url, expression in CASES
    ],
)
def test_a_function_of_cel(asked: Cluster, case: str, expression: str) -> None:
    """The rule holds, and its contrary does not: neither of them fails."""
    ask(asked, case).ok()
    refused = ask(asked, f"not-{case}")
    assert refused.code == 422
    assert refused.message.endswith(f"spec: Invalid value: not-{case}")


@pytest.fixture
def rule(cluster: Cluster) -> Iterator[Callable[..., Reply]]:
    """Makes a definition with one rule on its spec."""
    path = f"{DEFINITIONS}/strains.{GROUP}"

    def make(schema: dict[str, Any], **rule: Any) -> Reply:
        spec = {**schema, "x-kubernetes-validations": [rule]}
        wire = definition("strains", GROUP, {"type": "object", "properties": {"spec": spec}})
        wire["spec"]["names"].pop("shortNames")
        reply = cluster.post(DEFINITIONS, wire)
        if reply.code == 201:
            eventually(lambda: cluster.get(STRAINS).code == 200)
        return reply

    yield make
    cluster.delete(path)
    eventually(lambda: cluster.get(path).code == 404)


STRAINS = f"/apis/{GROUP}/v1/namespaces/default/strains"


def strain(cluster: Cluster, spec: Any, **query: str) -> Reply:
    wire = {
        "apiVersion": f"{GROUP}/v1", "kind": "Strain", "metadata": {"name": "x"}, "spec": spec,
    }  # fmt: skip
    return cluster.post(STRAINS, wire, **query)


NUMBERS = {"type": "array", "maxItems": 1000, "items": {"type": "integer"}}


@page(pages.CEL, "resource-constraints")
def test_a_rule_that_costs_too_much_is_ended(cluster: Cluster, rule: Callable[..., Reply]) -> None:
    source = "self.all(x, self.all(y, x + y >= 0))"
    rule(NUMBERS, rule=source).ok()
    strain(cluster, list(range(50)), dryRun="All").ok()
    reply = strain(cluster, list(range(1000)))
    assert (reply.code, reply.fields) == (422, ["spec"])
    assert reply.message.endswith(
        "spec: Invalid value: \"array\": 'operation cancelled: actual cost limit exceeded': no "
        "further validation rules will be run due to call cost exceeds limit for rule: " + source
    )


@page(pages.DEFINITIONS, "transition-rules")
def test_an_optional_old_self(cluster: Cluster, rule: Callable[..., Reply]) -> None:
    """A rule with optionalOldSelf is asked when an object is made too."""
    rule(
        {"type": "integer"}, optionalOldSelf=True, message="from 1, and up",
        rule="oldSelf.hasValue() ? self > oldSelf.value() : self == 1",
    ).ok()  # fmt: skip
    assert strain(cluster, 2).message.endswith("spec: Invalid value: 2: from 1, and up")
    strain(cluster, 1).ok()
    assert cluster.merge(f"{STRAINS}/x", {"spec": 2}).code == 200
    assert cluster.merge(f"{STRAINS}/x", {"spec": 0}).code == 422
    unchanged = cluster.merge(f"{STRAINS}/x", {"metadata": {"labels": {"a": "b"}}})
    assert unchanged.code == 422, "rules about changes are asked though nothing changed"


VALUES: dict[str, tuple[dict[str, Any], Any]] = {
    "integer": ({"type": "integer"}, 2),
    "number": ({"type": "number"}, 2.5),
    "string": ({"type": "string"}, "x"),
    "boolean": ({"type": "boolean"}, True),
    "array": ({"type": "array", "maxItems": 5, "items": {"type": "integer"}}, [1]),
    "object": ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": 1}),
}
REASONS = {
    "FieldValueInvalid": ("Invalid value: {}: no", "Invalid value: no"),
    "FieldValueDuplicate": ("Duplicate value: {}", "Duplicate value"),
    "FieldValueForbidden": ("Forbidden: no", "Forbidden: no"),
    "FieldValueRequired": ("Required value: no", "Required value: no"),
}
"""What is said of a broken rule: of a value alone, and of one that has others within."""
FAILURES = {
    "self.z / self.z == 1": "division by zero evaluating rule: ",
    "self.max + self.max > 0": "integer overflow evaluating rule: ",
    "int(self.s) == 1": "type conversion error from 'string' to 'int' evaluating rule: ",
    "self.absent == 1": "no such key: absent evaluating rule: ",
    "self.l[7] == 1": "index out of bounds: 7 evaluating rule: ",
    "self.e.max() == 1": "max called on empty list evaluating rule: ",
    "optional.none().value() == 1": "optional.none() dereference evaluating rule: ",
    "url(self.s).getHost() == ''": (
        'URL parse error during conversion from string: parse "ab": invalid URI for request '
        "evaluating rule: "
    ),
    "self.p < 5": (
        "'no such overload': call arguments did not match a supported operator, function or macro "
        "signature for rule: "
    ),
}
FLAWS = f"/apis/{GROUP}/v1/namespaces/default/flaws"


def flaws() -> dict[str, Any]:
    """A field for each case: what an object does not have is not judged."""
    found = {
        f"{kind}{reason}": {
            **schema, "x-kubernetes-validations": [
                {"rule": "1 == 2", "message": "no", "reason": reason}
            ],
        }
        for kind, (schema, _) in VALUES.items()
        for reason in REASONS
    }  # fmt: skip
    integers = {"type": "array", "maxItems": 3, "items": {"type": "integer"}}
    names = {
        "z": {"type": "integer"}, "max": {"type": "integer"}, "absent": {"type": "integer"},
        "s": {"type": "string", "maxLength": 9}, "l": integers, "e": integers,
        "p": {"x-kubernetes-int-or-string": True},
    }  # fmt: skip
    for at, expression in enumerate(FAILURES):
        rules = [{"rule": expression}]
        found[f"failure{at}"] = {
            "type": "object", "properties": names, "x-kubernetes-validations": rules,
        }  # fmt: skip
    return {"type": "object", "properties": {"spec": {"type": "object", "properties": found}}}


@pytest.fixture(scope="module")
def flawed(cluster: Cluster) -> Iterator[Cluster]:
    wire = definition("flaws", GROUP, flaws())
    wire["spec"]["names"].pop("shortNames")
    cluster.post(DEFINITIONS, wire).ok()
    eventually(lambda: cluster.get(FLAWS).code == 200)
    yield cluster
    cluster.delete(f"{DEFINITIONS}/flaws.{GROUP}").ok()
    eventually(lambda: cluster.get(f"{DEFINITIONS}/flaws.{GROUP}").code == 404)


def flaw(cluster: Cluster, field: str, value: Any) -> dict[str, Any]:
    """The first cause of the refusal of an object with this field."""
    wire = {
        "apiVersion": f"{GROUP}/v1", "kind": "Flaw", "metadata": {"name": "x"},
        "spec": {field: value},
    }  # fmt: skip
    reply = cluster.post(FLAWS, wire, dryRun="All")
    assert reply.code == 422, reply.text
    found: dict[str, Any] = reply.json["details"]["causes"][0]
    return found


@page(pages.DEFINITIONS, "field-reason")
@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.parametrize("reason", list(REASONS))
def test_a_broken_rule_shows_the_value(flawed: Cluster, kind: str, reason: str) -> None:
    value = VALUES[kind][1]
    alone, within = REASONS[reason]
    text = within if kind in ("array", "object") else alone.format(json.dumps(value))
    field = f"{kind}{reason}"
    assert flaw(flawed, field, value) == {
        "reason": reason, "message": text, "field": f"spec.{field}",
    }  # fmt: skip


@page(pages.DEFINITIONS, "validation-rules")
@pytest.mark.parametrize("expression", list(FAILURES))
def test_a_rule_that_fails_says_why(flawed: Cluster, expression: str) -> None:
    value = {"z": 0, "max": 2**63 - 1, "s": "ab", "l": [1], "e": [], "p": "x"}
    found = flaw(flawed, f"failure{list(FAILURES).index(expression)}", value)
    assert found["message"] == f'Invalid value: "object": {FAILURES[expression]}{expression}'
