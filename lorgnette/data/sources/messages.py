"""Conversations for stages that count samples: prepared as kind `chat` is, and each given whole by its number."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lorgnette.data.plan.augment import image_costs
from lorgnette.data.record import Refused
from lorgnette.errors import DataError
from lorgnette.sample import Sample

if TYPE_CHECKING:
    from lorgnette.data.prepare import Prepared
    from lorgnette.inputs.processor import Processor


@dataclass(frozen=True)
class MessagesSource:
    """The rows of a prepared source that fit in a sequence, in their order.

    processor: says how many visual tokens each image becomes.
    most_tokens: the longest sequence, visual tokens included; None for any length.
    """

    prepared: Prepared
    processor: Processor
    most_tokens: int | None = None

    def __post_init__(self) -> None:
        """Raises: DataError if no row fits."""
        if not self.size:
            raise DataError(f"{self.prepared.config.title}: {self.too_long}")

    @cached_property
    def numbers(self) -> np.ndarray:
        """The records that fit (int64)."""
        index = self.prepared.index
        if self.most_tokens is None:
            return np.arange(len(index))
        units = np.concatenate([[0], np.cumsum(index.tokens_U, dtype=np.int64)])
        starts = index.unit_starts
        images, connector = self.processor.images, self.processor.connector
        split_I = np.full(len(index.width_I), images.split)
        sizes = index.width_I.astype(np.int64), index.height_I.astype(np.int64)
        tokens_I, _ = image_costs(*sizes, split_I, images, connector)
        owner_I = np.repeat(np.arange(len(index)), index.images_E)
        visual_E = np.bincount(owner_I, tokens_I, len(index)).astype(np.int64)
        tokens_E = index.head_tokens_E + units[starts[1:]] - units[starts[:-1]] + visual_E
        return np.flatnonzero(tokens_E <= self.most_tokens)

    @property
    def size(self) -> int:
        return len(self.numbers)

    @property
    def too_long(self) -> str:
        """A sentence about the rows that do not fit; empty if all do."""
        longer = len(self.prepared.index) - self.size
        if not longer:
            return ""
        return (
            f"{longer:,} of {len(self.prepared.index):,} conversations have more tokens than the model's"
            f" {self.most_tokens:,} positions and are left out; kind chat in a stage with `pack` cuts them in pieces"
        )

    def __getitem__(self, index: int) -> Sample:
        """Raises: DataError naming the row if it cannot be read any more."""
        number = int(self.numbers[index])
        try:
            return self.prepared.record(number).piece()
        except Refused as refused:
            raise DataError(f"{self.prepared.index.name(number)}: {refused}") from None
