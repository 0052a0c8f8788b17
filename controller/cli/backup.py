"""``kumulus backup`` and ``kumulus restore``: the embedded API server's objects in one file."""

from __future__ import annotations

from pathlib import Path

from controller.apiserver.store import DATABASE
from controller.apiserver.store import backup as copies
from controller.apiserver.store.lock import StoreInUse
from controller.apiserver.store.schema import CorruptStore
from controller.cli.output import CommandFailed, say, shown
from controller.up import state
from controller.up.layout import Layout


def back_up(data_dir: Path, target: Path) -> None:
    """Raises CommandFailed."""
    try:
        found = copies.backup(data_dir / DATABASE, target)
    except (CorruptStore, OSError) as error:
        raise CommandFailed(str(error)) from None
    size = f"{found.size / 2**20:.1f} MiB"
    say(f"{found.objects} objects, version {found.version}, {size}: {shown(target.absolute())}")


def put_back(data_dir: Path, source: Path) -> None:
    """Raises CommandFailed, above all while the cloud runs."""
    if state.running(Layout(data_dir)) is not None:
        raise CommandFailed(f"the cloud on {shown(data_dir)} runs; stop it first (kumulus down)")
    try:
        found = copies.restore(source, data_dir / DATABASE)
    except (CorruptStore, StoreInUse, OSError) as error:
        raise CommandFailed(str(error)) from None
    say(f"{found.objects} objects, version {found.version}, restored to {shown(data_dir)}")
    say(f"What was there before: {shown(data_dir / DATABASE)}.before-restore")
