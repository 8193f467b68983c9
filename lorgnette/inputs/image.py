"""From any image to patches: opened safely, sized as Idefics2 does, split if asked, and cut with their positions.

Everything here is `uint8`: the vision encoder normalises, by a mean and standard deviation that belong to its weights.
"""

from __future__ import annotations

import http.client
import io
import math
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
import torch
import torch.nn.functional as F

from lorgnette.errors import ImageError
from lorgnette.inputs.config import ImageConfig
from lorgnette.sample import ImageSource

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

MAX_DOWNLOAD = 64 * 2**20
"""Bytes of a linked image beyond which it is refused."""
DOWNLOAD_SECONDS = 30.0
"""The whole of a download, not one read of it, must end within this time."""
EXTERNAL_FORMATS = frozenset({"EPS"})
"""Formats that Pillow opens by running another program on the file; never done for an image of unknown origin."""


@dataclass(frozen=True, eq=False)
class Patches:
    """One image, or one crop of it, as the vision encoder takes it. Patches go row by row from the top left."""

    pixels_PC: np.ndarray
    """Pixels of each patch, flattened as channel, row, column (uint8)."""
    positions_P: np.ndarray
    """Row of each patch in the encoder's grid x grid table of positions (int64)."""
    rows: int
    columns: int

    def __len__(self) -> int:
        return self.rows * self.columns


def open_image(source: ImageSource, name: str = "image", max_pixels: int = 178_956_970) -> PIL.Image.Image:
    """Decode an image to upright RGB, by upstream's rules: EXIF orientation, then Pillow's `convert`.

    One rule differs. Pillow turns every 16-bit grey above 255 white, so nothing of the picture is left; we keep the
    upper eight bits, as Pillow itself does for 16-bit colour.

    source: a PIL image, the bytes of an image file, or its path or http(s) URL. Of an animation, the first frame.
    name: how an error refers to the image; a path or URL is named as well.
    Raises: ImageError if it is missing, truncated, not an image, or of more than `max_pixels` pixels.
    """
    with _refusing(source, name):
        return _upright_rgb(_open(source, max_pixels))


def image_bytes(source: ImageSource, name: str = "image") -> bytes:
    """The file of an image, as it is, from its bytes, path or URL. Raises: ImageError if it cannot be had."""
    with _refusing(source, name):
        if isinstance(source, bytes):
            return source
        if isinstance(source, str) and source.startswith(("http://", "https://")):
            return _download(source)
        if isinstance(source, PIL.Image.Image):
            raise ImageError("is decoded already; its file is not known any more")
        return Path(source).read_bytes()


def glance(
    source: ImageSource, side: int, name: str = "image", max_pixels: int = 178_956_970
) -> tuple[PIL.Image.Image, tuple[int, int]]:
    """An image in upright grey, no finer than needed, and the upright width and height of the whole.

    side: pixels that each side of the result has at least, if the image has them; a JPEG is not decoded much finer.
    Raises: ImageError wherever `open_image` does: the whole file is read, so a truncated one is found.
    """
    with _refusing(source, name):
        image = _open(source, max_pixels)
        size = image.size if _orientation(image) < 5 else image.size[::-1]
        if image is not source:
            image.draft("L", (side, side))
        if image.mode == "L":
            image.load()
            return PIL.ImageOps.exif_transpose(image), size
        return _upright_rgb(image).convert("L"), size


@contextmanager
def _refusing(source: ImageSource, name: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into an ImageError that names the image."""
    if isinstance(source, str | Path):
        name = f"{name} ({source})"
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except PIL.UnidentifiedImageError:
        raise ImageError(f"{name}: not an image of a known format") from None
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except Exception as error:  # Pillow's plugins raise anything at all on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: cannot be read as an image ({reason})") from None


def _open(source: ImageSource, max_pixels: int) -> PIL.Image.Image:
    """Read the header alone, and refuse what should not be decoded."""
    if isinstance(source, PIL.Image.Image):
        image = source
    else:
        if isinstance(source, str) and source.startswith(("http://", "https://")):
            source = _download(source)
        image = PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    if image.format in EXTERNAL_FORMATS:
        raise ImageError(f"{image.format} files are not accepted; convert it to PNG")
    if image.width * image.height > max_pixels:
        raise ImageError(f"{image.width} x {image.height} exceeds the limit of {max_pixels} pixels; scale it down")
    return image


def _upright_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    image.load()
    if _orientation(image) != 1:
        image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        grey = np.asarray(image.convert("I")) >> 8
        image = PIL.Image.fromarray(grey.astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(image: PIL.Image.Image) -> int:
    """EXIF orientation: 1 is upright; from 5 on, width and height change places."""
    return int(image.getexif().get(PIL.ExifTags.Base.Orientation, 1))


def _download(url: str) -> bytes:
    """The bytes behind a URL, within `DOWNLOAD_SECONDS` and `MAX_DOWNLOAD`."""
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    content = bytearray()
    request = urllib.request.Request(url, headers={"User-Agent": "lorgnette"})
    try:
        with urllib.request.urlopen(request, timeout=DOWNLOAD_SECONDS) as response:
            while chunk := response.read1(65536):
                content += chunk
                if len(content) > MAX_DOWNLOAD:
                    raise ImageError(f"the download exceeds {MAX_DOWNLOAD >> 20} MiB")
                if time.monotonic() > deadline:
                    raise ImageError(f"the download takes longer than {DOWNLOAD_SECONDS:.0f} seconds")
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        raise ImageError(f"cannot be downloaded ({error})") from None
    return bytes(content)


def target_size(width: int, height: int, config: ImageConfig) -> tuple[int, int]:
    """The size (width, height) to which an image is resized, in pixels.

    Upstream caps the long side at `longest` and then raises the short one to `shortest`, so images thinner than
    shortest : longest are distorted, and small ones become squares. `keep_aspect` changes those and no others.
    """
    if config.policy == "square":
        return config.longest, config.longest
    capped_width, capped_height = width, height
    if width >= height and width > config.longest:
        capped_width, capped_height = config.longest, int(config.longest / (width / height))
    elif height > width and height > config.longest:
        capped_width, capped_height = int(config.longest * (width / height)), config.longest
    if config.keep_aspect and min(capped_width, capped_height) < config.shortest:
        return _undistorted_size(width, height, config)
    return max(capped_width, config.shortest), max(capped_height, config.shortest)


def _undistorted_size(width: int, height: int, config: ImageConfig) -> tuple[int, int]:
    """As large as `shortest` asks but never beyond `longest`, with one scale for both sides and at least one patch."""
    short, long = min(width, height), max(width, height)
    scale = min(max(1.0, config.shortest / short), config.longest / long)
    return max(config.patch, round(width * scale)), max(config.patch, round(height * scale))


def crop_boxes(width: int, height: int, split: bool) -> list[Box]:
    """The crops of an image of this size: the whole, after its four quadrants if it is split (paper, section 3.4).

    The quadrants are top left, top right, bottom left and bottom right. A side of one pixel cannot be halved: such an
    image stands for its own quadrants, so that there are always five.
    """
    whole = (0, 0, width, height)
    if not split:
        return [whole]
    middle, centre = width // 2, height // 2
    if not middle or not centre:
        return [whole] * 5
    columns, rows = ((0, middle), (middle, width)), ((0, centre), (centre, height))
    return [(left, top, right, bottom) for top, bottom in rows for left, right in columns] + [whole]


def crop_sizes(width: int, height: int, split: bool, config: ImageConfig) -> list[tuple[int, int]]:
    """The size (width, height) to which each of the `crop_boxes` of an image is resized."""
    boxes = crop_boxes(width, height, split)
    return [target_size(right - left, bottom - top, config) for left, top, right, bottom in boxes]


def split_quadrants(image: PIL.Image.Image) -> tuple[PIL.Image.Image, ...]:
    """The four quadrants of an image and then the image itself; see `crop_boxes`."""
    return tuple(_crop(image, box) for box in crop_boxes(*image.size, split=True))


def _crop(image: PIL.Image.Image, box: Box) -> PIL.Image.Image:
    return image if box == (0, 0, *image.size) else image.crop(box)


def patchify(image: PIL.Image.Image, config: ImageConfig, size: tuple[int, int] | None = None) -> Patches:
    """Resize an RGB image and cut it into patches.

    Upstream counts a patch only if all of it is image: up to `patch - 1` pixels at the right and bottom are cut.
    size: width and height to resize to, if not `target_size`.
    """
    width, height = size or target_size(*image.size, config)
    if config.resize == "fast" and config.resample == "bilinear":
        planes = _resized_fast(image, width, height)
    else:
        planes = _resized(image, width, height, config.resample)
    side, rows, columns = config.patch, height // config.patch, width // config.patch
    line = np.dtype((np.void, side))  # one row of a patch moves as one element: twice as fast as byte by byte
    lines = np.empty((rows, columns, 3, side), line)
    for channel, plane in enumerate(planes):
        cut = plane[: rows * side, : columns * side].view(line).reshape(rows, side, columns)
        lines[:, :, channel] = cut.transpose(0, 2, 1)
    pixels_PC = lines.view(np.uint8).reshape(rows * columns, 3 * side * side)
    return Patches(pixels_PC, patch_positions(rows, columns, config.grid, config.positions), rows, columns)


def _resized(image: PIL.Image.Image, width: int, height: int, resample: str = "bilinear") -> list[np.ndarray]:
    """Red, green and blue of the resized image, each height x width; the pixels of upstream's PIL backend."""
    if image.size != (width, height):
        image = image.resize((width, height), PIL.Image.Resampling[resample.upper()])
    return [np.frombuffer(image.tobytes("raw", band), np.uint8).reshape(height, width) for band in "RGB"]


def _resized_fast(image: PIL.Image.Image, width: int, height: int) -> list[np.ndarray]:
    """As `_resized`, by torch's vector instructions: a value in a thousand differs, by a grey level or two."""
    if image.size == (width, height):
        return _resized(image, width, height)
    image_1CHW = torch.utils.dlpack.from_dlpack(np.asarray(image)).permute(2, 0, 1)[None]
    resized = F.interpolate(image_1CHW, size=(height, width), mode="bilinear", antialias=True)
    return list(resized[0].numpy())


@lru_cache(maxsize=4096)
def patch_positions(rows: int, columns: int, grid: int, rule: str) -> np.ndarray:
    """Where each patch of a rows x columns image stands in the grid x grid table of positions (int64)."""
    buckets = parity_buckets if rule == "parity" else exact_buckets
    positions = (buckets(rows, grid)[:, None] * grid + buckets(columns, grid)[None, :]).reshape(-1)
    positions.setflags(write=False)  # shared by all images of this shape
    return positions


def exact_buckets(count: int, grid: int) -> np.ndarray:
    """Bucket of each of `count` patches along one side, by exact integer arithmetic."""
    return np.arange(count, dtype=np.int64) * grid // count


def parity_buckets(count: int, grid: int) -> np.ndarray:
    """Bucket of each of `count` patches along one side, in the float32 steps of transformers' Idefics2VisionEmbeddings.

    Its rounding differs from `exact_buckets` at a few counts: 25, 49, 50 and 55 of 70.
    """
    boundaries = torch.arange(1 / grid, 1.0, 1 / grid, dtype=torch.float32)
    step = 1.0 / torch.tensor(count)
    fractions = torch.clamp(torch.arange(count, dtype=torch.float32) * step, max=1.0 - 1e-6)
    buckets: np.ndarray = torch.bucketize(fractions, boundaries, right=True).numpy()
    return buckets


def image_patches(
    source: ImageSource,
    config: ImageConfig,
    split: bool,
    name: str = "image",
    enlarged: tuple[int, int] | None = None,
) -> tuple[Patches, ...]:
    """All crops of one image as patches: the whole alone, or with `split` four quadrants and then the whole.

    enlarged: width and height to which it is enlarged (or shrunk) before it is sized; it is resized once all the same.
    Raises: ImageError, as `open_image`.
    """
    with _refusing(source, name):
        image = _open(source, config.max_pixels)
        full = image.size if _orientation(image) < 5 else image.size[::-1]
        boxes = crop_boxes(*full, split)
        targets = crop_sizes(*(enlarged or full), split, config)
        if config.resize == "fast" and image is not source:
            _decode_smaller(image, boxes, targets)
        image = _upright_rgb(image)
    crops = [_crop(image, box) for box in crop_boxes(*image.size, split)]
    return tuple(patchify(crop, config, target) for crop, target in zip(crops, targets, strict=True))


def _decode_smaller(image: PIL.Image.Image, boxes: list[Box], targets: list[tuple[int, int]]) -> None:
    """Let a JPEG decode at 1/2, 1/4 or 1/8 of its size, if no crop needs more pixels. Other formats ignore it."""
    shrink = min(
        min((right - left) / width, (bottom - top) / height)
        for (left, top, right, bottom), (width, height) in zip(boxes, targets, strict=True)
    )
    if shrink >= 2:
        image.draft(None, (math.ceil(image.width / shrink), math.ceil(image.height / shrink)))
