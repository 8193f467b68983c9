"""From any image to patches: opened safely, sized as Idefics2 does, split if asked, and cut with their positions.

Everything here is `uint8`: the vision encoder normalises, by a mean and standard deviation that belong to its weights.
"""

from __future__ import annotations

import io
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch

from lorgnette.errors import ImageError
from lorgnette.inputs.config import ImageConfig
from lorgnette.sample import ImageSource

MAX_DOWNLOAD = 64 * 2**20
"""Bytes of a linked image beyond which it is refused."""
DOWNLOAD_SECONDS = 30.0
"""The whole of a download, not one read of it, must end within this time."""
EXTERNAL_FORMATS = frozenset({"EPS"})
"""Formats that Pillow opens by running another program on the file; never done for an image of unknown origin."""


@dataclass(frozen=True)
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
    """Decode an image to upright RGB, by the conversion rules of upstream (EXIF orientation, then Pillow's `convert`).

    source: a PIL image, the bytes of an image file, or its path or http(s) URL. Of an animation, the first frame.
    name: how an error refers to the image; a path or URL is named as well.
    Raises: ImageError if it is missing, truncated, not an image, or of more than `max_pixels` pixels.
    """
    if isinstance(source, str | Path):
        name = f"{name} ({source})"
    try:
        image = source if isinstance(source, PIL.Image.Image) else _open_file(source, name)
        if image.width * image.height > max_pixels:
            raise ImageError(
                f"{name}: {image.width} x {image.height} exceeds the limit of {max_pixels} pixels; scale it"
            )
        if image.getexif():  # most images have none, and exif_transpose would copy them
            image = PIL.ImageOps.exif_transpose(image)
        return image.convert("RGB")
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise anything at all on a damaged file
        raise ImageError(f"{name}: cannot be read as an image ({_phrase(error)})") from None


def _open_file(source: bytes | str | Path, name: str) -> PIL.Image.Image:
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        source = _download(source, name)
    file = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
    image = PIL.Image.open(file)
    if image.format in EXTERNAL_FORMATS:
        raise ImageError(f"{name}: {image.format} files are not accepted; convert it to PNG")
    return image


def _download(url: str, name: str) -> bytes:
    """The bytes behind a URL, within `DOWNLOAD_SECONDS` and `MAX_DOWNLOAD`."""
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    content = bytearray()
    request = urllib.request.Request(url, headers={"User-Agent": "lorgnette"})
    try:
        with urllib.request.urlopen(request, timeout=DOWNLOAD_SECONDS) as response:
            while chunk := response.read1(65536):
                content += chunk
                if len(content) > MAX_DOWNLOAD:
                    raise ImageError(f"{name}: the download exceeds {MAX_DOWNLOAD >> 20} MiB")
                if time.monotonic() > deadline:
                    raise ImageError(f"{name}: the download takes longer than {DOWNLOAD_SECONDS:.0f} seconds")
    except (OSError, ValueError) as error:  # URLError and timeouts are OSErrors
        raise ImageError(f"{name}: cannot be downloaded ({_phrase(error)})") from None
    return bytes(content)


def _phrase(error: Exception) -> str:
    """An error as one line without the object addresses that Pillow prints."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return " ".join(str(error).split()) or type(error).__name__


def target_size(width: int, height: int, config: ImageConfig) -> tuple[int, int]:
    """The size (width, height) to which an image is resized, in pixels; equal to upstream's unless `keep_aspect`.

    Upstream caps the long side at `longest` and then raises the short one to `shortest`, so images thinner than
    shortest : longest are distorted, and small ones become squares.
    """
    if config.policy == "square":
        return config.longest, config.longest
    if config.keep_aspect:
        return _undistorted_size(width, height, config)
    aspect_ratio = width / height
    if width >= height and width > config.longest:
        width, height = config.longest, int(config.longest / aspect_ratio)
    elif height > width and height > config.longest:
        width, height = int(config.longest * aspect_ratio), config.longest
    return max(width, config.shortest), max(height, config.shortest)


def _undistorted_size(width: int, height: int, config: ImageConfig) -> tuple[int, int]:
    """As large as `shortest` asks but never beyond `longest`, with one scale for both sides and at least one patch."""
    short, long = min(width, height), max(width, height)
    scale = min(max(1.0, config.shortest / short), config.longest / long)
    return max(config.patch, round(width * scale)), max(config.patch, round(height * scale))


def split_quadrants(image: PIL.Image.Image) -> tuple[PIL.Image.Image, ...]:
    """Top left, top right, bottom left, bottom right, then the whole image (paper, section 3.4).

    A side of one pixel cannot be halved: such an image stands for its own quadrants, so that there are always five.
    """
    width, height = image.size
    middle, centre = width // 2, height // 2
    if not middle or not centre:
        return (image,) * 5
    columns, rows = ((0, middle), (middle, width)), ((0, centre), (centre, height))
    boxes = [(left, top, right, bottom) for top, bottom in rows for left, right in columns]
    return *(image.crop(box) for box in boxes), image


def patchify(image: PIL.Image.Image, config: ImageConfig) -> Patches:
    """Resize an RGB image and cut it into patches.

    Upstream counts a patch only if all of it is image: up to `patch - 1` pixels at the right and bottom are cut.
    """
    size = target_size(image.width, image.height, config)
    if size != image.size:
        image = image.resize(size, PIL.Image.Resampling.BILINEAR)
    side, (columns, rows) = config.patch, (size[0] // config.patch, size[1] // config.patch)
    pixels_HWC = np.asarray(image)[: rows * side, : columns * side]
    grid = pixels_HWC.reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3)
    positions_P = patch_positions(rows, columns, config.grid, config.positions)
    return Patches(grid.reshape(rows * columns, -1), positions_P, rows, columns)


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

    Its rounding differs from `exact_buckets` at some counts (25, 50 and 55 of 70); released weights expect it.
    """
    boundaries = torch.arange(1 / grid, 1.0, 1 / grid, dtype=torch.float32)
    step = 1.0 / torch.tensor(count)
    fractions = torch.clamp(torch.arange(count, dtype=torch.float32) * step, max=1.0 - 1e-6)
    buckets: np.ndarray = torch.bucketize(fractions, boundaries, right=True).numpy()
    return buckets


def image_patches(source: ImageSource, config: ImageConfig, split: bool, name: str = "image") -> tuple[Patches, ...]:
    """All crops of one image as patches: the whole alone, or with `split` four quadrants and then the whole."""
    image = open_image(source, name, config.max_pixels)
    crops = split_quadrants(image) if split else (image,)
    return tuple(patchify(crop, config) for crop in crops)
