"""The pages that the tests check: ``@page(API, "dry-run")`` or ``@kep(5866)`` on each test.

A test that names none fails (``conftest``), and a test that fails shows its page.
"""

from __future__ import annotations

import pytest

DOCS = "https://kubernetes.io/docs/"
ENHANCEMENTS = "https://github.com/kubernetes/enhancements/issues/"
CEL_SPECIFICATION = "https://github.com/google/cel-spec/blob/master/doc/langdef.md"

API = "reference/using-api/api-concepts/"
APPLY = "reference/using-api/server-side-apply/"
CEL = "reference/using-api/cel/"
DEPRECATION = "reference/using-api/deprecation-policy/"
HEALTH = "reference/using-api/health-checks/"
ADMISSION = "reference/access-authn-authz/extensible-admission-controllers/"
AUTHENTICATION = "reference/access-authn-authz/authentication/"
AUTHORIZATION = "reference/access-authn-authz/authorization/"
ACCOUNTS = "reference/access-authn-authz/service-accounts-admin/"
IMPERSONATION = "reference/access-authn-authz/user-impersonation/"
RBAC = "reference/access-authn-authz/rbac/"
KUBECTL = "reference/kubectl/generated/"
KUBECTL_OUTPUT = "reference/kubectl/"
DEFINITIONS = "tasks/extend-kubernetes/custom-resources/custom-resource-definitions/"
VERSIONS = "tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/"
CASCADE = "tasks/administer-cluster/use-cascading-deletion/"
PATCHES = "tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/"
FIELD_SELECTORS = "concepts/overview/working-with-objects/field-selectors/"
FINALIZERS = "concepts/overview/working-with-objects/finalizers/"
LABELS = "concepts/overview/working-with-objects/labels/"
NAMES = "concepts/overview/working-with-objects/names/"
NAMESPACES = "concepts/overview/working-with-objects/namespaces/"
OWNERS = "concepts/overview/working-with-objects/owners-dependents/"
COLLECTION = "concepts/architecture/garbage-collection/"
OVERVIEW = "concepts/overview/kubernetes-api/"


def page(document: str, anchor: str = "") -> pytest.MarkDecorator:
    """``document`` is one of the constants above, below https://kubernetes.io/docs/."""
    url = document if document.startswith("https:") else DOCS + document
    return pytest.mark.page(f"{url}#{anchor}" if anchor else url)


def kep(number: int) -> pytest.MarkDecorator:
    """A Kubernetes Enhancement Proposal."""
    return pytest.mark.page(f"{ENHANCEMENTS}{number}")


def of(item: pytest.Item) -> str:
    """The page that a test itself (not its module) names; empty if it names none."""
    for mark in item.own_markers:
        if mark.name == "page" and mark.args and str(mark.args[0]).startswith("https://"):
            return str(mark.args[0])
    return ""
