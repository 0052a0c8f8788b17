"""A replica that is alone, for tests that are not about sharding."""

from __future__ import annotations

from controller.sharding.arcs import EVERYTHING, Arcs
from controller.sharding.base import Follower


class Everything:
    """Implements sharding.base.Sharding: owns all there is."""

    generation = 1
    arcs: Arcs = EVERYTHING

    def owns(self, uid: str) -> bool:
        return True

    def check(self, uid: str) -> None:
        return None

    def follow(self, follower: Follower) -> None:
        return None
