"""Which objects this replica works on."""

from __future__ import annotations

from typing import Protocol


class Sharding(Protocol):
    @property
    def generation(self) -> int:
        """The ring's generation: a fencing token that every agent command carries."""

    def owns(self, uid: str) -> bool:
        """May this replica work on the object with this uid, now?"""


class SingleMember:
    """One controller owns everything, while it holds the Lease; without it, nothing."""

    def __init__(self) -> None:
        self.leading = False
        self.term = 0

    @property
    def generation(self) -> int:
        return self.term

    def owns(self, uid: str) -> bool:
        return self.leading
