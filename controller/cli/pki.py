"""``kumulus pki``: certificates for agents."""

from __future__ import annotations

import shutil
from pathlib import Path

from agents.wire import Role, server_name
from common.pki import Authority
from controller.cli.output import CommandFailed, say


def issue(name: str, role: str, output: Path, authority: Path) -> None:
    """Write <name>.<role>.crt, its .key and the authority's ca.crt into ``output``."""
    known: dict[str, Role] = {"host": "host", "store": "store"}
    if role not in known:
        raise CommandFailed(f"no role {role!r}; --role is host or store")
    try:
        issuer = Authority.load(authority)
    except FileNotFoundError:
        raise CommandFailed(
            f"no certificate authority in {authority}; `kumulus up` and `kumulus run` make one, "
            "or name another with --pki-dir"
        ) from None
    identity = server_name(name, known[role])
    pair = issuer.issue(
        output, f"{name}.{role}", common_name=identity[:64], dns=(identity,),
        server=True, client=True,
    )  # fmt: skip
    shutil.copyfile(issuer.ca, output / "ca.crt")
    say(f"{identity}: {pair.cert}, {pair.key} and {output / 'ca.crt'}; valid for a year")
