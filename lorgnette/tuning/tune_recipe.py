"""The recipe of a tuning: one stage whose sizes and rates are chosen from the model and the lengths of the data.

The choices and their reasons are in docs/decisions/0028-tune.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, sqrt
from typing import Any

import numpy as np
import yaml

from lorgnette.data.config import PreparedConfig
from lorgnette.data.index import Index
from lorgnette.data.plan.augment import image_costs
from lorgnette.inputs.processor import Processor
from lorgnette.model.config import VLMConfig
from lorgnette.settings import apply_override

STAGE = "tune"
"""Name of the stage: its settings are `stages.tune.…` in an override."""
SAMPLES_PER_STEP = 16
LEAST_SAMPLES = 4
EPOCHS, LEAST_STEPS, MOST_STEPS = 3, 100, 10_000
"""Passes over the data, within these bounds of steps: a small file is seen more often, and the best step is kept."""
LEAST_TOKENS, MOST_TOKENS = 1024, 4096
"""Bounds of a pack; a conversation that is longer is cut between its exchanges."""
VALIDATIONS = 10
MOST_VALIDATED = 128
"""Held-out rows of each file whose loss is measured at each validation."""
RECIPE_HEADER = "# written by lorgnette tune: `lorgnette train` with this file trains the same model\n"


def tune_recipe(
    name: str, model: str, train: Sequence[PreparedConfig], held_out: Sequence[PreparedConfig], sizes: dict[str, Any]
) -> dict[str, Any]:
    """The settings of the run that differ from their defaults, as a recipe has them.

    sizes: what `stage_sizes` returns.
    """
    steps = sizes["steps"]
    return {
        "name": name,
        "init": {"model": model},
        "stages": [
            {
                "name": STAGE,
                "sources": [_plain(one) for one in train],
                "weights": "epochs",
                **sizes,
                "warmup": max(1, steps // 20),
                "weight_decay": 0.01,
                "vision": {"mode": "frozen"},
                "connector": {"mode": "full"},
                "language": {"mode": "lora"},
                "lora": {"rank": 16, "alpha": 32, "dropout": 0.0},
            }
        ],
        "validation": {
            "every": ceil(steps / VALIDATIONS),
            "samples": MOST_VALIDATED,
            "sources": [_plain(one) for one in held_out],
            "keep_best": True,
        },
        "checkpoints": {"every": max(1, min(200, steps // 5))},
    }


def stage_sizes(
    indexes: Sequence[Index],
    rows: int,
    model: VLMConfig,
    processor: Processor,
    steps: int | None,
    ranks: int = 1,
) -> dict[str, Any]:
    """Steps, packs and learning rate for `rows` rows of such lengths.

    steps: asked for by the user; None for about `EPOCHS` passes over the data. ranks: among which the packs of a step
    are shared evenly.
    """
    lengths = np.concatenate([tokens_of(index, processor) for index in indexes])
    mean, longest = float(lengths.mean()), int(lengths.max())
    wanted = max(LEAST_TOKENS, 256 * ceil(longest / 256))
    tokens = min(MOST_TOKENS, model.language.max_positions, wanted)
    samples = max(LEAST_SAMPLES, min(SAMPLES_PER_STEP, rows // 12))
    packs = ranks * max(1, round(samples * mean / tokens / ranks))
    pack: dict[str, Any] = {"tokens": tokens, "packs_per_step": packs}
    if packs == ranks:
        pack["samples"] = ceil(samples / ranks)
    passes = ceil(EPOCHS * rows / samples)
    rate = 2e-4 * sqrt(4096 / model.language.width)
    return {
        "steps": steps or max(LEAST_STEPS, min(MOST_STEPS, passes)),
        "pack": pack,
        "lr": float(f"{min(2e-3, rate):.1g}"),
    }


def tokens_of(index: Index, processor: Processor) -> np.ndarray:
    """Tokens of each record, with the visual tokens of its images (int64, over E)."""
    split_I = np.full(len(index.width_I), processor.images.split)
    sizes = index.width_I.astype(np.int64), index.height_I.astype(np.int64)
    visual_I, _ = image_costs(*sizes, split_I, processor.images, processor.connector)
    records_U = np.repeat(np.arange(len(index)), index.units_E)
    text_E = index.prefix_tokens_E + np.bincount(records_U, index.tokens_U, len(index)).astype(np.int64)
    return text_E + np.bincount(index.record_of_image(), visual_I, len(index)).astype(np.int64)


def recipe_text(values: dict[str, Any], overrides: Iterable[str]) -> str:
    """The recipe as YAML, with dotted overrides applied. Raises: SettingsError naming an override."""
    for override in overrides:
        apply_override(values, override)
    return RECIPE_HEADER + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def is_recipe_file(content: bytes) -> bool:
    """Return whether a file is a recipe that was written here."""
    return content.startswith(RECIPE_HEADER.encode())


def _plain(config: PreparedConfig) -> dict[str, Any]:
    """The settings of a source that differ from their defaults."""
    values = config.model_dump(mode="json", exclude_defaults=True)
    return {"kind": config.kind, "path": config.path, **values}
