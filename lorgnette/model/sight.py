"""Sight: the visual tokens that each token of a pass sees, where cross-attention blocks attend to them.

A document is cut at its image slots. From a slot on, its tokens see that image, and with it those before that the
fusion's `sees` adds. Packed documents never share images, whatever their self-attention does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from lorgnette.model.batch import SequenceLengths
from lorgnette.model.configs.fusion_config import Sees

NEIGHBOURS = 2
"""Slots at most so far apart belong to one group: rendering puts one token between images that stand side by side."""

VisualRange = range
"""Visual tokens of one image, or of what a document has seen before, among all that a pass can see."""


def joins(sees: Sees, last: int | None, position: int) -> bool:
    """Return whether a document still sees what it saw before, from an image's slot on.

    last, position: of the slot before, if there is one, and of this one.
    """
    return sees == "all" or (sees == "group" and last is not None and position - last <= NEIGHBOURS)


def first_seen(sees: Sees, positions: Sequence[int]) -> int:
    """Index of the first image that a token sees, from the positions of all slots before it in its document."""
    first = max(len(positions) - 1, 0)
    while first and joins(sees, positions[first - 1], positions[first]):
        first -= 1
    return first


@dataclass(frozen=True)
class SeenBefore:
    """Visual tokens that each document of a cache sees when it is continued."""

    visual: SequenceLengths
    """Visual tokens of each document, none where it has shown no image."""
    lasts: tuple[int | None, ...]
    """Position of each document's last slot."""

    @classmethod
    def nothing(cls, documents: int) -> SeenBefore:
        return cls(SequenceLengths((0,) * documents), (None,) * documents)


@dataclass(frozen=True)
class SeenImages:
    """Keys and values that a block has made of what each document of a cache sees, end to end."""

    k_SGN: Tensor
    v_SGN: Tensor
    seen: SeenBefore

    @property
    def made(self) -> int:
        """Rows after those that are seen: of the images of the pass itself, if they were made before it."""
        return len(self.k_SGN) - self.seen.visual.total

    def keep(self, documents: Sequence[int]) -> SeenImages:
        """Those of some documents (indices, in the order given); of one that is named twice, twice."""
        lengths = [self.seen.visual.lengths[index] for index in documents]
        k_SGN, v_SGN = (
            torch.cat([stored[:0], *(stored.split(self.seen.visual.lengths)[index] for index in documents)])
            for stored in (self.k_SGN, self.v_SGN)
        )
        lasts = tuple(self.seen.lasts[index] for index in documents)
        return SeenImages(k_SGN, v_SGN, SeenBefore(SequenceLengths(tuple(lengths)), lasts))


@dataclass(frozen=True)
class Sight:
    """Runs of neighbouring tokens that see the same visual tokens, those that see none left out.

    Visual tokens are numbered through what the documents have seen before, document by document, and then through the
    images of the pass.
    """

    rows_T: Tensor | None
    """Tokens of all runs; None for all tokens of the pass."""
    queries: SequenceLengths
    """Tokens of each run."""
    keys: SequenceLengths
    """Visual tokens that each run sees."""
    key_rows_S: Tensor | None
    """Visual tokens that all runs see, end to end; None for every visual token once, in order."""
    kept_rows_S: Tensor | None
    """Visual tokens that the documents go on seeing after the pass, end to end; None if it shows no image."""
    kept: SeenBefore


@dataclass(frozen=True)
class VisualTokens:
    """Visual tokens of the images of one pass, and the places of their images in the text."""

    states_VD: Tensor
    images: SequenceLengths
    """Visual tokens of each image; none where the pass is given visual tokens without their images."""
    slots: Tensor
    """Positions of the images in the sequence: one for each visual token (V), or one for each image (I)."""
    positions_T: Tensor
    """Position of each token within its document."""
    documents: SequenceLengths
    _made: dict[tuple[Sees, SeenBefore], Sight] = field(default_factory=dict, compare=False)

    def sight(self, sees: Sees, before: SeenBefore, made: int = 0) -> Sight:
        """Runs of tokens and what they see, made once for all blocks. before: what the documents saw before the pass.

        made: visual tokens of the pass whose keys and values the cache has, so that `states_VD` has them not.
        Raises: ValueError for images that have not one slot each.
        """
        if (sees, before) not in self._made:
            if not len(self.slots) == len(self.images) or self.images.total != len(self.states_VD) + made:
                raise ValueError(
                    f"{len(self.slots)} slots, {len(self.images)} images and {len(self.states_VD)} visual tokens do not"
                    " fit: cross-attention takes one slot for each image, and the grids of the images in the batch"
                )
            self._made[sees, before] = self._sight(sees, before)
        return self._made[sees, before]

    def _sight(self, sees: Sees, before: SeenBefore) -> Sight:
        runs: list[tuple[range, list[VisualRange]]] = []
        kept: list[list[VisualRange]] = []
        lasts: list[int | None] = []
        places = self._places(before.visual.total)
        for (start, end), (first, last_row), last in zip(
            pairwise(self.documents.starts), pairwise(before.visual.starts), before.lasts, strict=True
        ):
            now = [range(first, last_row)] if last_row > first else []
            while places and places[-1][0] < end:
                slot, position, rows = places.pop()
                runs.append((range(start, slot), now))
                now = [*now, rows] if joins(sees, last, position) else [rows]
                start, last = slot, position
            runs.append((range(start, end), now))
            kept.append(now)
            lasts.append(last)
        return self._of([run for run in runs if run[0] and run[1]], kept, tuple(lasts), before)

    def _places(self, stored: int) -> list[tuple[int, int, VisualRange]]:
        """Slot, position and visual tokens of each image of the pass, last image first."""
        if not len(self.slots):
            return []
        positions = self.positions_T[self.slots].tolist()
        rows = [range(stored + first, stored + last) for first, last in pairwise(self.images.starts)]
        return list(zip(self.slots.tolist(), positions, rows, strict=True))[::-1]

    def _of(
        self,
        runs: Sequence[tuple[range, list[VisualRange]]],
        kept: Sequence[list[VisualRange]],
        lasts: tuple[int | None, ...],
        before: SeenBefore,
    ) -> Sight:
        """The sight of these runs, and what each document goes on seeing."""
        tokens, device = [tokens for tokens, _ in runs], self.slots.device
        queries = SequenceLengths(tuple(map(len, tokens)))
        keys = [rows for _, seen in runs for rows in seen]
        every = range(before.visual.total + self.images.total)
        seen = [rows for one in kept for rows in one]
        return Sight(
            rows_T=None if queries.total == self.documents.total else _joined(tokens, device),
            queries=queries,
            keys=SequenceLengths(tuple(sum(map(len, seen)) for _, seen in runs)),
            key_rows_S=None if _flat(keys) == list(every) else _joined(keys, device),
            kept_rows_S=_joined(seen, device) if len(self.slots) else None,
            kept=SeenBefore(SequenceLengths(tuple(sum(map(len, one)) for one in kept)), lasts),
        )


def _flat(ranges: Sequence[range]) -> list[int]:
    return [row for one in ranges for row in one]


def _joined(ranges: Sequence[range], device: torch.device) -> Tensor:
    """Numbers of ranges end to end (int64)."""
    return torch.tensor(_flat(ranges), dtype=torch.int64).to(device)
