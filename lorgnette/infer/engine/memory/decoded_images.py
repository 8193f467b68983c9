"""Pixels of images between decoding and encoding: patches of 8 bits, kept only until the vision encoder has read them.

A step decodes what it encodes, unless somebody else does so for the engine (`infer/decoding_pool.py`): then a request
waits for its pixels before it is admitted, and no step contains a decoder's time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lorgnette.errors import ImageError
from lorgnette.infer.image_cache import ImageFeatureCache, ImageRef
from lorgnette.inputs.image import Patches

Pixels = tuple[Patches, ...]
"""All crops of one image."""


class DecodedImages:
    """Images of the requests in an engine whose visual tokens are not known, by their keys."""

    def __init__(self, image_cache: ImageFeatureCache, most_bytes: int) -> None:
        """most_bytes: of pixels that wait to be encoded; an image of the next request may exceed them."""
        self.image_cache, self.most_bytes = image_cache, most_bytes
        self.given = False
        """True where pixels are decoded outside of the steps, and given."""
        self.changes = 0
        """Counts requests that came or went, and pixels that were given."""
        self._requests: Counter[str] = Counter()
        self._asked: dict[str, int] = {}
        """Bytes of each image that is being decoded."""
        self._made: dict[str, Pixels | ImageError] = {}
        self._stalled_at = -1
        """Value of `changes` at the last step that found nothing to compute."""

    @property
    def bytes(self) -> int:
        """Memory of pixels that are here or will come."""
        here = (one for one in self._made.values() if not isinstance(one, ImageError))
        return sum(patches.pixels_PC.nbytes for one in here for patches in one) + sum(self._asked.values())

    @property
    def decoding(self) -> int:
        """Images that are being decoded."""
        return len(self._asked)

    def enter(self, images: Iterable[ImageRef]) -> None:
        """Note the images of a request that comes."""
        self.changes += 1
        self._requests.update({image.key for image in images})

    def leave(self, images: Iterable[ImageRef]) -> None:
        """Forget the images of a request that has ended, but for those of others."""
        self.changes += 1
        for key in {image.key for image in images}:
            self._requests[key] -= 1
            if self._requests[key] <= 0:
                del self._requests[key]
                self._asked.pop(key, None)
                self._made.pop(key, None)

    def is_used(self, key: str) -> bool:
        """Return whether a request in the engine shows this image."""
        return key in self._requests

    def has(self, image: ImageRef) -> bool:
        """Return whether an image can be encoded without waiting for its pixels."""
        return not self.given or image.key in self._made

    def ask(self, prompts: Iterable[list[ImageRef]]) -> list[ImageRef]:
        """Images that are to be decoded now, each named once.

        prompts: for each prompt, in the order in which they will be read, its images that are not encoded. All of them
        are asked for together or not at all, so that no two prompts wait for each other's memory.
        """
        wanted: dict[str, ImageRef] = {}
        used = self.bytes
        for images in prompts:
            new = {one.key: one for one in images if one.key not in self._made and one.key not in self._asked}
            sizes = {key: self._size(image) for key, image in new.items()}
            if (
                used
                and used + sum(sizes.values()) > self.most_bytes
                and (self._asked or self._stalled_at != self.changes)
            ):
                break
            wanted |= new
            self._asked |= sizes
            used += sum(sizes.values())
        return list(wanted.values())

    def stall(self) -> None:
        """Note that a step found nothing to compute."""
        self._stalled_at = self.changes

    @property
    def is_awaited(self) -> bool:
        """Return whether no step finds anything to compute before pixels are given, or a request comes or goes."""
        return self._stalled_at == self.changes and bool(self._asked)

    def _size(self, image: ImageRef) -> int:
        patches = sum(rows * columns for rows, columns in self.image_cache.grids_of([image]))
        return patches * 3 * self.image_cache.processor.images.patch**2

    def give(self, key: str, pixels: Pixels | ImageError) -> None:
        """Take the pixels of an image that was asked for, or the reason why it has none."""
        self.changes += 1
        self._asked.pop(key, None)
        if key in self._requests:
            self._made[key] = pixels

    def take(self, image: ImageRef) -> Pixels:
        """The pixels of an image. Raises: ImageError naming it."""
        if not self.given:
            return self.image_cache.decode(image)
        pixels = self._made[image.key]
        if isinstance(pixels, ImageError):
            raise pixels
        return pixels

    def encoded(self, images: Iterable[ImageRef]) -> None:
        """Let go of the pixels of images that have been encoded."""
        for image in images:
            self._made.pop(image.key, None)
