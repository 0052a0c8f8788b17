"""The store: an append-only log in SQLite, the current state and the latest changes in memory."""

from controller.apiserver.store.lock import StoreInUse
from controller.apiserver.store.memory import Change, ChangeType, Entry, ObjectKey
from controller.apiserver.store.schema import CorruptStore
from controller.apiserver.store.store import Store, StoreFailure, Subscription

__all__ = [
    "Change",
    "ChangeType",
    "CorruptStore",
    "Entry",
    "ObjectKey",
    "Store",
    "StoreFailure",
    "StoreInUse",
    "Subscription",
]
