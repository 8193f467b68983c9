"""Pixels of every mode: transparent parts on white, 16 bits and floats in their range, upright by any orientation."""

from __future__ import annotations

import io
import struct

import numpy as np
import PIL.Image
import pytest
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil

from lorgnette.data.prepare.image_facts import image_facts
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import image_patches
from lorgnette.inputs.image_io import glance, image_size, open_image, open_rgba
from lorgnette.inputs.pixels import by_range, orientation
from lorgnette.report.thumbnails import thumbnail
from tests.inputs.conftest import noise
from tests.inputs.image_files import chunk, png, saved, tiff

AS_STORED = {"do_resize": False, "do_rescale": False, "do_normalize": False, "do_pad": False}


def upstream(image: PIL.Image.Image) -> np.ndarray:
    """Output of upstream's processor for a PIL image: height x width x 3."""
    features = Idefics2ImageProcessorPil(**AS_STORED)([image])
    return np.asarray(features["pixel_values"][0][0]).transpose(1, 2, 0)


def transparent() -> PIL.Image.Image:
    """Noise of every alpha, beside corners that are wholly transparent and wholly opaque."""
    image = noise(20, 12).convert("RGBA")
    image.putalpha(PIL.Image.linear_gradient("L").resize((20, 12)))
    return image


def again(image: PIL.Image.Image, form: str, **options) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(saved(image, form, **options)))


TRANSPARENT = {
    "RGBA": lambda: transparent(),
    "LA": lambda: transparent().convert("LA"),
    "PA": lambda: transparent().convert("PA"),
    "PNG RGBA": lambda: again(transparent(), "PNG"),
    "PNG LA": lambda: again(transparent().convert("LA"), "PNG"),
    "PNG P, one key": lambda: again(noise(20, 12).quantize(16), "PNG", transparency=3),
    "PNG P, alphas": lambda: again(noise(20, 12).quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
    "PNG RGB, a key": lambda: again(noise(20, 12), "PNG", transparency=noise(20, 12).getpixel((3, 4))),
    "PNG L, a key": lambda: again(grey := noise(20, 12).convert("L"), "PNG", transparency=grey.getpixel((3, 4))),
    "PNG 1, a key": lambda: again(noise(20, 12).convert("1"), "PNG", transparency=0),
    "GIF": lambda: again(noise(20, 12).quantize(16), "GIF", transparency=3),
    "WEBP": lambda: again(transparent(), "WEBP", lossless=True),
    "TIFF": lambda: again(transparent(), "TIFF"),
    "ICO": lambda: again(transparent().resize((32, 32)), "ICO"),
    "TGA": lambda: again(transparent(), "TGA"),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_transparent_parts_lie_on_white_as_upstream_puts_them(kind):
    image = TRANSPARENT[kind]()
    assert image.has_transparency_data
    content = image.fp.getvalue() if image.format is not None else image
    expected = upstream(image)
    assert not np.array_equal(expected, np.asarray(image.convert("RGB"))), "its alpha counts"
    for source in (content, TRANSPARENT[kind](), image):
        assert np.array_equal(np.asarray(open_image(source)), expected)


@pytest.mark.parametrize(("premultiplied", "straight"), [("RGBa", "RGBA"), ("La", "LA")])
def test_premultiplied_alpha(premultiplied, straight):
    image = transparent().convert(straight).convert(premultiplied)
    expected = np.asarray(open_image(image.convert(straight)), int)
    assert np.abs(np.asarray(open_image(image), int) - expected).max() <= 1


def drawing(mode: str) -> PIL.Image.Image:
    """A black cross on a transparent ground, whose hidden colour is black too."""
    image = PIL.Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (25, 5, 35, 35))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa"])
def test_a_black_drawing_is_seen_wherever_a_picture_is_made(mode):
    white = drawing("RGBA")
    white = PIL.Image.alpha_composite(PIL.Image.new("RGBA", white.size, "white"), white).convert("RGB")
    image = drawing(mode)
    assert np.array_equal(np.asarray(open_image(image)), np.asarray(white))
    assert np.array_equal(np.asarray(glance(image, 64)[0]), np.asarray(white.convert("L")))
    assert PIL.Image.open(io.BytesIO(thumbnail(image))).convert("L").getextrema() == (0, 255)
    for resize in ("exact", "fast"):
        config = ImageConfig(resize=resize)
        ours, theirs = (image_patches(one, config, split=False)[0].pixels_PC for one in (image, white))
        assert np.array_equal(ours, theirs)
    if mode in ("RGBA", "LA"):
        assert (
            image_facts(saved(image, "PNG"), "one", 10**6).look == image_facts(saved(white, "PNG"), "one", 10**6).look
        )


def test_straight_alpha_is_kept_where_it_is_asked_for():
    assert np.array_equal(np.asarray(open_rgba(saved(transparent(), "PNG"))), np.asarray(transparent()))
    assert np.asarray(open_rgba(noise(20, 12)))[..., 3].min() == 255


KEYS = {
    "16-bit grey": (png(2, 1, 16, 0, [struct.pack(">2H", 0x1234, 0xABCD)], chunk(b"tRNS", b"\x12\x34")), [255, 0xAB]),
    "16-bit grey, as near as one": (
        png(2, 1, 16, 0, [struct.pack(">2H", 0x1235, 0xABCD)], chunk(b"tRNS", b"\x12\x34")),
        [0x12, 0xAB],
    ),
    "16-bit colour": (
        png(2, 1, 16, 2, [struct.pack(">6H", *[0x1234] * 3, *[0xABCD] * 3)], chunk(b"tRNS", b"\x12\x34" * 3)),
        [255, 0xAB],
    ),
    "2-bit grey": (png(4, 1, 2, 0, [b"\x1b"], chunk(b"tRNS", b"\0\1")), [0, 255, 170, 255]),
    "4-bit grey": (png(2, 1, 4, 0, [b"\x21"], chunk(b"tRNS", b"\0\2")), [255, 17]),
    "16-bit grey with alpha": (png(2, 1, 16, 4, [struct.pack(">4H", 0x1234, 0, 0xABCD, 65535)]), [255, 0xAB]),
    "16-bit colour with alpha": (
        png(2, 1, 16, 6, [struct.pack(">8H", *[0x1234] * 3, 0, *[0xABCD] * 3, 65535)]),
        [255, 0xAB],
    ),
}


@pytest.mark.parametrize("kind", KEYS)
def test_transparent_values_of_other_depths(kind):
    content, expected = KEYS[kind]
    assert np.asarray(open_image(content))[0, :, 0].tolist() == expected


# Numbers of more than eight bits

RAMP = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
"""Every level of 8 bits, in 16."""
BITS = np.unpackbits(RAMP.astype(">u2").view(np.uint8)).reshape(-1, 16)
LEVELS = np.arange(256).reshape(16, 16)


def floats(values: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(values.astype(np.float32))


RAMPS = {
    "PNG": saved(PIL.Image.fromarray(RAMP), "PNG"),
    "PGM": b"P5 16 16 65535\n" + RAMP.astype(">u2").tobytes(),
    "PGM of 12 bits": b"P5 16 16 4095\n" + (RAMP >> 4).astype(">u2").tobytes(),
    "plain PGM": b"P2 16 16 65535\n" + b" ".join(b"%d" % value for value in RAMP.ravel()),
    "PPM": b"P6 16 16 65535\n" + np.repeat(RAMP[..., None], 3, 2).astype(">u2").tobytes(),
    "I": PIL.Image.fromarray(RAMP.astype(np.int32)),
    "I of 0 to 255": PIL.Image.fromarray(LEVELS.astype(np.int32)),
    "TIFF I": saved(PIL.Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
    "I;16": PIL.Image.fromarray(RAMP),
    "I;16B": PIL.Image.frombytes("I;16B", (16, 16), RAMP.astype(">u2").tobytes()),
    "I;16L": PIL.Image.frombytes("I;16L", (16, 16), RAMP.tobytes()),
    "I;16N": PIL.Image.frombytes("I;16N", (16, 16), RAMP.tobytes()),
    "TIFF": tiff(16, 16, 16, 1, RAMP.tobytes()),
    "TIFF, big end first": tiff(16, 16, 16, 1, RAMP.astype(">u2").tobytes(), ">"),
    "TIFF, white is zero": tiff(16, 16, 16, 0, (65535 - RAMP).tobytes()),
    "TIFF of 12 bits": tiff(
        16,
        16,
        12,
        1,
        np.packbits(np.unpackbits((RAMP >> 4).astype(">u2").view(np.uint8)).reshape(-1, 16)[:, 4:]).tobytes(),
    ),
    "TIFF, signed": tiff(16, 16, 16, 1, (RAMP.astype(np.int32) - 32768).astype("<i2").tobytes(), sample=2),
    "TIFF of 32 bits": tiff(16, 16, 32, 1, (RAMP.astype("<u4")).tobytes()),
    "F of 0 to 1": floats(LEVELS / 255),
    "F of 0 to 255": floats(LEVELS),
    "F of 0 to 65535": floats(RAMP),
    "F from below zero": floats(LEVELS * 10.0 - 1000),
    "F of millions": floats(LEVELS * 1e6),
    "PFM": b"Pf\n16 16\n-1.0\n" + (LEVELS[::-1] / 255).astype("<f4").tobytes(),
    "TIFF F": saved(floats(LEVELS / 255), "TIFF"),
    "I from below zero": PIL.Image.fromarray((LEVELS * 100 - 5000).astype(np.int32)),
}


@pytest.mark.parametrize("kind", RAMPS)
def test_a_ramp_stays_a_ramp(kind):
    image = open_image(RAMPS[kind])
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image)[..., 0], LEVELS)
    assert np.array_equal(np.asarray(glance(RAMPS[kind], 16)[0]), np.asarray(image.convert("L")))


def test_numbers_that_are_none_are_the_least():
    values = floats(np.where(LEVELS == 7, np.nan, np.where(LEVELS == 8, np.inf, LEVELS / 255)))
    levels = np.asarray(open_image(values))[..., 0]
    assert (levels[LEVELS == 7], levels[LEVELS == 8]) == (0, 255)
    assert np.array_equal(levels[LEVELS > 8], LEVELS[LEVELS > 8])
    assert by_range(np.full((2, 2), np.nan)).tolist() == [[0, 0], [0, 0]]
    assert by_range(np.full((2, 2), -3.0)).tolist() == [[0, 0], [0, 0]]


def test_a_dark_16_bit_file_stays_dark():
    assert np.asarray(open_image(saved(PIL.Image.fromarray(RAMP >> 8), "PNG"))).max() == 0


# Orientation


def oriented(value: object, form: str) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = value
    options = {"lossless": True} if form == "WEBP" else {"quality": 100} if form == "JPEG" else {}
    if form == "MPO":
        return saved(noise(40, 24), "MPO", exif=exif, save_all=True, append_images=[noise(40, 24)])
    return saved(noise(40, 24), form, exif=exif, **options)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "MPO", "JPEG"])
@pytest.mark.parametrize("value", [1, 2, 3, 4, 5, 6, 7, 8])
def test_every_orientation_in_every_container(form, value):
    content = oriented(value, form)
    image = open_image(content)
    size = (40, 24) if value < 5 else (24, 40)
    assert image.size == image_size(content) == glance(content, 8)[1] == size
    assert orientation(image) == 1, "whoever opens it again would turn it again"
    assert open_image(image).size == size
    if form in ("PNG", "WEBP", "TIFF"):
        assert np.array_equal(np.asarray(image), np.asarray(open_image(oriented(value, "PNG"))))
    config = ImageConfig(shortest=14, longest=56, keep_aspect=True)
    rows, columns = ((patches := image_patches(content, config, split=False)[0]).rows, patches.columns)
    assert (rows > columns) == (value >= 5)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "MPO", "JPEG", "TIFF"])
@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(form, value):
    assert open_image(oriented(value, form)).size == (40, 24)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize(
    "junk",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        bytes(range(256)),
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    ],
)
def test_junk_in_place_of_metadata_turns_nothing(form, junk):
    content = saved(noise(40, 24), form, exif=b"Exif\0\0" + junk)
    assert open_image(content).size == image_size(content) == (40, 24)
    assert orientation(PIL.Image.open(io.BytesIO(content))) == 1
