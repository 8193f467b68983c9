"""`Context`: everything that belongs to one forward pass and that all layers of the decoder share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from lorgnette.model.batch import Spans
from lorgnette.model.cache import Cache


@dataclass(frozen=True)
class Context:
    """One forward pass over packed documents. Shapes: see the legend in `vlm.py`."""

    positions_T: Tensor
    """Position of each token within its document."""
    documents: Spans
    """Tokens that attend to each other."""
    cache: Cache | None = None
    """Keys and values of the tokens before these, which the pass continues."""
    rows_T: Tensor | None = None
    """Tokens whose hidden states are read, all if None: the last layer computes no others."""
    rotary: tuple[Tensor, Tensor] | None = None
    """Cosine and sine of every token's rotation; see `rope.rotation`."""

    @property
    def longest(self) -> int:
        """Tokens of the longest document, those in the cache included."""
        return self.documents.longest if self.cache is None else self.cache.seen.longest

    def all_rows(self) -> Context:
        """The same pass for a layer before the last, of which every token is read."""
        return self if self.rows_T is None else dataclasses.replace(self, rows_T=None)
