"""`Record`: what one row of a source holds, before it is cut to the samples of a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lorgnette.errors import DataError
from lorgnette.sample import Image, Sample, Segment, Turn


class Refused(DataError):
    """A row that is not trained on. `reason` is a word or two, which rows are counted by; `detail` says the rest."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


@dataclass(frozen=True, slots=True)
class Record:
    """A row as segments that may be cut in pieces, with nothing lost, where it is longer than a sequence.

    prefix: stands at the start of every piece: the page of a document, the images that all questions are about.
    units: never cut themselves; a piece is a run of them. In a conversation each unit starts with a `Turn`, and the
        prefix goes behind the `Turn` of a piece's first unit.
    shuffle: whether the units may be trained on in another order.
    """

    units: tuple[tuple[Segment, ...], ...]
    prefix: tuple[Segment, ...] = ()
    shuffle: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)
    doubts: tuple[tuple[str, str], ...] = ()
    """Reason and detail of what is odd about the row though it is kept: listed with the rejected rows, and counted."""

    def piece(self, start: int = 0, end: int | None = None, order: Sequence[int] | None = None) -> Sample:
        """Units `start` to `end` (not included) as a sample, in the given order of themselves (0 is `start`)."""
        units = self.units[start:end]
        if order is not None:
            units = tuple(units[place] for place in order)
        segments = tuple(segment for unit in units for segment in unit)
        if segments and isinstance(segments[0], Turn):
            segments = (segments[0], *self.prefix, *segments[1:])
        else:
            segments = (*self.prefix, *segments)
        return Sample(segments, self.meta)

    @property
    def images(self) -> tuple[tuple[int, Image], ...]:
        """Each image with the number of its unit; -1 for the prefix."""
        parts = ((-1, self.prefix), *enumerate(self.units))
        return tuple((number, one) for number, part in parts for one in part if isinstance(one, Image))
