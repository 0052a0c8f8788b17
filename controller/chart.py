"""Writes the generated parts of the Helm chart: ``python -m controller.chart [--check]``.

``charts/kumulus/templates/_generated.tpl`` has the rules of the roles, from what the code declares
(``controller.rights``), and the webhook's, from the kinds; ``charts/kumulus/files/crds`` the
definitions. With ``--check`` nothing is written: the exit code is 1 when a file is missing, stale
or left over. Plugins that happen to be installed do not count.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from controller.admission.registration import webhooks
from controller.registry import Registry, discover
from controller.rights import declared, select
from crds.generate import asked_to_check, bring, manifest

CHART = Path("charts/kumulus")
DEFINITIONS = CHART / "files/crds"
TEMPLATE = CHART / "templates/_generated.tpl"
HEADER = "{{/* Generated from the code by `make generate`; edit that, not this file. */}}\n"
_ELSEWHERE = frozenset({"name", "clientConfig", "failurePolicy", "namespaceSelector"})
"""Of the webhook: what the chart's own template says."""


def outputs() -> dict[Path, str]:
    """Every generated file: path below the project's root → text."""
    registry = discover(plugins=[])
    definitions = {
        DEFINITIONS / f"{model.INFO.plural}.yaml": manifest(model)
        for model in registry.models.values()
    }
    return {**definitions, TEMPLATE: template(registry)}


def template(registry: Registry) -> str:
    """The named templates that others include."""
    rights = declared(registry)
    (webhook,) = webhooks("", b"", registry.models.values())
    parts = {
        "kumulus.rights.cluster": select(rights, home=False),
        "kumulus.rights.home": select(rights, home=True),
        "kumulus.rights.admission": select(rights, home=False, features=("admission",)),
        "kumulus.webhook": {k: v for k, v in webhook.items() if k not in _ELSEWHERE},
    }
    return HEADER + "".join(_define(name, content) for name, content in parts.items())


def _define(name: str, content: Any) -> str:
    text = yaml.safe_dump(content, sort_keys=False, width=100)
    return f'{{{{- define "{name}" -}}}}\n{text}{{{{- end -}}}}\n'


def main(arguments: list[str] | None = None) -> int:
    check = asked_to_check("controller.chart", __doc__, arguments)
    return bring(outputs(), DEFINITIONS, check=check)


if __name__ == "__main__":
    sys.exit(main())
