"""Images to patches, held to upstream's PIL processor and vision embeddings."""

from __future__ import annotations

import contextlib
import http.server
import io
import random
import threading
import time

import numpy as np
import PIL.Image
import pytest
import torch
from transformers.image_utils import SizeDict, load_image
from transformers.models.idefics2 import image_processing_pil_idefics2 as upstream
from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig
from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionEmbeddings

import lorgnette.inputs.image_io
from lorgnette.errors import ImageError
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import (
    crop_boxes,
    exact_buckets,
    image_patches,
    open_image,
    parity_buckets,
    patch_positions,
    patchify,
    split_quadrants,
    target_size,
)
from tests.inputs.conftest import noise
from tests.inputs.image_files import saved

MEAN, STD = (0.4, 0.5, 0.6), (0.5, 0.25, 0.5)
EDGES = [(1, 1), (1, 500), (500, 1), (2, 2), (3, 2), (13, 14), (15, 14), (377, 378), (378, 378), (379, 377), (980, 980)]
THIN = [(3000, 100), (100, 3000), (200, 100), (1500, 40), (981, 979), (980, 378), (378, 980), (1000, 382), (1960, 980)]


def web_shapes(count: int) -> list[tuple[int, int]]:
    """Widths and heights as images have them, from thumbnails to screens."""
    draw = random.Random(0)
    return [(round(10 ** draw.uniform(1, 3.1)), round(10 ** draw.uniform(1, 3.1))) for _ in range(count)]


SHAPES = EDGES + THIN + web_shapes(190)


def normalised(pixels_PC: np.ndarray) -> np.ndarray:
    """Patches as upstream's processor leaves them, by a table of the 256 values for each channel."""
    levels = (np.arange(256) * np.float64(1 / 255)).astype(np.float32)
    tables = [(levels - np.float32(mean)) / np.float32(std) for mean, std in zip(MEAN, STD, strict=True)]
    channels = np.split(pixels_PC, 3, axis=1)
    return np.concatenate([table[channel] for table, channel in zip(tables, channels, strict=True)], axis=1)


def upstream_patches(images: list[PIL.Image.Image], split: bool) -> list[np.ndarray]:
    """Upstream's padded pixels and mask, reduced to the patches that its model computes on."""
    processor = upstream.Idefics2ImageProcessorPil(image_mean=MEAN, image_std=STD, do_image_splitting=split)
    features = processor([images], return_tensors="pt")
    pixels, mask = features["pixel_values"][0], features["pixel_attention_mask"][0]
    patches = pixels.unfold(2, 14, 14).unfold(3, 14, 14).permute(0, 2, 3, 1, 4, 5).flatten(3)
    is_real = mask.unfold(1, 14, 14).unfold(2, 14, 14).sum((-1, -2)) == 14 * 14
    return [patch[real].numpy() for patch, real in zip(patches, is_real, strict=True)]


@pytest.mark.parametrize("group", range(0, len(SHAPES), 3), ids=lambda first: f"shapes {first}-{first + 2}")
def test_patches_are_bit_equal_to_upstream(group):
    split = group % 4 == 3
    shapes = [
        (max(width, 2), max(height, 2)) if split else (width, height) for width, height in SHAPES[group : group + 3]
    ]
    images = [noise(*shape) for shape in shapes]
    ours = [crop for image in images for crop in image_patches(image, ImageConfig(), split)]
    for crop, expected in zip(ours, upstream_patches(images, split), strict=True):
        assert len(crop) == len(crop.positions_P) == len(expected)
        assert np.array_equal(normalised(crop.pixels_PC), expected)


def test_sizes_are_upstreams():
    for width, height in [*EDGES, *THIN, *web_shapes(5000)]:
        image = np.empty((3, height, width), dtype=np.bool_)
        theirs = upstream.get_resize_output_image_size(image, SizeDict(shortest_edge=378, longest_edge=980))
        assert target_size(width, height, ImageConfig()) == theirs[::-1]


def test_square_policy_stretches():
    image = noise(50, 20)
    patches = patchify(image, ImageConfig(policy="square", shortest=28, longest=56))
    assert (patches.rows, patches.columns) == (4, 4)


def test_thin_images_keep_their_aspect_if_asked():
    config = ImageConfig(keep_aspect=True)
    assert target_size(3000, 100, config) == (980, 33)
    assert target_size(200, 100, config) == (756, 378)
    assert target_size(100, 100, config) == (378, 378)
    assert target_size(10000, 1, config) == (980, 14), "one patch is the least there can be"
    for width, height in web_shapes(2000):
        new_width, new_height = target_size(width, height, config)
        assert min(new_width, new_height) >= 14
        assert max(new_width, new_height) <= 980
        if min(new_width, new_height) > 14:
            assert new_width / new_height == pytest.approx(width / height, rel=0.04)


def test_keep_aspect_changes_no_image_that_upstream_leaves_undistorted():
    for width, height in [(640, 480), (980, 653), (400, 800), (378, 378), *web_shapes(2000)]:
        short, long = sorted((width, height))
        if min(short, int(980 * short / long)) >= 378:
            assert target_size(width, height, ImageConfig(keep_aspect=True)) == target_size(
                width, height, ImageConfig()
            )


def upstream_positions(rows: int, columns: int, grid: int) -> np.ndarray:
    """The position ids inside upstream's embeddings: a table whose rows hold their own numbers."""
    config = Idefics2VisionConfig(hidden_size=1, num_attention_heads=1, image_size=grid * 2, patch_size=2)
    embeddings = Idefics2VisionEmbeddings(config)
    with torch.no_grad():
        embeddings.patch_embedding.weight.zero_()
        embeddings.patch_embedding.bias.zero_()
        embeddings.position_embedding.weight.copy_(torch.arange(grid * grid, dtype=torch.float32)[:, None])
        out = embeddings(torch.zeros(1, 3, rows * 2, columns * 2), torch.ones(1, rows, columns, dtype=torch.bool))
    return out.flatten().long().numpy()


def test_parity_positions_are_upstreams():
    for count in range(1, 71):
        assert np.array_equal(patch_positions(count, 27, 70, "parity"), upstream_positions(count, 27, 70))
        assert np.array_equal(patch_positions(31, count, 70, "parity"), upstream_positions(31, count, 70))


@pytest.mark.parametrize("grid", [5, 27, 32])
def test_parity_positions_are_upstreams_on_other_grids(grid):
    for count in range(1, grid + 1):
        assert np.array_equal(patch_positions(count, grid, grid, "parity"), upstream_positions(count, grid, grid))


def released_buckets(count: int, grid: int) -> np.ndarray:
    """The formula of the classes as they were when Idefics2 was released."""
    boundaries = torch.arange(1 / grid, 1.0, 1 / grid)
    return torch.bucketize(torch.arange(0, 1 - 1e-6, 1 / torch.tensor(count)), boundaries, right=True).numpy()


def test_where_the_formulas_differ():
    def differ(one, other) -> list[int]:
        return [count for count in range(1, 71) if one(count, 70).tolist() != other(count, 70).tolist()]

    assert exact_buckets(25, 70).tolist() == [index * 70 // 25 for index in range(25)]
    assert differ(parity_buckets, exact_buckets) == [25, 49, 50, 55]
    assert differ(released_buckets, exact_buckets) == [25, 49, 50, 55, 58]
    assert differ(released_buckets, parity_buckets) == [49, 58]


def test_exact_positions_are_used_when_asked():
    config = ImageConfig(positions="exact", shortest=14, longest=70, grid=70)
    patches = patchify(noise(70, 28), config)
    assert patches.positions_P.tolist() == [row * 35 * 70 + column * 14 for row in range(2) for column in range(5)]


def test_quadrants_come_first_and_the_whole_last():
    crops = split_quadrants(noise(5, 3))
    assert [crop.size for crop in crops] == [(2, 1), (3, 1), (2, 2), (3, 2), (5, 3)]
    assert crop_boxes(5, 3, split=False) == [(0, 0, 5, 3)]
    assert [crop.size for crop in split_quadrants(noise(1, 9))] == [(1, 9)] * 5, "one pixel cannot be halved"


@pytest.mark.parametrize("split", [False, True])
def test_fast_resize_is_close(split):
    photo = noise(60, 45).resize((1400, 1050), PIL.Image.Resampling.BICUBIC)
    exact = image_patches(photo, ImageConfig(), split)
    fast = image_patches(photo, ImageConfig(resize="fast"), split)
    for one, other in zip(exact, fast, strict=True):
        difference = np.abs(one.pixels_PC.astype(int) - other.pixels_PC)
        assert np.array_equal(one.positions_P, other.positions_P)
        assert difference.max() <= 2
        assert (difference > 0).mean() < 0.02


@pytest.mark.parametrize("orientation", [1, 6])
def test_fast_decode_of_a_large_photo_is_close(orientation):
    photo = noise(40, 30).resize((2600, 1952), PIL.Image.Resampling.BICUBIC)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    content = saved(photo, "JPEG", quality=90, exif=exif)
    exact = image_patches(content, ImageConfig(), split=False)[0]
    fast = image_patches(content, ImageConfig(resize="fast"), split=False)[0]
    assert (fast.rows, fast.columns) == (exact.rows, exact.columns)
    assert np.abs(exact.pixels_PC.astype(int) - fast.pixels_PC).mean() < 1


# Opening


def with_mode(mode: str) -> bytes:
    form = {"CMYK": "JPEG", "F": "TIFF", "I": "TIFF", "YCbCr": "JPEG"}.get(mode, "PNG")
    return saved(noise(20, 12).convert(mode), form)


def damaged(content: bytes) -> dict[str, bytes]:
    """Files that are no image, or no longer one."""
    return {
        "empty": b"",
        "text": b"<html>not found</html>",
        "truncated": content[: len(content) // 2],
        "header only": content[:40],
        "broken inside": content[:200] + bytes(200) + content[400:],
    }


def animation() -> bytes:
    frames = [noise(20, 12, seed) for seed in range(3)]
    return saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)


FILES = {mode: with_mode(mode) for mode in ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F"]}
FILES |= {
    "animation": animation(),
    "animated gif": saved(noise(20, 12), "GIF", save_all=True, append_images=[noise(20, 12, 1)]),
    "one pixel": saved(noise(1, 1), "PNG"),
    "bmp": saved(noise(20, 12), "BMP"),
    "16-bit colour": b"P6 20 12 65535\n" + (np.asarray(noise(20, 12)).astype(">u2") * 257).astype(">u2").tobytes(),
    "8-bit PPM": saved(noise(20, 12), "PPM"),
}


@pytest.mark.parametrize("kind", FILES)
def test_opaque_files_open_as_upstream_opens_them(kind, tmp_path):
    """Of transparent ones `load_image` shows what lies hidden; upstream's processor is the oracle in test_pixels."""
    path = tmp_path / "picture"
    path.write_bytes(FILES[kind])
    expected = np.asarray(load_image(str(path)))
    for source in (FILES[kind], path, str(path), PIL.Image.open(path)):
        image = open_image(source)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), expected)
    assert len(image_patches(path, ImageConfig(), split=True)) == 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    content = saved(noise(20, 12), "PNG", exif=exif)
    expected = load_image(PIL.Image.open(io.BytesIO(content)))
    image = open_image(content)
    assert image.size == ((20, 12) if orientation < 5 else (12, 20))
    assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_an_open_image_is_not_changed():
    content = saved(noise(3000, 2000), "JPEG")
    image = PIL.Image.open(io.BytesIO(content))
    image_patches(image, ImageConfig(resize="fast"), split=False)
    assert image.size == (3000, 2000)


@pytest.mark.parametrize("kind", damaged(FILES["RGB"]))
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_what_is_no_image_is_refused_by_name(kind, form, tmp_path):
    path = tmp_path / "holiday.png"
    path.write_bytes(damaged(saved(noise(64, 64), form))[kind])
    if kind == "broken inside" and form == "JPEG":  # JPEG decoders paint over errors inside, upstream's too
        assert open_image(path).size == (64, 64)
        return
    with pytest.raises(ImageError, match=r"^sample 7, image 2 \(.*holiday\.png\): "):
        open_image(path, "sample 7, image 2")
    with pytest.raises(ImageError, match=r"^sample 7, image 2: "):
        open_image(path.read_bytes(), "sample 7, image 2")


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ImageError, match=r"image \(.*gone\.png\): no such file"):
        open_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="cannot be read as an image"):
        open_image(tmp_path)


def test_decompression_bombs_are_refused_before_they_are_decoded():
    bomb = saved(PIL.Image.new("1", (20000, 20000)), "PNG")
    assert len(bomb) < 2**20
    with pytest.raises(ImageError, match="photo: exceeds the limit"):
        open_image(bomb, "photo")
    with pytest.raises(ImageError, match="photo: 20 x 12 exceeds the limit of 200 pixels"):
        open_image(FILES["RGB"], "photo", max_pixels=200)
    with pytest.raises(ImageError, match="exceeds the limit"):
        image_patches(noise(20, 12), ImageConfig(max_pixels=200), split=False)


# Downloading


class Answers(http.server.BaseHTTPRequestHandler):
    """A server of one picture, a picture without end, one that never comes, and nothing else."""

    def do_GET(self) -> None:
        if self.path == "/gone":
            return self.send_error(404)
        self.send_response(200)
        self.end_headers()
        if self.path == "/picture":
            self.wfile.write(FILES["RGB"])
        with contextlib.suppress(OSError):
            while self.path in ("/endless", "/slow"):
                self.wfile.write(bytes(2**16 if self.path == "/endless" else 1))
                self.wfile.flush()
                time.sleep(0.01)
        return None

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_url_is_opened(server):
    image = open_image(f"{server}/picture")
    assert np.array_equal(np.asarray(image), np.asarray(open_image(FILES["RGB"])))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/gone", "404"),
        ("/endless", "exceeds 1 MiB"),
        ("/slow", "takes longer than 1 seconds"),
        ("/empty", "not an image"),
        ("/sp ace", "cannot be downloaded"),
    ],
)
def test_a_url_that_gives_no_image_is_refused_by_name(server, path, reason, monkeypatch):
    monkeypatch.setattr(lorgnette.inputs.image_io, "MAX_DOWNLOAD", 2**20)
    monkeypatch.setattr(lorgnette.inputs.image_io, "DOWNLOAD_SECONDS", 1.0)
    with pytest.raises(ImageError, match=rf"^image \({server}{path}\): .*{reason}"):
        open_image(server + path)


def test_a_file_url_is_a_path(tmp_path):
    path = tmp_path / "a picture.png"
    path.write_bytes(FILES["RGB"])
    for url in (path.as_uri(), path.as_uri().replace("file:///", "FILE://localhost/")):
        assert open_image(url).size == (20, 12)
    with pytest.raises(ImageError, match="no such file"):
        open_image((tmp_path / "gone.png").as_uri())
    with pytest.raises(ImageError, match="another machine"):
        open_image("file://elsewhere/a.png")
