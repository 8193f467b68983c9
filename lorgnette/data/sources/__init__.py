"""Sources: every origin of data, opened as a sequence of `Sample`s."""

from lorgnette.data.sources.open import Source, open_source

__all__ = ["Source", "open_source"]
