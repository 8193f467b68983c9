"""Thumbnails show an image as models see it; URIs hold all of it."""

from __future__ import annotations

import base64
import io

import PIL.Image
import pytest

from lorgnette.errors import ImageError
from lorgnette.report.thumbnails import data_uri, thumbnail


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_thumbnails_of_every_mode(mode):
    small = PIL.Image.open(io.BytesIO(thumbnail(PIL.Image.new(mode, (400, 100)), side=96)))
    assert small.format == "JPEG"
    assert small.size == (96, 24)


def test_thumbnail_is_upright_and_refuses_what_is_no_image():
    file = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    PIL.Image.new("RGB", (40, 20)).save(file, "JPEG", exif=exif)
    assert PIL.Image.open(io.BytesIO(thumbnail(file.getvalue()))).size == (20, 40)
    with pytest.raises(ImageError, match="not an image"):
        thumbnail(b"text")


@pytest.mark.parametrize(("lossless", "form"), [(True, "PNG"), (False, "JPEG")])
def test_a_uri_holds_the_whole_image(lossless, form):
    image = PIL.Image.linear_gradient("L").convert("RGB")
    head, _, content = data_uri(image, lossless).partition(";base64,")
    found = PIL.Image.open(io.BytesIO(base64.b64decode(content)))
    assert head == f"data:image/{form.lower()}" and found.format == form and found.size == image.size
    assert not lossless or found.tobytes() == image.tobytes()


def test_a_uri_of_a_jpeg_is_the_jpeg():
    jpeg = thumbnail(PIL.Image.new("RGB", (8, 8), "red"))
    assert base64.b64decode(data_uri(jpeg).partition(",")[2]) == jpeg
