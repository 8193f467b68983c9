"""Keys and values of documents that are being continued: prefill packed documents, then one token per document."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lorgnette.model.batch import IGNORE_INDEX, Batch, SequenceLengths
from lorgnette.model.config import VLMConfig
from lorgnette.model.context import DecodeRows
from lorgnette.model.ops.attention import attention, has_varlen, varlen
from lorgnette.model.ops.grouped_attention import fused_attention
from lorgnette.model.sight import SeenImages


class KVCache:
    """One row of slots per document and layer: `keys[layer]` and `values[layer]` are B,S,G,N, and `lengths` are filled.

    The first forward with an empty cache sets the documents; each later one continues all of them, in the same order.
    Rows grow as needed. One decode step is one fused attention call per layer for all documents, whatever their
    lengths. A cache is for inference: no gradients flow through it.
    """

    def __init__(self, config: VLMConfig, *, reserve: int = 64):
        """reserve: free slots to make beside the tokens at hand; say how many tokens you will generate."""
        self.config = config
        self.reserve = reserve
        self.lengths: tuple[int, ...] = ()
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.images: dict[int, SeenImages] = {}
        """Images that the blocks of cross-attention keep, by decoder layer. They do not grow with the text."""
        self.decode_rows: DecodeRows | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """Tokens of the longest document, those of the pass that has begun included."""
        return self.seen.longest

    @property
    def capacity(self) -> int:
        """Slots in each row."""
        return self.keys[0].shape[1] if self.keys else 0

    def next(self, tokens_T: Tensor) -> Batch:
        """The batch that continues each document with one token, for `vlm(batch, cache=cache, output="last")`."""
        device = tokens_T.device
        nothing = torch.empty(0, dtype=torch.int64, device=device)
        return Batch(
            tokens_T=tokens_T,
            targets_T=torch.full_like(tokens_T, IGNORE_INDEX),
            positions_T=torch.tensor(self.lengths, device=device),
            documents=SequenceLengths((1,) * len(self)),
            patches_PC=torch.empty(0, self.config.vision.patch_width, dtype=torch.uint8, device=device),
            patch_positions_P=nothing,
            grids=(),
            visual_positions_V=nothing,
        )

    def keep(self, documents: Sequence[int]) -> None:
        """Keep these documents only (indices into the current ones, in the order given)."""
        rows = torch.tensor(documents, dtype=torch.int64, device=self.keys[0].device)
        longest = max((self.lengths[index] for index in documents), default=0)
        self.keys = [_room(k[:, :longest].index_select(0, rows), longest + self.reserve) for k in self.keys]
        self.values = [_room(v[:, :longest].index_select(0, rows), longest + self.reserve) for v in self.values]
        self.images = {layer: stored.keep(documents) for layer, stored in self.images.items()}
        self.lengths = tuple(self.lengths[index] for index in documents)

    def begin(self, documents: SequenceLengths, like: Tensor) -> None:
        """Make room for the new tokens of every document. Called once per forward, before the layers."""
        if not self.lengths:
            self.lengths = (0,) * len(documents)
        if len(documents) != len(self.lengths):
            raise ValueError(
                f"{len(documents)} documents do not continue the {len(self.lengths)} in the cache; use keep()"
            )
        self.seen = SequenceLengths(tuple(a + b for a, b in zip(self.lengths, documents.lengths, strict=True)))
        language = self.config.language
        if self.seen.longest > self.capacity:
            capacity = self.seen.longest + max(self.reserve, self.capacity // 2)
            if not self.keys:
                shape = (len(documents), 0, language.kv_heads, language.head_width)
                self.keys = [like.new_empty(shape) for _ in range(language.layers)]
                self.values = [like.new_empty(shape) for _ in range(language.layers)]
            self.keys = [_room(k, capacity) for k in self.keys]
            self.values = [_room(v, capacity) for v in self.values]
        self.decode_rows = None
        if documents.longest == 1 == min(documents.lengths):
            starts = range(0, len(documents) * self.capacity, self.capacity)
            self.decode_rows = DecodeRows(starts, self.seen.lengths)
        self.new_slots = self._slots(self.lengths, documents.lengths, like.device)
        self.masks = {window: self._mask(like, window) for window in {*language.windows}}

    def tables(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of all slots of a layer: B,S,G,N."""
        return self.keys[layer], self.values[layer]

    def images_of(self, layer: int) -> SeenImages | None:
        """Images that the documents see, for the cross-attention block that stands before this decoder layer."""
        return self.images.get(layer)

    def keep_images(self, layer: int, images: SeenImages) -> None:
        """Keep what the documents go on seeing, for the block before this layer."""
        self.images[layer] = images

    def advance(self) -> None:
        """Count the new tokens as stored. Called once per forward, after the layers."""
        self.lengths = self.seen.lengths

    def attend(self, layer: int, q_THN: Tensor, k_TGN: Tensor, v_TGN: Tensor, documents: SequenceLengths) -> Tensor:
        """Store the new keys and values of this layer, and attend from the new queries to all of their document's."""
        k_BSGN, v_BSGN = self.keys[layer], self.values[layer]
        k_BSGN.flatten(0, 1).index_copy_(0, self.new_slots, k_TGN.detach())
        v_BSGN.flatten(0, 1).index_copy_(0, self.new_slots, v_TGN.detach())
        window, cap = self.config.language.window_of(layer), self.config.language.score_cap
        if cap is None and has_varlen(q_THN):
            rows = SequenceLengths((self.capacity,) * len(self))
            k_SGN, v_SGN = k_BSGN.flatten(0, 1), v_BSGN.flatten(0, 1)
            return varlen(q_THN, k_SGN, v_SGN, documents, rows, causal=True, window=window, used=self.seen)
        if not any(self.lengths):
            return attention(q_THN, k_TGN, v_TGN, documents, documents, causal=True, window=window, cap=cap)
        if documents.longest == 1:
            return self._decode(q_THN, k_BSGN, v_BSGN, self.masks[window])
        slots = self._slots((0,) * len(self), self.seen.lengths, q_THN.device)
        k_SGN, v_SGN = k_BSGN.flatten(0, 1)[slots], v_BSGN.flatten(0, 1)[slots]
        return attention(q_THN, k_SGN, v_SGN, documents, self.seen, causal=True, window=window, cap=cap)

    def _decode(self, q_THN: Tensor, k_BSGN: Tensor, v_BSGN: Tensor, mask: Tensor | None) -> Tensor:
        """One token per document: query heads that share a key-value head stand as rows of one query block."""
        q_BGRN = q_THN.unflatten(1, (k_BSGN.shape[2], -1))
        k_BGSN, v_BGSN = (stored[:, : self.seen.longest].transpose(1, 2) for stored in (k_BSGN, v_BSGN))
        cap = self.config.language.score_cap
        return fused_attention(q_BGRN, k_BGSN, v_BGSN, mask, cap=cap).transpose(1, 2).flatten(1, 2)

    def _mask(self, like: Tensor, window: int | None) -> Tensor | None:
        """0 for the slots of its row that a document's newest token sees, else -inf (B,1,1,S); None: it sees all.

        Made once for all layers of a window, of the type that the kernel wants: a bool mask it would convert in each.
        """
        longest = self.seen.longest
        if set(self.seen.lengths) == {longest} and (window is None or longest <= window):
            return None
        last = torch.tensor(self.seen.lengths, device=like.device)[:, None] - 1
        distance = last - torch.arange(longest, device=like.device)
        seen = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        return like.new_zeros(seen.shape).masked_fill(~seen, float("-inf"))[:, None, None]

    def _slots(self, starts: Sequence[int], lengths: Sequence[int], device: torch.device) -> Tensor:
        """Flat slot numbers (row * capacity + slot) of `lengths` slots of each row from `starts` on, row by row."""
        firsts = [row * self.capacity + start for row, start in enumerate(starts)]
        if set(lengths) == {1}:
            return torch.tensor(firsts, device=device)
        runs = [torch.arange(first, first + length) for first, length in zip(firsts, lengths, strict=True)]
        return torch.cat(runs).to(device)


def _room(stored_BSGN: Tensor, capacity: int) -> Tensor:
    """The same rows with `capacity` slots each."""
    rows, filled, kv_heads, width = stored_BSGN.shape
    roomy = stored_BSGN.new_zeros(rows, capacity, kv_heads, width)
    roomy[:, :filled] = stored_BSGN
    return roomy
