"""The door for images: what is refused, with which words, before anything is decoded and at which cost."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import time
import zlib

import numpy as np
import PIL.Image
import pytest

from lorgnette.data.inspect.unpatchify import original_size
from lorgnette.data.prepare.image_facts import image_facts
from lorgnette.errors import ImageError, SettingsError
from lorgnette.eval.image_checks import check_image, image_digest
from lorgnette.eval.models.openai_api import image_url
from lorgnette.infer.image_cache import _key
from lorgnette.inputs.config import MAX_PIXELS, ImageConfig
from lorgnette.inputs.image import image_patches
from lorgnette.inputs.image_io import BUDGET, DECODED, FORMATS, glance, image_bytes, image_size, open_image
from lorgnette.report.thumbnails import thumbnail
from tests.inputs.conftest import noise
from tests.inputs.image_files import chunk, icns, ico, iptc, jpeg_without_data, png, saved, webp

EVERY_PATH = {
    "open_image": open_image,
    "glance": lambda source: glance(source, 64),
    "image_size": image_size,
    "image_patches": lambda source: image_patches(source, ImageConfig(), split=False),
    "fast": lambda source: image_patches(source, ImageConfig(resize="fast"), split=True),
    "image_facts": lambda source: image_facts(source, "image", MAX_PIXELS),
    "check_image": check_image,
    "thumbnail": thumbnail,
    "image_url": image_url,
}
"""Everything that opens an image of unknown origin."""
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"

# Formats


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A `gs` first on the path that leaves a trace when it is run."""
    trace = tmp_path / "was run"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho run >> '{trace}'\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_windows_binary", None)
    return trace


@pytest.mark.parametrize("way", EVERY_PATH)
def test_no_program_is_run_on_an_image(way, ghostscript, tmp_path):
    for content in (EPS, saved(noise(20, 12), "EPS"), iptc(EPS)):
        with pytest.raises(ImageError):
            EVERY_PATH[way](content)
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(ImageError):
            EVERY_PATH[way](tmp_path / "a.jpg")
        if way != "image_facts":  # which takes files alone
            with pytest.raises(ImageError, match=r"(EPS|IPTC) files are not accepted"):
                EVERY_PATH[way](PIL.Image.open(io.BytesIO(content)))
    for naming in (image_digest, _key):
        with pytest.raises(ImageError, match="files are not accepted"):
            naming(PIL.Image.open(io.BytesIO(iptc(EPS))))
    assert original_size(EPS) is None
    assert not ghostscript.exists()


def test_the_trace_is_left_where_the_program_runs(ghostscript):
    with pytest.raises(Exception, match="gs"):
        PIL.Image.open(io.BytesIO(iptc(EPS))).load()
    assert ghostscript.exists(), "the test above could fail"


OTHERS = {
    "EPS": (EPS, "EPS files are not accepted; convert it to PNG"),
    "SVG": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>', "SVG .* render it to PNG"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC .* convert it to JPEG or PNG"),
    "HEIF of another brand": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
    "a film": (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", "a film, not an image"),
    "PDF": (b"%PDF-1.7\n", "PDF .* documents"),
    "HTML": (b"\n<!DOCTYPE html><html>not found</html>", "a web page"),
    "PSD": (b"8BPS\0\1" + bytes(40), "PSD"),
    "JPEG XL": (b"\xff\x0a" + bytes(40), "JPEG XL"),
    "an archive": (b"PK\3\4" + bytes(40), "an archive"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
    "nothing": (b"", "is empty, not an image"),
    "text": (b"hello", "not an image of a known format"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_image_is_named(kind):
    content, reason = OTHERS[kind]
    for way in ("open_image", "thumbnail", "image_size", "image_url"):
        with pytest.raises(ImageError, match=f"^image: .*{reason}"):
            EVERY_PATH[way](content)


@pytest.mark.parametrize("form", [*FORMATS, "MPO"])
def test_every_format_of_the_list_opens(form):
    if form == "DIB":
        content = saved(noise(64, 64), "BMP")[14:]
    else:
        content = saved(noise(64, 64), form)
    assert form in DECODED
    assert open_image(content).mode == "RGB"
    opened = PIL.Image.open(io.BytesIO(content))
    assert np.array_equal(np.asarray(open_image(opened)), np.asarray(open_image(content)))


# Sizes

JPEG2000 = b"\0\0\0\x0cjP  \r\n\x87\n\xff\x4f\xff\x51\0\x2f\0\0"
"""The start of a JPEG 2000, up to its size."""
BOMBS = {
    "WebP": webp(13000),
    "WebP within the limit": webp(6000),
    "JPEG cut off": jpeg_without_data(13000, 13000, b""),
    "JPEG cut off within the limit": jpeg_without_data(6000, 6000),
    "JPEG without data, small": jpeg_without_data(300, 300),
    "PNG of 1 bit": png(13000, 13000, 1, 0),
    "PNG in ICO": ico(png(13000, 13000, 1, 0)),
    "the second PNG in ICO": ico(png(16, 16, 8, 2), png(13000, 13000, 1, 0)),
    "PNG in ICNS": icns(png(13000, 13000, 1, 0)),
    "JPEG 2000 in ICNS": icns(JPEG2000 + struct.pack(">4I", 13000, 13000, 0, 0)),
    "TIFF group 4": saved(PIL.Image.new("1", (8000, 8000)), "TIFF", compression="group4"),
    "GIF": b"GIF89a\xe8\xfd\xe8\xfd\0\0\0,\0\0\0\0\xe8\xfd\xe8\xfd\0\2\0;",
    "plain PPM": b"P3 3000 3000 255\n" + b"0 " * 27_000_000,
    "a header without end": b"P5 " + b" " * 10_000_000 + b"3 3 255\n" + bytes(9),
    "a comment without end": b"P5 #" + b"-" * 10_000_000 + b"\n3 3 255\n" + bytes(9),
    "long and thin": png(170_000_000, 1, 1, 0),
    "no width": b"P5 0 5 255\n",
    "no height": saved(noise(5, 5), "BMP").replace(struct.pack("<ii", 5, 5), struct.pack("<ii", 5, 0)),
}


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(kind, monkeypatch):
    def decode(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    for way in EVERY_PATH:
        start = time.process_time()
        with pytest.raises(ImageError, match=r"^image: (?!.*decoded)"):
            EVERY_PATH[way](BOMBS[kind])
        assert time.process_time() - start < 2


@pytest.mark.filterwarnings("ignore:Image size")
def test_an_opened_bomb_is_refused_too():
    for content in (png(13000, 13000, 1, 0), icns(png(13000, 13000, 1, 0)), png(170_000, 1, 1, 0)):
        with pytest.raises(ImageError, match="exceeds the limit"):
            open_image(PIL.Image.open(io.BytesIO(content)))
    with pytest.raises(ImageError, match="0 x 5 pixels are no image"):
        open_image(PIL.Image.new("RGB", (0, 5)))
    with pytest.raises(ImageError, match="5 x 0 pixels are no image"):
        image_patches(PIL.Image.new("RGB", (5, 0)), ImageConfig(), split=True)


BLANK = {
    "PNG": png(4000, 3000, 8, 2),
    "PNG of 1 bit": png(4000, 3000, 1, 0),
    "JPEG": saved(PIL.Image.new("RGB", (4000, 3000)), "JPEG"),
    "progressive JPEG": saved(PIL.Image.new("L", (4000, 3000)), "JPEG", progressive=True, optimize=True),
    "WebP": saved(PIL.Image.new("RGB", (2000, 2000)), "WEBP", lossless=True, method=0),
    "a blank page of a scanner": saved(PIL.Image.new("1", (4960, 7016), 1), "TIFF", compression="group4"),
    "GIF": saved(PIL.Image.new("P", (2000, 2000)), "GIF"),
}


@pytest.mark.parametrize("kind", BLANK)
def test_blank_images_of_ordinary_size_are_images(kind):
    grey, size = glance(BLANK[kind], 64)
    assert min(size) >= 2000
    assert grey.getextrema() in ((0, 0), (255, 255))


def test_the_limit_is_a_setting():
    assert ImageConfig().max_pixels == MAX_PIXELS == 40_000_000
    with pytest.raises(ImageError, match="exceeds the limit of 200 pixels"):
        image_patches(noise(20, 12), ImageConfig(max_pixels=200), split=False)
    for wrong in (0, 10**9):
        with pytest.raises(SettingsError, match="max_pixels"):
            ImageConfig.parse({"max_pixels": wrong}, "test")


def test_sides_up_to_the_limit_are_right():
    config = ImageConfig(shortest=14, longest=56)
    for content in (png(65_535, 1, 8, 2), png(1, 60_000, 8, 2)):
        assert image_patches(content, config, split=True)[0].pixels_PC.any() == np.False_


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 200), (2, 2)])
def test_the_smallest_images_are_resized_fast_as_exactly(size, keep_aspect, split):
    options = {"shortest": 48, "longest": 128, "patch": 16, "grid": 8, "keep_aspect": keep_aspect}
    image = PIL.Image.new("RGB", size, (10, 20, 30))
    for source in (image, saved(image, "PNG")):
        exact, fast = (
            image_patches(source, ImageConfig(resize=resize, **options), split) for resize in ("exact", "fast")
        )
        for one, other in zip(exact, fast, strict=True):
            assert np.array_equal(one.pixels_PC, other.pixels_PC)


def test_a_failing_resize_names_the_image(monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.Image.Image.resize", fail)
    with pytest.raises(ImageError, match=r"photo: cannot be read as an image \(MemoryError\)"):
        image_patches(noise(20, 12), ImageConfig(), split=False, name="photo")


# Text within a PNG

TEXTS = {
    "zTXt": chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(3_000_000))),
    "iTXt": chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
    "iCCP": chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(30_000_000))),
    "many": chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(900_000))) * 90,
    "plain": chunk(b"tEXt", b"k\0" + bytes(70_000_000)),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("place", ["before the pixels", "after the pixels"])
def test_large_texts_do_not_hide_the_pixels(kind, place):
    content = saved(noise(64, 48), "PNG")
    end = content.index(b"IDAT") - 4 if place == "before the pixels" else len(content) - 12
    image = open_image(content[:end] + TEXTS[kind] + content[end:])
    assert np.array_equal(np.asarray(image), np.asarray(noise(64, 48)))


def test_small_texts_stay():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    content = saved(noise(64, 48), "PNG", exif=exif)
    place = content.index(b"IDAT") - 4
    assert open_image(content[:place] + TEXTS["zTXt"] + content[place:]).size == (48, 64)


# Errors and sources


@pytest.mark.parametrize("way", EVERY_PATH)
def test_every_error_of_a_decoder_names_the_image(way):
    dds = bytearray(saved(noise(20, 12), "DDS"))
    dds[80:84] = bytes(4)
    with pytest.raises(ImageError, match=r"^image: .*Unknown pixel format flags 0"):
        EVERY_PATH[way](bytes(dds))


ERRORS = [RuntimeError, MemoryError, struct.error, OverflowError, SyntaxError, KeyError, RecursionError, EOFError]


@pytest.mark.parametrize("error", ERRORS)
def test_whatever_a_decoder_raises(error, monkeypatch):
    def fail(*_: object) -> None:
        raise error("a" * 10_000)

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    for way in sorted(EVERY_PATH.keys() - {"image_size"}):
        if way != "image_url":  # sent as it is
            with pytest.raises(ImageError, match=r"^image: cannot be read as an image") as refusal:
                EVERY_PATH[way](saved(noise(20, 12), "PNG"))
            assert len(str(refusal.value)) < 300


def test_a_message_holds_little_of_its_source(tmp_path):
    for source in ("x" * 4_000_000, "/" + "y/" * 2_000_000, "data:text/plain," + "z" * 4_000_000):
        for way in ("open_image", "thumbnail", "image_size", "image_bytes"):
            if way == "image_bytes" and source.startswith("data:"):
                continue
            with pytest.raises(ImageError) as refusal:
                {**EVERY_PATH, "image_bytes": image_bytes}[way](source)
            assert len(str(refusal.value)) < 600


def test_images_that_look_different_have_different_names():
    """A palette, a transparent colour and an orientation are no pixels, and change what is seen."""
    one = PIL.Image.new("P", (4, 4))
    others = [one.copy() for _ in range(3)]
    others[0].putpalette([255, 0, 0])
    others[1].info["transparency"] = 0
    others[2].getexif()[0x0112] = 3
    for naming in (image_digest, _key):
        assert len({naming(image) for image in (one, *others)}) == 4
        assert naming(one) == naming(one.copy())
    assert _key("x" * 10**6) != _key("y" * 10**6), "too long for a path, and named all the same"


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for source in (tmp_path / "pipe.png", "/dev/zero", tmp_path):
        for way in ("open_image", "check_image", "thumbnail"):
            with pytest.raises(ImageError, match="not a regular file"):
                EVERY_PATH[way](source)
        with pytest.raises(ImageError, match="not a regular file"):
            image_bytes(source)


def test_servers_get_no_transparent_pixels():
    opaque, hidden = noise(20, 12), noise(20, 12).convert("RGBA")
    hidden.putalpha(PIL.Image.linear_gradient("L").resize((20, 12)))
    assert open_image(image_url(saved(opaque, "PNG"))).tobytes() == opaque.tobytes()
    sent = PIL.Image.open(io.BytesIO(image_bytes(image_url(saved(hidden, "PNG")))))
    assert sent.mode == "RGB"
    assert sent.tobytes() == open_image(hidden).tobytes()


# The budget of memory


def test_decoding_gives_its_memory_back_whatever_happens():
    held = BUDGET._held
    for content in (saved(noise(20, 12), "WEBP"), saved(noise(20, 12), "PNG")[:-30]):
        with contextlib.suppress(ImageError):
            open_image(content)
        assert BUDGET._held == held


def test_a_process_that_was_forked_has_the_whole_budget():
    with BUDGET.hold(BUDGET.total):
        child = os.fork()
        if child == 0:
            os._exit(0 if open_image(saved(noise(4, 4), "PNG")).size == (4, 4) else 1)
        assert os.waitpid(child, 0)[1] == 0
