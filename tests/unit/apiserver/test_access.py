"""RBAC rules, tokens, aggregation: the pure parts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from controller.apiserver.access import defaults, tokens
from controller.apiserver.access.keeper import collected
from controller.apiserver.access.rules import Rule, described, missing, url_covers
from controller.apiserver.access.tokens import Account, BadTokenFile, Signer
from controller.apiserver.access.validation import check_cluster_role, check_cluster_role_binding
from controller.apiserver.admission import User
from controller.apiserver.auth import Attempt, refusal

_VERBS, _GROUPS = ("get", "list", "*"), ("", "apps", "*")
_RESOURCES, _NAMES = ("a", "b", "a/status", "*/status", "*"), ("x", "y")
_SOMEBODY = User("somebody")


def _some(values: tuple[str, ...], least: int = 1) -> Any:
    return st.lists(st.sampled_from(values), min_size=least, max_size=3, unique=True).map(tuple)


_resource_rules = st.builds(
    Rule, verbs=_some(_VERBS), groups=_some(_GROUPS), resources=_some(_RESOURCES),
    names=_some(_NAMES, 0),
)  # fmt: skip
_url_rules = st.builds(Rule, verbs=_some(_VERBS), urls=_some(("/a", "/a/*", "/a/b", "*")))
_rules = st.lists(st.one_of(_resource_rules, _url_rules), max_size=4)
_ATTEMPTS = [
    Attempt(_SOMEBODY, verb, "", group, resource, sub, "", name)
    for verb, group, resource, sub, name in itertools.product(
        ("get", "list", "delete"), ("", "apps", "other"), ("a", "b", "c"), ("", "status", "scale"),
        ("", "x", "y"),
    )
] + [Attempt(_SOMEBODY, verb, path) for verb in ("get", "list")
     for path in ("/a", "/a/b", "/a/c/d", "/z")]  # fmt: skip


@given(held=_rules, wanted=_rules)
def test_what_is_covered_allows_nothing_more(held: list[Rule], wanted: list[Rule]) -> None:
    if missing(held, wanted):
        return
    for attempt in _ATTEMPTS:
        if any(rule.allows(attempt) for rule in wanted):
            assert any(rule.allows(attempt) for rule in held), attempt


@given(_rules)
def test_everybody_covers_himself(rules: list[Rule]) -> None:
    assert missing(rules, rules) == []


@given(_resource_rules)
def test_a_rule_survives_its_wire(rule: Rule) -> None:
    assert Rule.of(rule.wire()) == rule


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [("/a", "/a", True), ("/a", "/a/b", False), ("/a/*", "/a/b", True), ("/a/*", "/a", False),
     ("*", "/z", True), ("/a*", "/ab", True)],
)  # fmt: skip
def test_urls(pattern: str, path: str, covered: bool) -> None:
    assert url_covers(pattern, path) is covered


def test_rules_are_described_as_upstream_does() -> None:
    lacking = missing([], [Rule(("get", "list"), ("",), ("secrets",), ("x",))])
    assert described(lacking) == [
        '{APIGroups:[""], Resources:["secrets"], ResourceNames:["x"], Verbs:["get" "list"]}'
    ]


def test_refusals() -> None:
    attempt = Attempt(_SOMEBODY, "patch", "", "g", "things", "status", "n", "x")
    assert refusal(attempt) == (
        'User "somebody" cannot patch resource "things/status" in API group "g" in the namespace '
        '"n"'
    )
    assert refusal(Attempt(_SOMEBODY, "get", "/p")) == 'User "somebody" cannot get path "/p"'


def test_default_objects_are_valid() -> None:
    for role in defaults.cluster_roles():
        assert check_cluster_role(role, None) == [], role["metadata"]["name"]
    for binding in defaults.cluster_role_bindings():
        assert check_cluster_role_binding(binding, None) == [], binding["metadata"]["name"]


def test_view_collects_no_secrets() -> None:
    roles = {role["metadata"]["name"]: role for role in defaults.cluster_roles()}
    for name in ("view", "edit", "admin"):
        roles[name]["rules"] = collected(roles[name], list(roles.values()))
    rules = [Rule.of(rule) for rule in roles["view"]["rules"]]
    secret = Attempt(_SOMEBODY, "get", "", "", "secrets")
    assert not any(rule.allows(secret) for rule in rules)
    admin = [Rule.of(rule) for rule in roles["admin"]["rules"]]
    assert any(rule.allows(secret) for rule in admin)
    assert missing(admin, rules) == []


# Tokens


def _signer(clock: list[float]) -> Signer:
    return Signer(ec.generate_private_key(ec.SECP256R1()), lambda: clock[0])


def test_a_token_is_good_for_its_time() -> None:
    clock = [1000.0]
    signer = _signer(clock)
    token, ends = signer.sign(Account("n", "a", "u"), ["x"], 600)
    claims = signer.claims(token)
    assert claims is not None
    assert ends == 1600
    for moment, good in ((999, False), (1000, True), (1599, True), (1600, False)):
        clock[0] = moment
        assert signer.in_time(claims) is good


def test_anothers_token_is_none_of_ours() -> None:
    token, _ = _signer([1000.0]).sign(Account("n", "a", "u"), ["x"], 600)
    assert _signer([1000.0]).claims(token) is None


@given(st.text(max_size=200))
def test_noise_is_no_token(text: str) -> None:
    assert _NOISE.claims(text) is None


_NOISE = _signer([1000.0])


def test_the_key_is_kept(tmp_path: Path) -> None:
    first = Signer.load(tmp_path / "key")
    token, _ = first.sign(Account("n", "a", "u"), ["x"], 600)
    assert Signer.load(tmp_path / "key").claims(token) is not None


def test_static_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text('abc,ann,1,"g1, g2"\n\ndef,dan,2\n')
    find = tokens.static_tokens(path)
    assert find("abc") == User("ann", frozenset({"g1", "g2"}), "1")
    assert find("def") == User("dan", frozenset(), "2")
    assert find("") is None
    assert find("ab") is None


def test_a_bad_token_file_names_its_line_and_no_token(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("abc,ann,1\nsecret,nobody\n")
    with pytest.raises(BadTokenFile, match="line 2") as caught:
        tokens.static_tokens(path)
    assert "secret" not in str(caught.value)
