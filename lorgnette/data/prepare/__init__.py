"""Preparing: every source is read once, and then known by an index; what is not trained on stands in a ledger."""

from lorgnette.data.prepare.job import prepare
from lorgnette.data.prepare.prepared import NotPrepared, Prepared, open_prepared

__all__ = ["NotPrepared", "Prepared", "open_prepared", "prepare"]
