"""``kumulus pki``: certificates for agents and controllers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from agents.wire import CONTROLLER, Role, server_name
from common.pki import Authority, CertPair
from controller import tls
from controller.cli.output import CommandFailed, say


def issue(name: str, role: str, output: Path, authority: Path) -> None:
    """Write <name>.<role>.crt, its .key and the authority's ca.crt into ``output``."""
    known: dict[str, Role] = {"host": "host", "store": "store"}
    if role not in known:
        raise CommandFailed(f"no role {role!r}; --role is host or store")
    issuer = _authority(authority)
    identity = server_name(name, known[role])
    pair = issuer.issue(
        output, f"{name}.{role}", common_name=identity[:64], dns=(identity,),
        server=True, client=True,
    )  # fmt: skip
    _finish(issuer, pair, identity)


def issue_controller(names: Sequence[str], output: Path, authority: Path) -> None:
    """Write controller.crt, its .key and the authority's ca.crt into ``output``."""
    issuer = _authority(authority)
    _finish(issuer, tls.issue(issuer, output, names), CONTROLLER)


def _authority(directory: Path) -> Authority:
    try:
        return Authority.load(directory)
    except FileNotFoundError:
        raise CommandFailed(
            f"no certificate authority in {directory}; `kumulus up` and `kumulus run` make one, "
            "or name another with --pki-dir"
        ) from None
    except (OSError, TypeError, ValueError) as error:
        raise CommandFailed(
            f"cannot use the certificate authority in {directory}: {error}"
        ) from None


def _finish(issuer: Authority, pair: CertPair, identity: str) -> None:
    ca = pair.cert.parent / "ca.crt"
    shutil.copyfile(issuer.ca, ca)
    say(f"{identity}: {pair.cert}, {pair.key} and {ca}; valid for a year")
