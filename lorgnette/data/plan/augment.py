"""Random augmentation in each epoch, as a pure function of (seed, source, record, epoch).

Draws are hashes of their place: the plan knows them without reading, whole arrays at once, and resuming repeats them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorgnette.data.config import AugmentConfig
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import naflex_size
from lorgnette.inputs.tiles import tile_grid
from lorgnette.model.configs.connector_settings import ConnectorSettings

SPLIT, ENLARGE, FACTOR, TURNS, GROUPS, BUFFER, PACKS, REPLACE, WORDS = range(9)
"""Purposes of random draws: draws of different purposes are independent."""

LEAST_FACTOR = 1.5
"""Enlarging by less than this is not worth it (the published code draws from 1.5 up)."""

Number = int | np.ndarray


def hashed(*parts: Number) -> np.ndarray:
    """64 bits that look random, from whole numbers or arrays of them (broadcast): SplitMix64, once for each part."""
    state = np.zeros(1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            whole = np.asarray(part).astype(np.uint64) if not isinstance(part, int) else np.uint64(part % 2**64)
            state = state + whole + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def uniform(*parts: Number) -> np.ndarray:
    """As `hashed`, as numbers from 0 to 1 (1 not included)."""
    return (hashed(*parts) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class Augmenter:
    """The draws of one stage.

    config: what is drawn and how often; images: how images become patches, which caps how far they are enlarged;
    seed: of the stage.
    """

    config: AugmentConfig
    images: ImageConfig
    seed: int

    @property
    def split_share(self) -> float:
        return 1.0 if self.images.split else self.config.split

    def split(self, source: Number, record: Number, epoch: Number) -> np.ndarray:
        """Return whether each record is shown split (section 3.4: half of them is enough)."""
        return uniform(self.seed, SPLIT, source, record, epoch) < self.split_share

    def enlarged(
        self, place: tuple[Number, Number, Number, Number], width_I: np.ndarray, height_I: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The size of each image once it was enlarged by chance; its own where it was not.

        place: source, record, epoch, and the image's number in the record. No side grows beyond the longest allowed.
        """
        if not self.config.upscale:
            return width_I, height_I
        chosen = uniform(self.seed, ENLARGE, *place) < self.config.upscale
        drawn = uniform(self.seed, FACTOR, *place)
        factor = LEAST_FACTOR + (self.config.most_upscale - LEAST_FACTOR) * (1 - np.sqrt(1 - drawn))
        factor = np.minimum(factor, self.images.longest / np.maximum(width_I, height_I))
        factor = np.where(chosen & (factor > 1), factor, 1.0)
        return np.rint(width_I * factor).astype(np.int64), np.rint(height_I * factor).astype(np.int64)

    def order(self, place: tuple[int, int, int], start: int, end: int) -> tuple[int, ...]:
        """An order of units `start` to `end` (not included), 0 being `start`. place: source, record, epoch."""
        keys = hashed(self.seed, TURNS, *place, np.arange(start, end))
        return tuple(np.argsort(keys, kind="stable").tolist())

    def seed_of_words(self, place: tuple[int, int, int], start: int) -> int:
        """Seed of the prompt templates of the piece that starts with unit `start`."""
        return int(hashed(self.seed, WORDS, *place, start)[0])

    def replacement(self, place: tuple[int, int, int], attempt: int, records: int) -> int:
        """The record that is tried in place of one that cannot be read."""
        return int(hashed(self.seed, REPLACE, *place, attempt)[0] % np.uint64(records))


def image_costs(
    width_I: np.ndarray, height_I: np.ndarray, split_I: np.ndarray, config: ImageConfig, connector: ConnectorSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and patches of each image, all its crops together, from its size in pixels (int64).

    `crop_boxes` of whole arrays; tokens as `inputs.render` writes them, those around the crops included.
    """
    if config.policy == "tiles":
        return _tile_costs(width_I, height_I, split_I, config, connector)
    tokens, patches = _crop_costs(width_I, height_I, config, connector)
    chosen = np.flatnonzero(split_I)
    if len(chosen):
        width, height = width_I[chosen], height_I[chosen]
        thin = (width < 2) | (height < 2)
        for wide in (width // 2, width - width // 2):
            for high in (height // 2, height - height // 2):
                crop = np.where(thin, width, wide), np.where(thin, height, high)
                more_tokens, more_patches = _crop_costs(*crop, config, connector)
                tokens[chosen] += more_tokens
                patches[chosen] += more_patches
    return tokens + 1, patches


def _tile_costs(
    width_I: np.ndarray, height_I: np.ndarray, split_I: np.ndarray, config: ImageConfig, connector: ConnectorSettings
) -> tuple[np.ndarray, np.ndarray]:
    """As `image_costs`, of images cut in tiles, each with a token before it and its tag."""
    rows, columns = tile_grid(width_I.astype(np.int64), height_I.astype(np.int64), split_I, config)
    along, (tag, whole, newline, two) = config.shortest // config.patch, config.tag_tokens
    slots = int(connector.visual_tokens(along, along))
    tiles = np.where(rows * columns > 1, rows * columns, 0)
    before = np.where(tiles > 0, (rows - 1) * newline + two, 0)
    return tiles * (slots + 1 + tag) + before + slots + 2 + whole, (tiles + 1) * along**2


def _crop_costs(
    width: np.ndarray, height: np.ndarray, config: ImageConfig, connector: ConnectorSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each crop with the one behind it, and its patches."""
    wide, high = target_sizes(width, height, config)
    rows, columns = high // config.patch, wide // config.patch
    return connector.visual_tokens(rows, columns) + 1, rows * columns


def target_sizes(width: np.ndarray, height: np.ndarray, config: ImageConfig) -> tuple[np.ndarray, np.ndarray]:
    """`lorgnette.inputs.image.target_size` for whole arrays (int64); equal to it, bit for bit."""
    sides = _free_sizes(width.astype(np.int64), height.astype(np.int64), config)
    if config.multiple == 1 or config.policy == "naflex":
        return sides
    unit = config.patch * config.multiple
    wide, high = (np.clip(np.rint(side / unit).astype(np.int64), 1, config.longest // unit) * unit for side in sides)
    return wide, high


def _free_sizes(width: np.ndarray, height: np.ndarray, config: ImageConfig) -> tuple[np.ndarray, np.ndarray]:
    if config.policy in ("square", "tiles"):
        return np.full_like(width, config.crop_side), np.full_like(height, config.crop_side)
    if config.policy == "naflex":
        return naflex_size(width, height, config)
    ratio = width / height
    is_wide, is_tall = (width >= height) & (width > config.longest), (height > width) & (height > config.longest)
    wide = np.where(is_wide, config.longest, np.where(is_tall, (config.longest * ratio).astype(np.int64), width))
    high = np.where(is_tall, config.longest, np.where(is_wide, (config.longest / ratio).astype(np.int64), height))
    raised = np.maximum(wide, config.shortest), np.maximum(high, config.shortest)
    if not config.keep_aspect:
        return raised
    thin = np.minimum(wide, high) < config.shortest
    scale = np.maximum(1.0, config.shortest / np.minimum(width, height))
    scale = np.minimum(scale, config.longest / np.maximum(width, height))
    kept = (np.maximum(config.patch, np.rint(side * scale).astype(np.int64)) for side in (width, height))
    both: Sequence[np.ndarray] = [np.where(thin, own, other) for own, other in zip(kept, raised, strict=True)]
    return both[0], both[1]
