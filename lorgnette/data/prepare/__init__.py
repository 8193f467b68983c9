"""Prepares sources: reads each once and writes an index of its records and a list of its rejected rows."""

from lorgnette.data.prepare.job import prepare
from lorgnette.data.prepare.prepared import NotPrepared, Prepared, open_prepared

__all__ = ["NotPrepared", "Prepared", "open_prepared", "prepare"]
