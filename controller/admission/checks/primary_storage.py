"""PrimaryStorage: its clusters are in its zone."""

from __future__ import annotations

from controller.admission.attached import in_one_zone as check

KIND = "PrimaryStorage"

__all__ = ["KIND", "check"]
