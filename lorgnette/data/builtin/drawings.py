"""The built-in public-domain drawings of one split, read from the part `drawings` of the built-in corpus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from lorgnette.data.builtin.shipped import SHIPPED_CORPUS
from lorgnette.errors import DataError
from lorgnette.inputs.image_io import open_rgba

SPLITS = ("train", "validation", "test")
LARGE, SMALL = 112, 48
"""Longest sides, in pixels, of the two copies of a drawing that are kept in memory (112 px: about 40 KB each)."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawing of the corpus. `image` is the bytes of a WebP file with alpha, `width` x `height` pixels."""

    id: str
    image: bytes
    title: str
    name: str | None
    """A short clean English name made from the title or the file name, None where there is none."""
    keywords: tuple[str, ...]
    category: str | None
    """Category of the thing shown; None where no single category fits."""
    colour: str | None
    """Its basic colour; None where none holds a clear majority."""
    width: int
    height: int
    path: str
    """Its path in the package it comes from."""
    licence: str
    sha256: str
    whole: bool
    """In one piece and bold enough to be recognised small: it may stand in a scene of several drawings."""
    group: str
    """Drawings of the same group look alike; a group lies in one split."""


class Drawings(Sequence[Drawing]):
    """The drawings of one split, in the order of their ids. Pictures are decoded when first asked for, and kept."""

    def __init__(self, split: str, rows: Iterable[Drawing] | None = None) -> None:
        """rows: the drawings, in any order; by default those of the package.

        Raises: DataError if the split is unknown or the file cannot be read.
        """
        if split not in SPLITS:
            raise DataError(f"split {split!r} is unknown; use one of {', '.join(SPLITS)}")
        self.split = split
        self._rows = sorted(_read(drawings_file(split)) if rows is None else rows, key=lambda row: row.id)
        self._kept: dict[tuple[int, int], PIL.Image.Image] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Drawing:  # type: ignore[override]
        return self._rows[index]

    def rgba(self, index: int) -> NDArray[np.uint8]:
        """The picture at its stored size: height x width x 4, straight alpha."""
        return np.asarray(_decode(self._rows[index]))

    def resized(self, index: int, width: int, height: int) -> PIL.Image.Image:
        """The picture as an RGBA image of the given size in pixels."""
        longest = max(width, height)
        if longest > LARGE:
            source = _decode(self._rows[index])
        else:
            source = self._copy(index, SMALL if longest <= SMALL else LARGE)
        if source.size == (width, height):
            return source
        return source.resize((width, height), PIL.Image.Resampling.BILINEAR)

    def _copy(self, index: int, longest: int) -> PIL.Image.Image:
        copy = self._kept.get((index, longest))
        if copy is None:
            row = self._rows[index]
            size = fit(row.width, row.height, longest, longest)
            copy = _decode(row).resize(
                size, PIL.Image.Resampling.BOX if longest == SMALL else PIL.Image.Resampling.BILINEAR
            )
            self._kept[index, longest] = copy
        return copy

    @cached_property
    def by_category(self) -> dict[str, tuple[int, ...]]:
        """Indices of the drawings of each category, in alphabetical order of the categories."""
        return self._index([row.category for row in self._rows])

    @cached_property
    def by_colour(self) -> dict[str, tuple[int, ...]]:
        """Indices of the drawings of each clear colour, in alphabetical order of the colours."""
        return self._index([row.colour for row in self._rows])

    def _index(self, values: Sequence[str | None]) -> dict[str, tuple[int, ...]]:
        keys = sorted({value for value in values if value is not None})
        return {key: tuple(index for index, value in enumerate(values) if value == key) for key in keys}


@lru_cache(maxsize=len(SPLITS))
def drawings(split: str) -> Drawings:
    """The built-in drawings of a split, read once per process. Raises: DataError if the split is unknown."""
    return Drawings(split)


def fit(width: int, height: int, widest: int, highest: int) -> tuple[int, int]:
    """The largest size of the same shape that fits in a box, in whole pixels, at least one each way."""
    ratio = min(widest / width, highest / height)
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def _decode(row: Drawing) -> PIL.Image.Image:
    return open_rgba(row.image, "a built-in drawing")


def drawings_file(split: str) -> Path:
    """The parquet file of a split, which a source of the kind `pairs` reads too."""
    return SHIPPED_CORPUS / split / "pairs" / "drawings.parquet"


def _read(file: Path) -> list[Drawing]:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file).drop_columns(["caption", "origin"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file}: the built-in drawings cannot be read: {error}; reinstall lorgnette") from None
    return [
        Drawing(title=row.pop("alt"), image=row.pop("image")["bytes"], keywords=tuple(row.pop("keywords")), **row)
        for row in table.to_pylist()
    ]
