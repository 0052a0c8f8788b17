"""The store: an append-only log in SQLite; in memory what there is, and the latest changes."""

from controller.apiserver.store.bodies import Entry, Forgotten
from controller.apiserver.store.lock import StoreInUse
from controller.apiserver.store.memory import Change, ChangeType, ObjectKey
from controller.apiserver.store.schema import CorruptStore
from controller.apiserver.store.store import Store, StoreFailure
from controller.apiserver.store.subscription import Subscription

DATABASE = "apiserver.db"
"""What the file is called in a server's data directory."""

__all__ = [
    "DATABASE",
    "Change",
    "ChangeType",
    "CorruptStore",
    "Entry",
    "Forgotten",
    "ObjectKey",
    "Store",
    "StoreFailure",
    "StoreInUse",
    "Subscription",
]
