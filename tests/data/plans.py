"""Indexes made by rule, and plans on them, for tests and benchmarks of the order of training."""

from __future__ import annotations

import numpy as np

from lorgnette.data.config import PackConfig
from lorgnette.data.index import Index
from lorgnette.data.plan.mixture import PlannedSource
from lorgnette.data.plan.pack_plan import PackedPlan
from lorgnette.inputs.config import ImageConfig
from lorgnette.model.configs.connector_config import PerceiverConfig


def index_of(
    units: list[list[int]],
    images: list[list[tuple[int, int, int]]] | None = None,
    head: int = 2,
    group: int = 10,
    supervised: list[list[int]] | None = None,
) -> Index:
    """An index of records given by hand: tokens of each unit, and (unit, width, height) of each image."""
    images = images if images is not None else [[] for _ in units]
    flat = [one for record in images for one in record]
    tokens = [one for record in units for one in record]
    marks = tokens if supervised is None else [one for record in supervised for one in record]
    number = np.arange(len(units), dtype=np.int32)
    return Index(
        ("made.parquet",),
        np.zeros(len(units), np.int32),
        number // group,
        number % group,
        np.full(len(units), head, np.int32),
        np.array([len(record) for record in units], np.int32),
        np.array([len(record) for record in images], np.int32),
        np.array(tokens, np.int32),
        np.array(marks, np.int32),
        *(np.array([one[place] for one in flat], np.int32) for place in range(3)),
        np.arange(len(flat), dtype=np.uint64),
        np.arange(len(flat), dtype=np.uint64),
    )


def made_index(records: int, seed: int = 0, most_units: int = 6, most_tokens: int = 120, group: int = 10) -> Index:
    """An index of random small records; about half of the images belong to the head."""
    draw = np.random.default_rng(seed)
    units = [draw.integers(1, most_tokens, draw.integers(1, most_units + 1)).tolist() for _ in range(records)]
    images = [
        sorted(
            (int(draw.integers(-1, len(one))), int(draw.integers(20, 1500)), int(draw.integers(20, 1500)))
            for _ in range(draw.integers(0, 3))
        )
        for one in units
    ]
    return index_of(units, images, group=group)


def plan_of(*indexes: Index, weights: tuple[float, ...] = (), most_units: int | None = None, **settings) -> PackedPlan:
    """A plan of small packs on indexes; settings as of `PackedPlan` and `PackConfig`."""
    pack = {"tokens": 512, "patches": 20_000, "samples": None, "packs_per_step": 2}
    pack |= {name: settings.pop(name) for name in list(settings) if name in pack}
    given = weights or (1.0,) * len(indexes)
    sources = tuple(
        PlannedSource(f"source {number}", index, weight, most_units)
        for number, (index, weight) in enumerate(zip(indexes, given, strict=True))
    )
    values = {"seed": 3, "images": ImageConfig(), "connector": PerceiverConfig(latents=8)} | settings
    return PackedPlan(sources, PackConfig(**pack), **values)


def unit_starts(index: Index) -> np.ndarray:
    """Offsets of each record's units in the arrays over units, and the end."""
    return np.concatenate([[0], np.cumsum(index.units_E, dtype=np.int64)])
