"""Stores of keys and values that documents join and leave at any time.

`SlabStore` gives each document a contiguous slab of slots, so that joining and leaving copy nothing. It suits a CPU,
where one fused call attends from a group of documents of similar lengths to strided views of their slabs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from lorgnette.infer.engine.memory.image_kv import PassImages
from lorgnette.infer.engine.memory.slab_allocator import SlabAllocator
from lorgnette.model.batch import SequenceLengths
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.context import CachedDocuments, DecodeRows
from lorgnette.model.ops.attention import attention
from lorgnette.model.ops.grouped_attention import fused_attention
from lorgnette.model.sight import SeenImages

READ_EMPTY = 0.25
"""Share of the slots that a group of documents reads, at most, without holding a token there."""


@dataclass(eq=False)
class CachedDocument:
    """The place of one document in a store."""

    length: int = 0
    """Tokens stored."""
    room: int = 0
    """Tokens for which there is room."""
    places: list[int] = field(default_factory=list)
    """Location in the store: the first slot of its slab, or its pages."""
    clean: int = 0
    """Slots, from its first on, that hold its own numbers or zeros."""


class KVStore(Protocol):
    """Keys and values of documents. Memory is fixed at the start; what does not fit is answered by None or False."""

    slot_bytes: int
    """Memory of a token in all layers."""
    total: int
    """Tokens for which there is room in all."""

    @property
    def used(self) -> int:
        """Tokens for which room is taken."""

    @property
    def longest(self) -> int:
        """Tokens of the longest document that an empty store can hold."""

    def join(self, room: int) -> CachedDocument | None:
        """A new document, with room for so many tokens."""

    def grow(self, document: CachedDocument, room: int) -> bool:
        """Make room for so many tokens in all; False if there is none, though some may have been found."""

    def fork(self, document: CachedDocument, length: int, room: int) -> CachedDocument | None:
        """A new document that begins with the first `length` tokens of another, and has room for `room` in all."""

    def leave(self, document: CachedDocument) -> None:
        """Free the memory of a document."""

    def begin(self, documents: Sequence[CachedDocument], images: PassImages | None = None) -> CachedDocuments:
        """A pass that continues these documents. Those that get one token come first, in the order of `places`.

        images: what they see through cross-attention.
        """


def bytes_of_slot(config: LanguageConfig, dtype: torch.dtype) -> int:
    """Memory of the keys and values of a token in all layers."""
    return 2 * config.layers * config.kv_heads * config.head_width * dtype.itemsize


class SlabStore:
    """A slab of slots for each document, 64, 128, 256 ... long, in one table of slots per layer."""

    def __init__(self, config: LanguageConfig, memory: int, device: torch.device, dtype: torch.dtype) -> None:
        """memory: bytes of the keys and values of all layers."""
        self.config = config
        self.slot_bytes = bytes_of_slot(config, dtype)
        self.slabs = SlabAllocator(memory // self.slot_bytes)
        self.total, self.longest = self.slabs.total, self.slabs.largest
        shape = (self.total, config.kv_heads, config.head_width)
        # memory that is not touched is not taken from the system: slots are zeroed when they are first read
        self.keys = [torch.empty(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.values = [torch.empty(shape, device=device, dtype=dtype) for _ in range(config.layers)]

    @property
    def used(self) -> int:
        return self.slabs.used

    def join(self, room: int) -> CachedDocument | None:
        start = self.slabs.take(room)
        if start is None:
            return None
        return CachedDocument(0, self.slabs.size_for(room), [start])

    def grow(self, document: CachedDocument, room: int) -> bool:
        while document.room < room and self.slabs.extend(document.places[0], document.room):
            document.room *= 2
        if document.room >= room:
            return True
        larger = self.fork(document, document.length, room)
        if larger is None:
            return False
        self.leave(document)
        document.room, document.places, document.clean = larger.room, larger.places, larger.clean
        return True

    def fork(self, document: CachedDocument, length: int, room: int) -> CachedDocument | None:
        copy = self.join(room)
        if copy is None:
            return None
        source, target = document.places[0], copy.places[0]
        for table in (*self.keys, *self.values):
            table[target : target + length] = table[source : source + length]
        copy.length = copy.clean = length
        return copy

    def leave(self, document: CachedDocument) -> None:
        self.slabs.give(document.places[0], document.room)

    def begin(self, documents: Sequence[CachedDocument], images: PassImages | None = None) -> SlabPass:
        return SlabPass(self, documents, images)

    def clean(self, document: CachedDocument, slots: int, seen: int) -> None:
        """Zero what another document left in these slots: it must not be read, not even with weight 0, if it is NaN.

        seen: tokens with those of this pass, which layers may have written already.
        """
        if slots <= document.clean:
            return
        start, first = document.places[0], max(document.clean, seen)
        last = min(-(-slots // self.slabs.smallest) * self.slabs.smallest, document.room)
        for table in (*self.keys, *self.values):
            table[start + first : start + last].zero_()
        document.clean = last


@dataclass(frozen=True)
class Group:
    """Documents that get one token each, whose slabs lie at equal distances: one view of them all."""

    rows: slice
    """Their new tokens."""
    start: int
    """First slot of the first."""
    stride: int
    """Slots from one to the next."""
    longest: int
    """Slots that are read of each."""
    mask: Tensor | None
    """0 for slots that are seen, else -inf (B,1,1,S); None where all are."""


class SlabPass:
    """One pass over documents of a `SlabStore`: what the decoder attends through."""

    def __init__(self, store: SlabStore, documents: Sequence[CachedDocument], images: PassImages | None) -> None:
        self.store, self.documents, self.images = store, documents, images
        self.decode_rows: DecodeRows | None = None

    def begin(self, documents: SequenceLengths, like: Tensor) -> None:
        known = [one.length for one in self.documents]
        self.seen = SequenceLengths(tuple(a + b for a, b in zip(known, documents.lengths, strict=True)))
        self.singles = next((at for at, new in enumerate(documents.lengths) if new != 1), len(documents))
        if documents.longest == 1 == min(documents.lengths):
            self.decode_rows = DecodeRows([one.places[0] for one in self.documents], self.seen.lengths)
        self.lengths = documents.lengths

    @cached_property
    def new_slots(self) -> Tensor:
        """Slots of the new tokens. Compiled layers ask for neither these nor the groups."""
        firsts = [one.places[0] + one.length for one in self.documents]
        runs = [torch.tensor(firsts[: self.singles], dtype=torch.int64)]
        runs += [torch.arange(a, a + n) for a, n in list(zip(firsts, self.lengths, strict=True))[self.singles :]]
        return torch.cat(runs).to(self.store.keys[0].device)

    @cached_property
    def groups(self) -> dict[int | None, list[Group]]:
        """Documents of one new token each, by the window of a layer."""
        runs = _grouped(self.documents[: self.singles], self.seen.lengths)
        return {window: [self._group(rows, window) for rows in runs] for window in {*self.store.config.windows}}

    @property
    def longest(self) -> int:
        return self.seen.longest

    def tables(self, layer: int) -> tuple[Tensor, Tensor]:
        return self.store.keys[layer], self.store.values[layer]

    def images_of(self, layer: int) -> SeenImages | None:
        return self.images.of(layer) if self.images is not None else None

    def keep_images(self, layer: int, images: SeenImages) -> None:
        """Leave it at that: the keys and values of images belong to the answers that show them, and not to a store."""

    def advance(self) -> None:
        for document, length in zip(self.documents, self.seen.lengths, strict=True):
            document.length, document.clean = length, max(length, document.clean)

    def attend(self, layer: int, q_THN: Tensor, k_TGN: Tensor, v_TGN: Tensor, documents: SequenceLengths) -> Tensor:
        k_SGN, v_SGN = self.store.keys[layer], self.store.values[layer]
        window, cap = self.store.config.window_of(layer), self.store.config.score_cap
        groups = self.groups[window]
        k_SGN.index_copy_(0, self.new_slots, k_TGN)
        v_SGN.index_copy_(0, self.new_slots, v_TGN)
        out = [self._decode(group, q_THN, k_SGN, v_SGN) for group in groups]
        for number in range(self.singles, len(documents)):
            rows = slice(documents.starts[number], documents.starts[number + 1])
            start, seen = self.documents[number].places[0], self.seen.lengths[number]
            slab = slice(start, start + seen)
            spans = SequenceLengths((documents.lengths[number],)), SequenceLengths((seen,))
            new = q_THN[rows], k_SGN[slab], v_SGN[slab]
            out.append(attention(*new, *spans, causal=True, window=window, cap=cap))
        return torch.cat(out) if len(out) > 1 else out[0]

    def _decode(self, group: Group, q_THN: Tensor, k_SGN: Tensor, v_SGN: Tensor) -> Tensor:
        """One token of each document: query heads that share a key-value head stand as rows of one query block."""
        _, heads, width = k_SGN.shape
        q_BGRN = q_THN[group.rows].unflatten(1, (heads, -1))
        shape = (len(q_BGRN), heads, group.longest, width)
        strides = (group.stride * heads * width, width, heads * width, 1)
        first = group.start * heads * width
        k_BGSN, v_BGSN = k_SGN.as_strided(shape, strides, first), v_SGN.as_strided(shape, strides, first)
        cap = self.store.config.score_cap
        return fused_attention(q_BGRN, k_BGSN, v_BGSN, group.mask, cap=cap).transpose(1, 2).flatten(1, 2)

    def _group(self, rows: slice, window: int | None) -> Group:
        lengths, like = self.seen.lengths[rows], self.store.keys[0]
        starts = [one.places[0] for one in self.documents[rows]]
        stride = starts[1] - starts[0] if len(starts) > 1 else 0
        longest = max(lengths)
        if set(lengths) == {longest} and (window is None or longest <= window):
            return Group(rows, starts[0], stride, longest, None)
        if len(lengths) == 1 and window is not None:  # the window alone is read
            return Group(rows, starts[0] + longest - window, 0, window, None)
        distance = torch.tensor(lengths)[:, None] - 1 - torch.arange(longest)
        hidden = (distance < 0) if window is None else (distance < 0) | (distance >= window)
        for document, seen in zip(self.documents[rows], lengths, strict=True):
            self.store.clean(document, longest, seen)
        mask = like.new_zeros(hidden.shape).masked_fill(hidden.to(like.device), float("-inf"))
        return Group(rows, starts[0], stride, longest, mask[:, None, None])


def _grouped(documents: Sequence[CachedDocument], lengths: Sequence[int]) -> list[slice]:
    """Runs of documents that one view holds: at equal distances, each within its slab, few slots read empty."""
    runs: list[slice] = []
    first = 0
    for at in range(1, len(documents) + 1):
        if at == len(documents) or not _fit(documents[first : at + 1], lengths[first : at + 1]):
            runs.append(slice(first, at))
            first = at
    return runs


def _fit(documents: Sequence[CachedDocument], lengths: Sequence[int]) -> bool:
    starts = [one.places[0] for one in documents]
    distances = {later - earlier for earlier, later in pairwise(starts)}
    longest = max(lengths)
    return (
        len(distances) == 1
        and min(distances) > 0
        and longest <= min(one.room for one in documents)
        and sum(lengths) >= (1 - READ_EMPTY) * len(lengths) * longest
    )
