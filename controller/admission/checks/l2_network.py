"""L2Network: its clusters are in its zone."""

from __future__ import annotations

from controller.admission.attached import in_one_zone as check

KIND = "L2Network"

__all__ = ["KIND", "check"]
