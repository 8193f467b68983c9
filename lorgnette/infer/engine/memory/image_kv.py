"""Keys and values of images for cross-attention blocks: held while an answer shows the image, shared by all that do.

They depend on the image alone, and not on where it stands in a text. So they are made once, by the image's content, and
a document needs only to say which images it shows. They are made again from visual tokens, which are a small part of
their size and are kept for longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lorgnette.infer.image_cache import ImageRef
from lorgnette.model.batch import Grid, SequenceLengths
from lorgnette.model.sight import SeenBefore, SeenImages


@dataclass(frozen=True, eq=False)
class ImageKV:
    """Keys and values of all crops of one image, end to end."""

    blocks: dict[int, tuple[Tensor, Tensor]]
    """Of each block (S,G,N), by the decoder layer that it stands before."""
    crops: SequenceLengths
    """Visual tokens of each crop, which has one slot in the text."""
    grids: tuple[Grid, ...]
    """Rows and columns of patches of each crop."""


@dataclass(frozen=True, eq=False)
class CropRange:
    """Some crops of an image, those from `first` up to `last`."""

    image: ImageKV
    first: int
    last: int

    @property
    def tokens(self) -> int:
        """Visual tokens of these crops."""
        return self.image.crops.starts[self.last] - self.image.crops.starts[self.first]

    @property
    def grids(self) -> tuple[Grid, ...]:
        return self.image.grids[self.first : self.last]

    def keys_values(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values for the block before a decoder layer: S,G,N."""
        rows = slice(self.image.crops.starts[self.first], self.image.crops.starts[self.last])
        k_SGN, v_SGN = self.image.blocks[layer]
        return k_SGN[rows], v_SGN[rows]


@dataclass(frozen=True, eq=False)
class PassImages:
    """Images that the documents of a pass see."""

    crops: tuple[CropRange, ...]
    """What each document has seen before the pass, then what the pass itself shows."""
    seen: SeenBefore
    """What the documents have seen before the pass."""

    def of(self, layer: int) -> SeenImages | None:
        """Keys and values for one block, joined when it asks for them: one block's copies live at a time."""
        if not self.crops:
            return None
        keys, values = zip(*(one.keys_values(layer) for one in self.crops), strict=True)
        if len(self.crops) == 1:
            return SeenImages(keys[0], values[0], self.seen)
        return SeenImages(torch.cat(keys), torch.cat(values), self.seen)


class ImageKVPool:
    """Memory for keys and values of images: room is taken when an answer is admitted, and filled when it is read.

    An image that several answers show takes room once.
    """

    def __init__(self, most_bytes: int, row_bytes: int) -> None:
        """row_bytes: of a visual token in all blocks."""
        self.most_bytes, self.row_bytes = most_bytes, row_bytes
        self.used = 0
        """Bytes for which room is taken."""
        self._answers: Counter[str] = Counter()
        self._rows: dict[str, int] = {}
        self._made: dict[str, ImageKV] = {}

    def bytes_of(self, rows: dict[str, int]) -> int:
        """Memory of images, of which each has so many visual tokens."""
        return sum(rows.values()) * self.row_bytes

    def take(self, rows: dict[str, int]) -> bool:
        """Take room for all images of an answer, by their keys, or for none of them; False if there is not enough."""
        new = {key: count for key, count in rows.items() if key not in self._rows}
        if self.used + self.bytes_of(new) > self.most_bytes:
            return False
        self.used += self.bytes_of(new)
        self._rows |= new
        self._answers.update(rows.keys())
        return True

    def take_again(self, keys: Iterable[str]) -> None:
        """Let one more answer show images that another one shows."""
        self._answers.update(keys)

    def give(self, keys: Iterable[str]) -> None:
        """Take back the room of images that an answer shows no longer. What no other one shows is forgotten."""
        for key in keys:
            self._answers[key] -= 1
            if not self._answers[key]:
                del self._answers[key]
                self.used -= self._rows.pop(key) * self.row_bytes
                self._made.pop(key, None)

    def find(self, image: ImageRef) -> ImageKV | None:
        """The keys and values of an image, if they have been made."""
        return self._made.get(image.key)

    def put(self, image: ImageRef, made: ImageKV) -> None:
        """Fill the room of an image."""
        self._made[image.key] = made
