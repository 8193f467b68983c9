"""Preview of packs: their documents, the source of each, and totals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lorgnette.data.inspect.unpatchify import QUADRANTS, Size, Unpatchified
from lorgnette.inputs.tiles import WHOLE_IMAGE


@dataclass(frozen=True, slots=True)
class Share:
    """A source, and its share of what the stage's weights are shares of."""

    title: str
    share: float


@dataclass(frozen=True, eq=False)
class Document:
    """One sample as the model gets it."""

    name: str
    source: int
    """Number of the source."""
    tokens_T: np.ndarray
    loss_mask_T: np.ndarray
    pictures: tuple[Unpatchified, ...]
    originals: tuple[Size | None, ...] = ()
    """Sizes of the sample's images before they were sized; several pictures may come from one image."""
    visual_tokens: tuple[int, ...] = ()
    """Of each picture."""
    epoch: int = 0
    """Passes over the source completed before this sample."""
    fault: str = ""
    """Reason why the sample cannot be trained on; empty if it can."""

    @property
    def tokens(self) -> int:
        return len(self.tokens_T)

    @cached_property
    def supervised_tokens(self) -> int:
        """Tokens that are targets. The first of a document has nothing to be predicted from."""
        return int(self.loss_mask_T[1:].sum())

    @property
    def patches(self) -> int:
        return sum(one.patches for one in self.pictures)

    @property
    def crops(self) -> int:
        """Pictures that each image became: five where it was split in quadrants."""
        return len(self.pictures) // len(self.originals) if self.originals else 1

    @cached_property
    def parts(self) -> list[tuple[int, str]]:
        """For each picture the number of its image, from 0, and its part of that; empty for a whole image alone."""
        if not any(one.tile for one in self.pictures):
            names = QUADRANTS if self.crops == len(QUADRANTS) else ("",) * self.crops
            return [(number // self.crops, names[number % self.crops]) for number in range(len(self.pictures))]
        found: list[tuple[int, str]] = []
        image = 0
        for one in self.pictures:
            row, column = one.tile or WHOLE_IMAGE
            is_cut = bool(found) and found[-1][0] == image
            name = f"tile {row}, {column}" if row else "whole" if is_cut else ""
            found.append((image, name))
            image += not row  # the whole is an image's last
        return found

    @property
    def shown(self) -> bool:
        return all(one.pixels is not None for one in self.pictures)


@dataclass(frozen=True)
class Total:
    """Totals over documents."""

    documents: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    images: int = 0
    """Pictures that the model gets: a split image counts five times, or as often as it has tiles."""
    patches: int = 0

    @classmethod
    def of(cls, documents: Iterable[Document]) -> Total:
        listed = list(documents)
        return cls(
            len(listed),
            sum(one.tokens for one in listed),
            sum(one.supervised_tokens for one in listed),
            sum(len(one.pictures) for one in listed),
            sum(one.patches for one in listed),
        )

    @property
    def supervised_share(self) -> float:
        return self.supervised_tokens / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, eq=False)
class Pack:
    """Documents that lie end to end in one batch."""

    step: int
    number: int
    """Within its step, from 0."""
    documents: tuple[Document, ...]
    chosen: frozenset[int] = frozenset()
    """Documents that are shown; the others are only counted."""

    @cached_property
    def total(self) -> Total:
        return Total.of(self.documents)

    @property
    def starts(self) -> list[int]:
        """First token of each document in the pack."""
        return [0, *np.cumsum([one.tokens for one in self.documents]).tolist()]


@dataclass(frozen=True, eq=False)
class Preview:
    """All that a page or a terminal shows."""

    title: str
    packs: tuple[Pack, ...]
    sources: tuple[Share, ...]
    measure: str = "samples"
    """Unit of the shares: samples, tokens or supervised tokens."""
    most_tokens: int | None = None
    """Budget of a pack; None where packs are made of a number of samples."""
    most_patches: int | None = None
    refused: tuple[str, ...] = ()
    """Samples that could not even be rendered, each with its reason."""
    facts: dict[str, str] = field(default_factory=dict)
    """Further facts for the page: tokenizer, image settings."""

    @property
    def documents(self) -> list[Document]:
        return [one for pack in self.packs for one in pack.documents]

    @cached_property
    def total(self) -> Total:
        return Total.of(self.documents)

    @cached_property
    def totals(self) -> list[Total]:
        """By source."""
        return [Total.of(one for one in self.documents if one.source == number) for number in range(len(self.sources))]

    @property
    def faults(self) -> list[Document]:
        return [one for one in self.documents if one.fault]

    @property
    def hidden(self) -> int:
        """Documents that are counted and not shown."""
        return self.total.documents - sum(len(pack.chosen) for pack in self.packs)


def spread(count: int, most: int) -> frozenset[int]:
    """`most` of the numbers below `count`, evenly spread; all where there are not more."""
    if count <= most:
        return frozenset(range(count))
    return frozenset(place * count // most for place in range(most))
