"""A replica without a ring, for tests that are not about the ring itself."""

from __future__ import annotations

from controller.sharding.arcs import EVERYTHING, Arcs
from controller.sharding.base import Follower


class Everything:
    """Implements sharding.base.Sharding: owns all there is on ``arcs`` but ``foreign``."""

    def __init__(self, arcs: Arcs = EVERYTHING) -> None:
        self.foreign: set[str] = set()
        self.arcs = arcs

    generation = 1

    def owns(self, uid: str) -> bool:
        return uid not in self.foreign and self.arcs.covers(uid)

    def check(self, uid: str) -> None:
        return None

    def follow(self, follower: Follower) -> None:
        return None
