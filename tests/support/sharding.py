"""A replica without a ring, for tests that are not about the ring itself."""

from __future__ import annotations

from controller.sharding.arcs import EVERYTHING, Arcs
from controller.sharding.base import Follower


class Everything:
    """Implements sharding.base.Sharding: owns all there is but ``foreign``."""

    def __init__(self) -> None:
        self.foreign: set[str] = set()

    generation = 1
    arcs: Arcs = EVERYTHING

    def owns(self, uid: str) -> bool:
        return uid not in self.foreign

    def check(self, uid: str) -> None:
        return None

    def follow(self, follower: Follower) -> None:
        return None
