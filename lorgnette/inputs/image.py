"""From any image to patches: opened by `image_io`, sized as Idefics2 does, split if asked, cut with their positions.

Everything here is `uint8`: the vision encoder normalises, by a mean and standard deviation that belong to its weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F

from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image_io import decoding, image_size, open_header, refusing
from lorgnette.inputs.image_io import glance as glance
from lorgnette.inputs.image_io import image_bytes as image_bytes
from lorgnette.inputs.image_io import open_image as open_image
from lorgnette.inputs.pixels import upright_rgb, upright_size
from lorgnette.inputs.tiles import WHOLE_IMAGE, Sides, Slot, Tile, tile_grid, tiled_sizes, tiles_of
from lorgnette.model.configs.connector_settings import ConnectorSettings
from lorgnette.sample import ImageSource

_Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


class Crop(NamedTuple):
    """Shape of one crop of an image, or of the whole."""

    rows: int
    """Rows of patches."""
    columns: int
    tile: Tile | None = None
    """The tile that it is; None where images are not cut in tiles."""

    def slot(self, connector: ConnectorSettings) -> Slot:
        """Its place in the text."""
        return Slot(int(connector.visual_tokens(self.rows, self.columns)), self.tile)


@dataclass(frozen=True, eq=False)
class Patches:
    """One image, or one crop of it, as the vision encoder takes it. Patches go row by row from the top left."""

    pixels_PC: np.ndarray
    """Pixels of each patch, flattened as channel, row, column (uint8)."""
    positions_P: np.ndarray
    """Row of each patch in the encoder's grid x grid table of positions (int64)."""
    rows: int
    columns: int
    tile: Tile | None = None
    """The tile that it is; None where images are not cut in tiles."""

    def __len__(self) -> int:
        return self.rows * self.columns

    @property
    def crop(self) -> Crop:
        """Its shape."""
        return Crop(self.rows, self.columns, self.tile)


def target_size(width: int, height: int, config: ImageConfig) -> tuple[int, int]:
    """The size (width, height) to which an image is resized, in pixels.

    Upstream caps the long side at `longest` and then raises the short one to `shortest`, so images thinner than
    shortest : longest are distorted, and small ones become squares. `keep_aspect` changes those and no others. Sides
    are then rounded to `multiple` patches, where a connector joins several.
    """
    wide, high = _free_size(width, height, config)
    if config.multiple == 1 or config.policy == "naflex":
        return wide, high
    unit = config.patch * config.multiple
    most = config.longest // unit
    return min(max(round(wide / unit), 1), most) * unit, min(max(round(high / unit), 1), most) * unit


def _free_size(width: int, height: int, config: ImageConfig) -> tuple[int, int]:
    if config.policy in ("square", "tiles"):
        return config.crop_side, config.crop_side
    if config.policy == "naflex":
        wide, high = naflex_size(width, height, config)
        return int(wide), int(high)
    capped_width, capped_height = width, height
    if width >= height and width > config.longest:
        capped_width, capped_height = config.longest, int(config.longest / (width / height))
    elif height > width and height > config.longest:
        capped_width, capped_height = int(config.longest * (width / height)), config.longest
    if config.keep_aspect and min(capped_width, capped_height) < config.shortest:
        return _undistorted_size(width, height, config)
    return max(capped_width, config.shortest), max(capped_height, config.shortest)


def naflex_size(width: Sides, height: Sides, config: ImageConfig) -> tuple[Sides, Sides]:
    """The size of an image with at most `most_patches`, as SigLIP 2's processor finds it; of arrays, arrays.

    The largest scale by bisection, both sides then raised to whole patches (or to squares of `multiple` x `multiple`).
    """
    side, most = config.patch * config.multiple, config.most_patches // config.multiple**2

    def scaled(length: Sides, scale: Any) -> Any:
        return np.maximum(side, np.ceil(length * scale / side) * side).astype(np.int64)

    least: Any = width * 0.0 + NAFLEX_STEP / 10
    largest: Any = width * 0.0 + 100.0
    for _ in range(NAFLEX_HALVINGS):
        middle = (least + largest) / 2
        fits = scaled(height, middle) / side * (scaled(width, middle) / side) <= most
        least, largest = np.where(fits, middle, least), np.where(fits, largest, middle)
    return scaled(width, least), scaled(height, least)


NAFLEX_STEP = 1e-5
"""Scales of SigLIP 2's bisection that are closer than this count as equal."""
NAFLEX_HALVINGS = 24
"""Halvings of scales from 0 to 100 until they do."""


def uncropped_size(width: int, height: int, target: tuple[int, int], config: ImageConfig) -> tuple[int, int]:
    """The size (width, height) to which an image is resized before its centre of the size `target` is cut out."""
    if config.crop_from is None:
        return target
    long = int(config.crop_from * max(width, height) / min(width, height))
    return (config.crop_from, long) if width <= height else (long, config.crop_from)


def _undistorted_size(width: int, height: int, config: ImageConfig) -> tuple[int, int]:
    """As large as `shortest` asks but never beyond `longest`, with one scale for both sides and at least one patch."""
    short, long = min(width, height), max(width, height)
    scale = min(max(1.0, config.shortest / short), config.longest / long)
    return max(config.patch, round(width * scale)), max(config.patch, round(height * scale))


def crop_boxes(width: int, height: int, split: bool) -> list[_Box]:
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


def _crop(image: PIL.Image.Image, box: _Box) -> PIL.Image.Image:
    return image if box == (0, 0, *image.size) else image.crop(box)


def patchify(image: PIL.Image.Image, config: ImageConfig, size: tuple[int, int] | None = None) -> Patches:
    """Resize an RGB image and cut it into patches.

    Upstream counts a patch only if all of it is image: up to `patch - 1` pixels at the right and bottom are cut.
    size: width and height to resize to, if not `target_size`.
    """
    width, height = size or target_size(*image.size, config)
    if config.crop_from is not None:
        image = _centre(image, (width, height), config)
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


def _centre(image: PIL.Image.Image, target: tuple[int, int], config: ImageConfig) -> PIL.Image.Image:
    """The image resized by its short side, and its centre cut out.

    Of one so thin that the whole would have more than `max_pixels`, the centre alone is resized.
    """
    wide, high = uncropped_size(*image.size, target, config)
    left, top = (wide - target[0]) // 2, (high - target[1]) // 2
    box = (left, top, left + target[0], top + target[1])
    resample = PIL.Image.Resampling[config.resample.upper()]
    if wide * high <= config.max_pixels:
        return image.resize((wide, high), resample).crop(box)
    across, down = image.width / wide, image.height / high
    return image.resize(target, resample, (box[0] * across, box[1] * down, box[2] * across, box[3] * down))


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
    return list(resized[0].contiguous().numpy())  # of one pixel it is a view of its channels


@lru_cache(maxsize=4096)
def patch_positions(rows: int, columns: int, grid: int, rule: str) -> np.ndarray:
    """Position of each patch of a rows x columns image in the grid x grid table of positions (int64)."""
    buckets = parity_buckets if rule == "parity" else exact_buckets  # an encoder that interpolates reads neither
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
    """All crops of one image as patches: the whole alone, or with `split` four quadrants (or its tiles) and the whole.

    enlarged: width and height to which it is enlarged (or shrunk) before it is sized; it is resized once all the same.
    Raises: ImageError, as `open_image`.
    """
    with refusing(source, name), decoding(open_header(source, config.max_pixels)) as image:
        full = upright_size(image)
        if config.policy == "tiles":
            return _tiles(image, enlarged or full, config, split, may_shrink=image is not source)
        boxes = crop_boxes(*full, split)
        targets = crop_sizes(*(enlarged or full), split, config)
        if config.resize == "fast" and image is not source:
            _decode_smaller(image, boxes, targets, config)
        image = upright_rgb(image)
        crops = [_crop(image, box) for box in crop_boxes(*image.size, split)]
        return tuple(patchify(crop, config, target) for crop, target in zip(crops, targets, strict=True))


def _tiles(
    image: PIL.Image.Image, size: tuple[int, int], config: ImageConfig, split: bool, *, may_shrink: bool
) -> tuple[Patches, ...]:
    """All tiles of an image that is open, and the whole. Each step resizes what the step before it made, as upstream.

    size: width and height that count as the image's own. may_shrink: a JPEG may be decoded at a smaller scale.
    """
    first, second = ((int(wide), int(high)) for wide, high in tiled_sizes(*size, config))
    if config.resize == "fast" and may_shrink:
        _decode_smaller(image, [(0, 0, *upright_size(image))], [first], config)
    resample, side = PIL.Image.Resampling[config.resample.upper()], config.shortest
    sized = upright_rgb(image).resize(first, resample)
    tiles: tuple[Tile, ...] = (WHOLE_IMAGE,)
    if split:
        sized = sized.resize(second, resample)
        tiles = tiles_of(second[1] // side, second[0] // side)
    crops = []
    for row, column in tiles:
        box = ((column - 1) * side, (row - 1) * side, column * side, row * side)
        crop = sized if (row, column) == WHOLE_IMAGE else sized.crop(box)
        crops.append(replace(patchify(crop, config, (side, side)), tile=(row, column)))
    return tuple(crops)


def image_crops(source: ImageSource, config: ImageConfig, split: bool, name: str = "image") -> tuple[Crop, ...]:
    """Shape of each crop that `image_patches` cuts, from the image's header alone.

    Raises: ImageError, as `open_image`.
    """
    return crops_of(*image_size(source, name, config.max_pixels), split, config)


def crops_of(width: int, height: int, split: bool, config: ImageConfig) -> tuple[Crop, ...]:
    """Shape of each crop of an image of this size in pixels."""
    if config.policy == "tiles":
        rows, columns = tile_grid(width, height, split, config)
        return _tile_crops(int(rows), int(columns), config.shortest // config.patch)
    sizes = crop_sizes(width, height, split, config)
    return tuple(Crop(high // config.patch, wide // config.patch) for wide, high in sizes)


@lru_cache(maxsize=1024)  # shared by all images of as many tiles
def _tile_crops(rows: int, columns: int, along: int) -> tuple[Crop, ...]:
    return tuple(Crop(along, along, tile) for tile in tiles_of(rows, columns))


def least_slots(config: ImageConfig, connector: ConnectorSettings, split: bool) -> tuple[Slot, ...]:
    """Slots of the image that has the fewest in the text."""
    if config.policy == "tiles":
        along = config.shortest // config.patch
        columns = config.longest // config.shortest if split else 1
        return tuple(crop.slot(connector) for crop in _tile_crops(1, columns, along))
    return (Crop(*connector.smallest_grid).slot(connector),) * (5 if split else 1)


def _decode_smaller(
    image: PIL.Image.Image, boxes: list[_Box], targets: list[tuple[int, int]], config: ImageConfig
) -> None:
    """Let a JPEG decode at 1/2, 1/4 or 1/8 of its size, if no crop needs more pixels. Other formats ignore it."""
    sizes = [(right - left, bottom - top) for left, top, right, bottom in boxes]
    needed = [uncropped_size(*size, target, config) for size, target in zip(sizes, targets, strict=True)]
    shrink = min(min(own[0] / new[0], own[1] / new[1]) for own, new in zip(sizes, needed, strict=True))
    if shrink >= 2:
        image.draft(None, (math.ceil(image.width / shrink), math.ceil(image.height / shrink)))
