"""Faults that are refused before training, each by a sentence that names the sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorgnette.data.check import check
from lorgnette.errors import DataError
from lorgnette.inputs.image import Patches
from lorgnette.inputs.render import Rendered

IMAGE, AROUND, VISUAL, VOCABULARY = 9, 8, 4, 10
SLOT = [AROUND, *[IMAGE] * VISUAL, AROUND]
PATCHES = Patches(np.zeros((1, 12), np.uint8), np.zeros(1, np.int64), 1, 1)


def rendered(tokens: list[int], supervised: tuple[int, ...] = (-1,), images: int = 0) -> Rendered:
    """A sample of these ids, of which the ones at the given places are supervised."""
    loss_mask_T = np.zeros(len(tokens), bool)
    loss_mask_T[list(supervised)] = True
    return Rendered(np.array(tokens, np.int64), loss_mask_T, (PATCHES,) * images, (VISUAL,) * images, "shard 3, row 7")


def checked(one: Rendered, **options) -> None:
    check(one, image_token=IMAGE, vocabulary=VOCABULARY, **options)


GOOD = {
    "text": (rendered([0, 1, 2]), {}),
    "image and text": (rendered([0, *SLOT, 1, 2], images=1), {}),
    "two images side by side": (rendered([0, *SLOT, *SLOT[1:], 1], images=2), {}),
    "slots without a separator": (rendered([0, *[IMAGE] * (2 * VISUAL), 1], images=2), {}),
    "as long as the limit": (rendered([0, 1, 2]), {"most_tokens": 3}),
    "nothing to learn, and none asked": (rendered([0, 1, 2], supervised=()), {"supervised": False}),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_be_learned_passes(name):
    one, options = GOOD[name]
    assert checked(one, **options) is None


BAD = {
    "nothing learned": (rendered([0, 1, 2], supervised=()), {}, "none of its 3 tokens is supervised"),
    "only the first token learned": (rendered([0, 1, 2], supervised=(0,)), {}, "none of its 3 tokens is supervised"),
    "no tokens": (rendered([], supervised=()), {}, "0 tokens with 0 learning marks"),
    "marks of another length": (
        replace(rendered([0, 1]), loss_mask_T=np.ones(3, bool)),
        {},
        "2 tokens with 3 learning marks",
    ),
    "id outside the embedding": (rendered([0, VOCABULARY, 1]), {}, "token 10 at position 1 is outside the embedding"),
    "negative id": (rendered([0, 1, -1]), {}, "token -1 at position 2 is outside the embedding of 10 rows"),
    "slot cut at the end": (
        rendered([0, 1, *SLOT[:3]], supervised=(1,), images=1),
        {"most_tokens": 5},
        "the image slot at position 3 is cut off by the limit on length of 5 tokens: it has 2 visual tokens, not 4",
    ),
    "slot cut inside": (
        rendered([0, *SLOT[:4], AROUND, 1], images=1),
        {},
        "the image slot at position 2 is incomplete: it has 3 visual tokens, not 4",
    ),
    "image behind the limit": (
        rendered([0, 1, 2, 3], images=1),
        {"most_tokens": 4},
        "1 image and 0 image slots: the slots of the last 1 were cut off by the limit of 4 tokens",
    ),
    "more images than slots": (
        rendered([0, *SLOT, 1], images=2),
        {},
        "2 images and 1 image slot: the slots of the last 1 are missing from the text",
    ),
    "fewer images than slots": (
        rendered([0, *SLOT, 1]),
        {},
        "0 images, and 4 visual tokens more at position 2; give one image for each slot",
    ),
    "too long": (rendered([0, 1, 2, 3]), {"most_tokens": 3}, "4 tokens exceed the limit of 3; cut it in pieces"),
    "too long, image lost": (
        rendered([0, 1, *SLOT], supervised=(1,), images=1),
        {"most_tokens": 5},
        "8 tokens exceed the limit of 5, and a cut there would lose 1 of its images",
    ),
    "label on a visual token": (
        rendered([0, *SLOT, 1], supervised=(4, 7), images=1),
        {},
        "the visual token at position 4 is marked as supervised",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_fault_is_refused_by_name(name):
    one, options, words = BAD[name]
    with pytest.raises(DataError) as caught:
        checked(one, **options)
    assert str(caught.value).startswith("shard 3, row 7: ")
    assert words in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.lists(st.integers(-1, VOCABULARY), max_size=20),
    supervised=st.integers(0, 2**20),
    images=st.integers(0, 3),
    limit=st.none() | st.integers(1, 20),
)
def test_what_passes_can_be_packed_and_learned(tokens, supervised, images, limit):
    marks = tuple(place for place in range(len(tokens)) if supervised >> place & 1)
    one = rendered(tokens, marks, images)
    try:
        checked(one, most_tokens=limit)
    except DataError:
        return
    visual_T = one.tokens_T == IMAGE
    assert visual_T.sum() == images * VISUAL
    assert one.loss_mask_T[1:].any() and not (one.loss_mask_T & visual_T).any()
    assert set(tokens) <= set(range(VOCABULARY))
    assert limit is None or len(tokens) <= limit
