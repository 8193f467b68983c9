"""`Batch`: flat tensors and their boundaries. No element of it is padding.

All patches of all images lie end to end, as do all tokens of all documents: `SequenceLengths` say where each begins.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:  # so that preparing data needs no torch
    import torch
    from torch import Tensor

IGNORE_INDEX = -100
"""The target of a position from which nothing is learned."""

Grid = tuple[int, int]
"""Rows and columns of patches of an image (or of a crop of one)."""


@dataclass(frozen=True)
class SequenceLengths:
    """Sequence lengths of a packed (unpadded) batch, kept on the CPU to avoid device synchronisation."""

    lengths: tuple[int, ...]

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Offsets of the sequences, then the total: one more entry than there are sequences (cu_seqlens)."""
        return tuple(accumulate(self.lengths, initial=0))

    @property
    def total(self) -> int:
        return self.starts[-1]

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)

    def __len__(self) -> int:
        return len(self.lengths)

    def pieces(self, most: int) -> list[SequenceLengths]:
        """Runs of neighbouring spans, in order, of at most `most` in all; a span that is longer is a run by itself."""
        runs: list[list[int]] = [[]]
        for length in self.lengths:
            if runs[-1] and sum(runs[-1]) + length > most:
                runs.append([])
            runs[-1].append(length)
        return [SequenceLengths(tuple(run)) for run in runs]

    def starts_on(self, device: torch.device | str) -> Tensor:
        """`starts` as an int32 tensor (what varlen attention kernels take), made once per device."""
        return self._on(device, "starts")

    def lengths_on(self, device: torch.device | str) -> Tensor:
        """`lengths` as an int32 tensor, made once per device."""
        return self._on(device, "lengths")

    def _on(self, device: torch.device | str, what: str) -> Tensor:
        import torch

        made: dict[tuple[str, str], Tensor] = self.__dict__.setdefault("_made", {})
        key = what, str(device)
        if key not in made:
            with torch.inference_mode(False):  # it is kept: a later training step may use it
                made[key] = torch.tensor(getattr(self, what), dtype=torch.int32, device=device)
        return made[key]


@dataclass(frozen=True)
class Batch:
    """Input of a `VLM`, for training, evaluation and serving alike. Shapes: see the legend in `model/vlm.py`."""

    tokens_T: Tensor
    """Token ids of all documents, end to end (int64)."""
    targets_T: Tensor
    """Target of each position: the next token of its document, or `IGNORE_INDEX` (int64)."""
    positions_T: Tensor
    """Position of each token within its own document (int64)."""
    documents: SequenceLengths
    patches_PC: Tensor
    """Pixels of all patches of all images, end to end, each flattened as channel, row, column (uint8, 0-255)."""
    patch_positions_P: Tensor
    """Row of each patch in the vision encoder's position table (int64)."""
    grids: tuple[Grid, ...]
    """Rows and columns of patches of each image, on the host: connectors and position tables need both."""
    visual_positions_V: Tensor
    """Positions of the visual tokens in `tokens_T`, image by image (int64)."""

    @cached_property
    def images(self) -> SequenceLengths:
        """Patches of each image."""
        return SequenceLengths(tuple(rows * columns for rows, columns in self.grids))

    @property
    def document_starts(self) -> Tensor:
        """Offsets of the documents in `tokens_T`, then the total number of tokens (int32, cu_seqlens)."""
        return self.documents.starts_on(self.tokens_T.device)

    @cached_property
    def supervised_tokens(self) -> int:
        """Number of supervised tokens."""
        return int((self.targets_T != IGNORE_INDEX).sum())

    @property
    def device(self) -> torch.device:
        return self.tokens_T.device

    def to(self, device: torch.device | str) -> Self:
        """The same batch with its tensors on `device`."""
        from torch import Tensor

        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=True)
            for field in dataclasses.fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **moved)
