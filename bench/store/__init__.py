"""The run folder: one lock, one plan, append-only records, and recovery after a crash."""

from bench.store.folder import RunFolder
from bench.store.journal import Entry, Journal, StoreError

__all__ = ["Entry", "Journal", "RunFolder", "StoreError"]
