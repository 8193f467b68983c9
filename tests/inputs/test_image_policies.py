"""Squares, centre crops and NaFlex, pixel for pixel as each encoder's own processor in transformers makes them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2 import image_processing_pil_siglip2 as siglip2

from lorgnette.errors import SettingsError
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import image_crops, image_patches, patchify, target_size
from lorgnette.inputs.preprocessor import naflex_sides, square_sides
from tests.inputs.conftest import noise
from tests.inputs.image_files import saved

RAW = {"do_rescale": False, "do_normalize": False}


def shapes(count: int, most: float = 2.6) -> list[tuple[int, int]]:
    """Widths and heights as images have them, the thinnest ones and those at the edges of a rule among them."""
    draw = random.Random(1)
    some = [(round(10 ** draw.uniform(0.3, most)), round(10 ** draw.uniform(0.3, most))) for _ in range(count)]
    return [(1, 1), (1, 300), (300, 1), (42, 42), (43, 42), (42, 43), (55, 57), (56, 56), (999, 40), *some]


SQUARES: dict[str, tuple[dict, Any]] = {
    "CLIP": (
        {"crop_from": 42, "resample": "bicubic"},
        CLIPImageProcessorPil(size={"shortest_edge": 42}, crop_size={"height": 42, "width": 42}, **RAW),
    ),
    "DINOv2": (
        {"crop_from": 48, "resample": "bicubic"},
        BitImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 42, "width": 42}, **RAW),
    ),
    "SigLIP": (
        {"resample": "bicubic"},
        SiglipImageProcessorPil(size={"height": 42, "width": 42}, resample=3, **RAW),
    ),
    "Idefics1": ({"resample": "bicubic"}, IdeficsImageProcessorPil(image_size=42, **RAW)),
    "Lanczos": ({"resample": "lanczos"}, SiglipImageProcessorPil(size={"height": 42, "width": 42}, resample=1, **RAW)),
}


def square(**given: Any) -> ImageConfig:
    return ImageConfig(**{"policy": "square", "shortest": 42, "longest": 42, "grid": 3} | given)


def picture(pixels_PC: np.ndarray, rows: int, columns: int, side: int) -> np.ndarray:
    """Patches as the picture that they were cut from: channels, height, width."""
    cells = pixels_PC.reshape(rows, columns, 3, side, side).transpose(2, 0, 3, 1, 4)
    return cells.reshape(3, rows * side, columns * side)


@pytest.mark.parametrize("name", SQUARES)
def test_squares_are_the_processors(name: str) -> None:
    given, oracle = SQUARES[name]
    config = square(**given)
    for size in shapes(120):
        image = noise(*size)
        ours = patchify(image, config)
        found = oracle(image, return_tensors="np")
        theirs = np.asarray(found["pixel_values"] if hasattr(found, "keys") else found)[0]
        assert (ours.rows, ours.columns) == (3, 3)
        assert np.array_equal(picture(ours.pixels_PC, 3, 3, 14), theirs), size


def test_naflex_is_the_processors() -> None:
    oracle = siglip2.Siglip2ImageProcessorPil(patch_size=4, max_num_patches=36, **RAW)
    config = ImageConfig(policy="naflex", positions="interpolated", patch=4, grid=6, shortest=24, longest=24)
    for size in shapes(120):
        image = noise(*size)
        ours, theirs = patchify(image, config), oracle(image, return_tensors="np")
        assert [ours.rows, ours.columns] == theirs["spatial_shapes"][0].tolist(), size
        patches = theirs["pixel_values"][0][: len(ours)].reshape(-1, 4, 4, 3).transpose(0, 3, 1, 2)
        assert np.array_equal(ours.pixels_PC, patches.reshape(len(ours), -1)), size


@pytest.mark.parametrize(("patch", "most"), [(16, 256), (16, 1024), (14, 729)])
def test_naflex_sizes_are_the_processors(patch: int, most: int) -> None:
    side = round(most**0.5) * patch
    config = ImageConfig(policy="naflex", positions="interpolated", patch=patch, grid=4, shortest=side, longest=side)
    for width, height in shapes(1500, most=4.0):
        theirs = siglip2.get_image_size_for_max_num_patches(height, width, patch, most)
        assert target_size(width, height, config) == theirs[::-1], (width, height)


def test_naflex_with_squares_of_patches_fits_them_in_the_same_budget() -> None:
    config = ImageConfig(
        policy="naflex", positions="interpolated", patch=4, grid=6, shortest=24, longest=24, multiple=2
    )
    for width, height in shapes(100):
        wide, high = target_size(width, height, config)
        assert wide % 8 == high % 8 == 0 and wide * high <= 24 * 24
        assert (high, wide) == siglip2.get_image_size_for_max_num_patches(height, width, 8, 9)


@pytest.mark.parametrize("config", [square(), square(crop_from=50)], ids=["stretched", "cropped"])
def test_a_split_image_is_four_squares_and_the_whole(config: ImageConfig) -> None:
    image = noise(90, 61)
    crops = image_patches(image, config, split=True)
    assert [(crop.rows, crop.columns) for crop in crops] == [(3, 3)] * 5
    assert image_crops(image, config, split=True) == ((3, 3, None),) * 5
    assert np.array_equal(crops[0].pixels_PC, patchify(image.crop((0, 0, 45, 30)), config).pixels_PC)
    assert np.array_equal(crops[4].pixels_PC, patchify(image, config).pixels_PC)


def test_the_centre_of_a_thin_image_is_resized_alone() -> None:
    """The whole would have more pixels than are allowed; what is cut differs by rounding."""
    image = noise(4000, 9).resize((4000, 9), PIL.Image.Resampling.BOX)
    plain, guarded = square(crop_from=42), square(crop_from=42, max_pixels=100_000)
    expected, ours = (patchify(image, config).pixels_PC.astype(int) for config in (plain, guarded))
    assert np.abs(expected - ours).max() <= 1


def test_a_photograph_is_decoded_no_smaller_than_its_short_side_needs() -> None:
    config = square(crop_from=48, resize="fast")
    source = saved(noise(300, 200).resize((1200, 800)), "JPEG", quality=90)
    fast = image_patches(source, config, split=False)[0].pixels_PC.astype(int)
    exact = image_patches(source, square(crop_from=48), split=False)[0].pixels_PC.astype(int)
    assert np.abs(fast - exact).mean() < 6


OWN_SETTINGS: dict[str, tuple[Callable[[], Any], dict]] = {
    "CLIP": (
        lambda: CLIPImageProcessorPil(),
        {"policy": "square", "crop_from": 224, "longest": 224, "shortest": 224},
    ),
    "DINOv2": (
        lambda: BitImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}),
        {"policy": "square", "crop_from": 256, "longest": 224, "shortest": 224},
    ),
    "SigLIP": (
        lambda: SiglipImageProcessorPil(),
        {"policy": "square", "crop_from": None, "longest": 224, "shortest": 224},
    ),
}


@pytest.mark.parametrize("name", OWN_SETTINGS)
def test_squares_are_read_from_a_processors_own_keys(name: str) -> None:
    made, expected = OWN_SETTINGS[name]
    assert square_sides(made().to_dict()) == expected


def test_old_keys_of_clip_are_numbers() -> None:
    read = square_sides({"size": 336, "crop_size": 336, "do_center_crop": True})
    assert read == {"policy": "square", "crop_from": 336, "longest": 336, "shortest": 336}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": {"shortest_edge": 224}}, "makes no square"),
        ({"size": {"shortest_edge": 224, "longest_edge": 300}, "do_center_crop": True}, "makes no square"),
        ({"size": {"height": 224, "width": 200}}, "makes no square"),
        ({"size": 224, "do_center_crop": True, "crop_size": {"height": 224, "width": 200}}, "is no square"),
        ({"size": 224, "do_center_crop": True, "do_resize": False}, "do_resize is false"),
        ({"size": "big", "do_center_crop": True}, "shortest_edge is big"),
    ],
)
def test_processors_that_make_no_squares_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        square_sides(settings)


def test_naflex_needs_a_square_number_of_patches() -> None:
    assert naflex_sides({}, 16)["longest"] == 256
    with pytest.raises(ValueError, match="max_num_patches is 200"):
        naflex_sides({"max_num_patches": 200}, 16)
    with pytest.raises(ValueError, match="patch_size is 14, but the encoder's patches are of 16 pixels"):
        naflex_sides({"patch_size": 14}, 16)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"crop_from": 30, "policy": "native"}, "crop_from 30 needs policy square"),
        (
            {"crop_from": 30, "policy": "square", "longest": 42, "shortest": 42},
            "needs policy square and a longest side",
        ),
        ({"policy": "naflex"}, "set positions to interpolated"),
        ({"longest": 1400}, "exceeds the position table"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(given: dict, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        ImageConfig.parse(given)


def test_interpolated_positions_free_images_of_the_table() -> None:
    config = ImageConfig(positions="interpolated", longest=1400)
    assert target_size(2800, 1400, config) == (1400, 700)
