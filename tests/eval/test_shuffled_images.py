from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorgnette.errors import DataError, ImageError
from lorgnette.eval.image_checks import image_digest
from lorgnette.eval.shuffled_images import blinded
from lorgnette.sample import Image, Sample, Text


def showing(*pictures: int) -> Sample:
    """A sample of pictures that are named by a number."""
    segments = [segment for picture in pictures for segment in (Image(str(picture).encode()), Text("?"))]
    return Sample((Text("start"), *segments), {"pictures": pictures})


def pictures_in(sample: Sample) -> list[int]:
    return [int(image.source) for image in sample.images]  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 8), max_size=4), max_size=12), st.integers(0, 3))
def test_no_sample_keeps_a_picture(shown: list[list[int]], seed: int) -> None:
    samples = [showing(*pictures) for pictures in shown]
    try:
        take = blinded(samples, seed)
    except DataError:
        assert any(all(set(other) <= set(mine) for other in shown) for mine in shown if mine)
        return
    for index, sample in enumerate(samples):
        swapped = take(index)
        assert len(swapped.images) == len(sample.images)
        assert swapped.text == sample.text
        assert swapped.meta == sample.meta
        assert not set(pictures_in(swapped)) & set(shown[index])
        assert swapped == blinded(samples, seed)(index)


def test_questions_on_one_picture_get_one_other_and_each_is_used_as_often() -> None:
    samples = [showing(number // 3) for number in range(30)]
    take = blinded(samples)
    swapped = [pictures_in(take(index))[0] for index in range(30)]
    assert Counter(swapped) == Counter(range(10)) + Counter(range(10)) + Counter(range(10))
    assert all(len(set(swapped[start : start + 3])) == 1 for start in range(0, 30, 3))
    other = blinded(samples, seed=1)
    assert swapped != [pictures_in(other(index))[0] for index in range(30)]


def test_one_picture_cannot_be_blind() -> None:
    with pytest.raises(DataError, match="two different pictures"):
        blinded([showing(1), showing(1)])


def test_digest_is_of_content(tmp_path: Path) -> None:
    picture = PIL.Image.new("RGB", (3, 2), "red")
    file = io.BytesIO()
    picture.save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    assert image_digest(tmp_path / "a.png") == image_digest(file.getvalue()) == image_digest(str(tmp_path / "a.png"))
    assert image_digest(picture) == image_digest(picture.copy()) != image_digest(picture.resize((2, 3)))
    with pytest.raises(ImageError, match="no such file"):
        image_digest(tmp_path / "missing.png")
