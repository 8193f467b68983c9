"""Every form in which users have an image, through messages, segments and the openers."""

from __future__ import annotations

import base64
import io
import random
import urllib.parse
from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image
import pybase64
import pytest
import torch
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil

from lorgnette.errors import DataError
from lorgnette.images import b64decode, image_source
from lorgnette.inputs.image_io import open_image
from lorgnette.sample import Image, Sample, Text, Turn, decode_base64
from tests.inputs.conftest import noise
from tests.inputs.image_files import saved

PICTURE = noise(20, 12)
PNG = saved(PICTURE, "PNG")
ENCODED = base64.b64encode(PNG).decode()
LINES = base64.encodebytes(PNG).decode()
SAFE = base64.urlsafe_b64encode(PNG).decode()
PIXELS = np.asarray(PICTURE)


def read(part: object) -> Image:
    """The image of a message that holds this part alone."""
    [image] = Sample.from_messages([{"role": "user", "content": [part]}]).images
    return image


def is_picture(source: object) -> bool:
    return np.array_equal(np.asarray(open_image(source)), PIXELS)


TEXTS = {
    "base64": ENCODED,
    "with line breaks": LINES,
    "with CRLF": LINES.replace("\n", "\r\n"),
    "with a trailing newline": f"{ENCODED}\n",
    "with spaces": " ".join(ENCODED[at : at + 4] for at in range(0, len(ENCODED), 4)),
    "without padding": ENCODED.rstrip("="),
    "URL-safe": SAFE,
    "URL-safe without padding": SAFE.rstrip("="),
    "percent-encoded": urllib.parse.quote(ENCODED, safe=""),
}
LINKS = {
    **{f"data URL, {name}": f"data:image/png;base64,{text}" for name, text in TEXTS.items()},
    "a space after the comma": f"data:image/png;base64, {ENCODED}",
    "DATA:": f"DATA:image/png;BASE64,{ENCODED}",
    "no media type": f"data:;base64,{ENCODED}",
    "a parameter": f"data:image/png;charset=utf-8;base64,{ENCODED}",
    "white space before": f"\n data:image/png;base64,{ENCODED}",
    "percent-encoded bytes": "data:image/png," + urllib.parse.quote_from_bytes(PNG),
    "base64 that does not say so": f"data:image/png,{ENCODED}",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_base64_as_clients_write_it(kind):
    text = TEXTS[kind]
    assert decode_base64(text, "it") == decode_base64(text.encode(), "it") == PNG
    for part in ({"type": "image", "base64": text}, {"type": "image", "base64": text.encode()}, {"base64": text}):
        assert read(part) == Image(PNG)
    if "%" not in text:  # bare, told from a path by how images begin
        for part in ({"type": "image", "image": text}, {"type": "image", "url": text}, {"image_url": {"url": text}}):
            assert read(part) == Image(PNG)
        assert Image(text.encode()) == Image(PNG)


@pytest.mark.parametrize("kind", LINKS)
def test_data_urls_as_clients_write_them(kind):
    link = LINKS[kind]
    for part in (
        {"type": "image_url", "image_url": {"url": link}},
        {"type": "image_url", "image_url": link},
        {"type": "input_image", "image_url": link},
        {"type": "image", "image": link},
        {"type": "image", "url": link},
        {"type": "image", "base64": link},
        {"type": "image", "image": link.encode()},
    ):
        assert read(part) == Image(PNG)
    assert is_picture(link)


@pytest.mark.parametrize(
    "form",
    ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "ICO", "ICNS", "AVIF", "JPEG2000"],
)
def test_bare_base64_of_every_format(form):
    content = saved(noise(64, 64), form)
    assert image_source(base64.b64encode(content).decode()) == content
    assert image_source(base64.encodebytes(content).decode()) == content


@pytest.mark.parametrize(
    "path",
    [
        "cat.png",
        "images/cat",
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQE/a.jpg",
        "iVBORw0KGgo/cat.png",
        "a" * 64,
        "0123456789abcdef" * 4,
        "R0lGODlh",
        "http://example.org/cat.png",
        "file:///tmp/cat.png",
    ],
)
def test_a_path_stays_a_path(path):
    assert read({"type": "image", "image": path}).source == path


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "image", "base64": "@@"}, "not valid base64"),
        ({"type": "image", "base64": "iVBORé"}, "not valid base64"),
        ({"type": "image", "base64": b"\xff\xfe"}, "not valid base64"),
        ({"type": "image", "base64": ENCODED + "=" + ENCODED}, "not valid base64"),
        ({"type": "image", "base64": "A"}, "not valid base64"),
        ({"type": "image", "base64": ""}, "empty"),
        ({"type": "image", "base64": 7}, "not valid base64"),
        ({"type": "image", "base64": "data:;base64," * 5000}, "not valid base64"),
        ({"type": "image", "image": "data:image/png;base64"}, "no comma"),
        ({"type": "image", "image": {"bytes": None, "path": None}}, "needs `bytes` or `path`"),
        ({"type": "image", "image": {"bytes": {}, "path": {"path": {}}}}, "needs `bytes` or `path`"),
        ({"type": "image", "image": [1, 2]}, "not a list"),
        ({"type": "image"}, "exactly one of"),
        ({"type": "input_image", "file_id": "file-1"}, "`file_id` names a file of another service"),
        ({"type": "input_image"}, "not a NoneType"),
        ({"type": ["image"] * 10_000}, "is unknown"),
        ({"type": "v" * 1_000_000}, "is unknown"),
        ({}, "exactly one of"),
        ({"text": "a", "image": "b.png"}, "holds text and an image"),
        ({"type": "text", "text": "a", "image": "b.png"}, "holds text and an image"),
        ({"type": "image", "text": "a", "image": "b.png"}, "holds text and an image"),
        ({"type": "image_url", "text": "a", "image_url": {"url": "b.png"}}, "holds text and an image"),
    ],
)
def test_what_cannot_be_read_is_named_shortly(part, reason):
    with pytest.raises(DataError, match=f"message 0, part 0: .*{reason}") as refusal:
        read(part)
    assert len(str(refusal.value)) < 400


def test_no_message_holds_a_whole_source():
    long = "x" * 4_000_000
    assert len(repr(Image(PNG * 1000))) < 40
    for segment in (Image(long), Image(Path(long)), Text(long), Text(long, supervised=True)):
        assert len(repr(segment)) < 300
    assert repr(Text("a", supervised=True)) == "Text('a', supervised=True)"
    assert len(repr(Sample((Turn("user"), Image(long), Text(long))))) < 700
    for messages in ([{"role": "user", "text": long}], [long], [{"role": "user", "content": [{"type": long}]}]):
        with pytest.raises(DataError) as refusal:
            Sample.from_messages(messages)
        assert len(str(refusal.value)) < 400


FORMS = {
    "PIL image": lambda path: PICTURE,
    "bytes": lambda path: PNG,
    "bytearray": lambda path: bytearray(PNG),
    "memoryview": lambda path: memoryview(PNG),
    "path": lambda path: path,
    "text path": lambda path: str(path),
    "os.PathLike": lambda path: PurePosixPath(path),
    "file: URL": lambda path: path.as_uri(),
    "BytesIO": lambda path: io.BytesIO(PNG),
    "datasets, bytes": lambda path: {"bytes": PNG, "path": None},
    "datasets, path": lambda path: {"bytes": None, "path": str(path)},
    "datasets, both": lambda path: {"bytes": PNG, "path": "elsewhere.png"},
    "datasets, base64": lambda path: {"bytes": ENCODED, "path": None},
    "numpy HWC": lambda path: PIXELS,
    "numpy CHW": lambda path: PIXELS.transpose(2, 0, 1),
    "numpy, 0 to 1": lambda path: PIXELS / 255,
    "numpy, 0 to 1, float32": lambda path: (PIXELS / 255).astype(np.float32),
    "numpy, 0 to 255": lambda path: PIXELS.astype(np.float64),
    "numpy, int64": lambda path: PIXELS.astype(np.int64),
    "numpy, 16 bits": lambda path: PIXELS.astype(np.uint16) * 257,
    "numpy, int32 of 16 bits": lambda path: PIXELS.astype(np.int32) * 257,
    "numpy, 4 channels": lambda path: np.asarray(PICTURE.convert("RGBA")),
    "numpy, 4 channels first": lambda path: np.asarray(PICTURE.convert("RGBA")).transpose(2, 0, 1),
    "tensor CHW": lambda path: torch.tensor(PIXELS).permute(2, 0, 1),
    "tensor HWC": lambda path: torch.tensor(PIXELS),
    "tensor, 0 to 1": lambda path: torch.tensor(PIXELS).permute(2, 0, 1) / 255,
    "tensor that needs a gradient": lambda path: (torch.tensor(PIXELS) / 255).requires_grad_(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_picture(form, tmp_path):
    path = tmp_path / "a picture.png"
    path.write_bytes(PNG)
    for image in (
        Image(FORMS[form](path)),
        read({"type": "image", "image": FORMS[form](path)}),
        read({"image": FORMS[form](path)}),
    ):
        assert is_picture(image.source)
        assert isinstance(image.source, PIL.Image.Image | bytes | str | Path)
    assert is_picture(FORMS[form](path)), "the openers take it too"


def test_an_open_file_is_read_from_its_start(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    with open(tmp_path / "a.png", "rb") as file:
        file.read(7)
        assert Image(file) == Image(PNG)
    with pytest.raises(DataError, match="cannot be read"):
        Image(file)
    with open(tmp_path / "a.png", encoding="latin-1") as text, pytest.raises(DataError, match="open it with 'rb'"):
        Image(text)


def test_bfloat16_and_grey_arrays():
    grey = np.asarray(PICTURE.convert("L"))
    for array in (grey, grey[..., None], grey[None], torch.tensor(grey)[None], torch.tensor(grey / 255)):
        assert np.array_equal(np.asarray(open_image(array))[..., 0], grey)
    halves = torch.tensor(grey / 255, dtype=torch.bfloat16)
    assert np.abs(np.asarray(open_image(halves))[..., 0].astype(int) - grey).max() <= 1
    assert open_image(grey > 127).getextrema() == ((0, 255),) * 3


def test_arrays_are_upstreams_pixels():
    processor = Idefics2ImageProcessorPil(do_resize=False, do_rescale=False, do_normalize=False, do_pad=False)
    for array in (PIXELS, PIXELS.transpose(2, 0, 1), PIXELS[:, :4]):
        theirs = np.asarray(processor([array])["pixel_values"][0][0]).transpose(1, 2, 0)
        assert np.array_equal(np.asarray(open_image(array)), theirs)


def test_an_array_that_changes_later_changes_no_image():
    for array in (PIXELS.copy(), np.asarray(PICTURE.convert("L")).copy(), np.asarray(PICTURE.convert("RGBA")).copy()):
        image = Image(array)
        before = open_image(image.source).tobytes()
        array[:] = 0
        assert open_image(image.source).tobytes() == before


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 40, 3), np.uint8), r"shape \(3, 40, 3\) has its channels first or last"),
        (np.zeros((1, 1, 3), np.uint8), "first or last"),
        (np.zeros((4, 40, 3), np.uint8), "first or last"),
        (np.zeros((4, 40, 4), np.uint8), "first or last"),
        (np.zeros((40, 30, 5), np.uint8), "no side of 1, 3 or 4 channels"),
        (np.zeros((1, 40, 30, 3), np.uint8), "is no image"),
        (np.zeros(7, np.uint8), "is no image"),
        (np.uint8(7), "is no image"),
        (np.zeros((0, 5), np.uint8), "is no image"),
        (np.zeros((5, 5), "U3"), "is no image"),
        (np.zeros((5, 5), object), "is no image"),
        (np.zeros((5, 5), complex), "is no image"),
        (np.full((5, 5), -1.0), "values from -1.0 to -1.0"),
        (np.full((5, 5), np.nan), "values from nan"),
        (np.full((5, 5), 300.0), "values from 300.0"),
        (np.full((5, 5), -3), "values from -3"),
        (np.full((5, 5), 70000), "values from 70000"),
        (torch.randn(3, 20, 12), "values from -"),
    ],
)
def test_an_array_that_is_no_image_is_named(array, reason):
    with pytest.raises(DataError, match=f"message 0, part 0: an array .*{reason}"):
        read({"type": "image", "image": array})


def test_parts_of_other_clients():
    content = [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "http://x/a.png", "detail": "auto"},
        {"text": "b"},
        {"image": "b.png"},
        {"image_url": {"url": "http://x/c.png"}},
        {"type": "text", "text": "c", "image": None},
        {"type": None, "text": "d", "image": None},
        {"type": "image", "image": "d.png", "text": None, "url": None},
        {"type": "output_text", "text": "e"},
    ]
    sample = Sample.from_messages([{"role": "user", "content": content}])
    assert sample.text == "abcde"
    assert [image.source for image in sample.images] == ["http://x/a.png", "b.png", "http://x/c.png", "d.png"]


def decoded(text):
    try:
        return decode_base64(text, "row 3")
    except DataError:
        return "refused"


def test_the_fast_decoder_of_base64_reads_and_refuses_as_the_standard_library_does(monkeypatch):
    assert b64decode is pybase64.b64decode, "it is used where it is installed"
    draw = random.Random(0)
    alphabet = "ABCDwxyz0189+/=-_ \n\0é"
    texts = ["".join(draw.choices(alphabet, k=draw.randrange(12))) for _ in range(3000)]
    texts += [base64.b64encode(draw.randbytes(size)).decode() for size in range(200)]
    fast = [decoded(text) for text in texts]
    monkeypatch.setattr("lorgnette.images.b64decode", base64.b64decode)
    assert fast == [decoded(text) for text in texts]
    assert 200 < fast.count("refused") < len(fast) - 200
