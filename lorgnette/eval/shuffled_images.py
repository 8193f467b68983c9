"""The blind baseline: each question with another sample's pictures. What is still right was guessed and not seen."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from lorgnette.errors import DataError
from lorgnette.eval.image_checks import image_digest
from lorgnette.sample import Image, Sample

ImageDigests = tuple[str, ...]
"""The digests of a sample's images, in order."""
ImagePlace = tuple[int, int]
"""An image among samples: which sample, and which of its images."""


def blinded(samples: Sequence[Sample], seed: int = 0) -> Callable[[int], Sample]:
    """A function from an index to that sample with the pictures of another one; text-only samples stay as they are.

    Deterministic in `seed`. No sample is shown a picture of its own, also where many questions share a picture. Samples
    with as many images exchange theirs along a ring, so each picture is used as often as it was.
    Raises: DataError if there is no other picture to show.
    """
    shown = [tuple(image_digest(image.source) for image in sample.images) for sample in samples]
    places = _other_pictures(shown, seed)

    def take(index: int) -> Sample:
        sample = samples[index]
        images = iter([samples[at].images[place] for at, place in places.get(shown[index], ())])
        segments = (next(images) if isinstance(segment, Image) else segment for segment in sample.segments)
        return Sample(tuple(segments), sample.meta)

    return take


def _other_pictures(shown: Sequence[ImageDigests], seed: int) -> dict[ImageDigests, list[ImagePlace]]:
    """For each distinct tuple of pictures, where to find as many others."""
    holders = {pictures: index for index, pictures in reversed(list(enumerate(shown))) if pictures}
    everything = random.Random(seed).sample(sorted(holders), len(holders))
    places: dict[ImageDigests, list[ImagePlace]] = {}
    for length in {len(pictures) for pictures in everything}:
        ring = [pictures for pictures in everything if len(pictures) == length]
        for pictures, following in zip(ring, ring[1:] + ring[:1], strict=True):
            found = _places([following], pictures, holders) or _places(everything, pictures, holders)
            if not found:
                raise DataError("a blind baseline needs at least two different pictures; give more samples")
            places[pictures] = [found[place % len(found)] for place in range(length)]
    return places


def _places(donors: Sequence[ImageDigests], avoid: ImageDigests, holders: dict[ImageDigests, int]) -> list[ImagePlace]:
    """Places of the donors' images, except those to avoid."""
    return [(holders[d], place) for d in donors for place, picture in enumerate(d) if picture not in avoid]
