"""`Context`: everything that belongs to one forward pass and that all layers of the decoder share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from lorgnette.model.batch import SequenceLengths
from lorgnette.model.sight import SeenImages, VisualTokens


@dataclass(eq=False)
class DecodeRows:
    """Places of the documents of a decode step in the tables of a KV cache. Each document has one new token."""

    starts: Sequence[int]
    """First slot of each document."""
    lengths: Sequence[int]
    """Tokens of each document, the new one included, in slots one after the other."""
    work: Any = None
    """Working memory of compiled layers, made by the first of them."""


class CachedDocuments(Protocol):
    """Keys and values of the documents that a pass continues: all that the decoder asks of a KV cache."""

    decode_rows: DecodeRows | None
    """Where the documents lie, if each has one new token. Known after `begin`."""

    def tables(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of all slots, contiguous: slots, heads and the elements of a head are the last dimensions."""

    @property
    def longest(self) -> int:
        """Tokens of the longest document, those of this pass included. Known after `begin`."""

    def begin(self, documents: SequenceLengths, like: Tensor) -> None:
        """Make room for the new tokens of every document. Called once per pass, before the layers."""

    def attend(self, layer: int, q_THN: Tensor, k_TGN: Tensor, v_TGN: Tensor, documents: SequenceLengths) -> Tensor:
        """Store new keys and values, and attend from the new queries to all of their document's: T,H,N."""

    def images_of(self, layer: int) -> SeenImages | None:
        """Images that the documents see, for the cross-attention block that stands before this decoder layer."""

    def keep_images(self, layer: int, images: SeenImages) -> None:
        """Keep what the documents go on seeing, for the block before this layer. Called where a pass shows images."""

    def advance(self) -> None:
        """Count the new tokens as stored. Called once per pass, after the layers."""


@dataclass(frozen=True)
class Context:
    """One forward pass over packed documents. Shapes: see the legend in `vlm.py`."""

    positions_T: Tensor
    """Position of each token within its document."""
    documents: SequenceLengths
    """Tokens that attend to each other."""
    cache: CachedDocuments | None = None
    """Keys and values of the tokens before these, which the pass continues."""
    rows_T: Tensor | None = None
    """Tokens whose hidden states are read, all if None: the last layer computes no others."""
    visual: VisualTokens | None = None
    """Visual tokens of the pass, for blocks that attend to them beside the sequence."""
    rotary: tuple[Tensor, Tensor] | None = None
    """Cosine and sine of every token's rotation; see `rope.rotation`."""
    local_rotary: tuple[Tensor, Tensor] | None = None
    """The same for layers with a window."""

    @property
    def longest(self) -> int:
        """Tokens of the longest document, those in the cache included."""
        return self.documents.longest if self.cache is None else self.cache.longest

    def all_rows(self) -> Context:
        """The same pass for a layer before the last, of which every token is read."""
        return self if self.rows_T is None else dataclasses.replace(self, rows_T=None)
