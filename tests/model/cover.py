"""A covering set of whole models: every two choices that may stand together do so in at least one of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from tests.model.choices import CONNECTORS, FUSIONS

Choice = tuple[str, str]
"""A factor and one of its values, by name."""
Row = tuple[str, ...]
"""A value of each factor, in their order."""

_GEMMA = {"activation": "gelu_tanh", "norm_offset": True, "scaled_embedding": True, "tied_embeddings": True}
_LOCAL = {"post_norms": True, "sliding_window": 20, "global_every": 2}
_CLIP = {"class_token": "dropped", "norm_before": True, "norm_after": False, "patch_bias": False, "norm_eps": 1e-5}
DECODERS: dict[str, dict[str, Any]] = {
    "llama": {"family": "llama"},
    "mistral": {"family": "mistral", "sliding_window": 20},
    "qwen2": {"family": "qwen2", "attention_bias": True, "tied_embeddings": True},
    "qwen3": {"family": "qwen3", "qk_norm": True},
    "smollm3": {"family": "smollm3", "no_rope_every": 2},
    "phi3": {"family": "phi3", "sliding_window": 30},
    "gemma": _GEMMA | {"family": "gemma"},
    "gemma2": _GEMMA | _LOCAL | {"family": "gemma2", "score_cap": 2.0, "logit_cap": 5.0},
    "gemma3": _GEMMA | _LOCAL | {"family": "gemma3_text", "qk_norm": True, "local_rope_theta": 100.0},
}
ENCODERS: dict[str, dict[str, Any]] = {
    "SigLIP": {},
    "SigLIP 2": {"position_rule": "bilinear_antialias"},
    "CLIP": _CLIP | {"activation": "quick_gelu"},
    "CLIP with its class token": _CLIP | {"class_token": "kept", "skipped_layers": 1, "layers": 2},
    "EVA": {"block_norm": "after", "key_bias": False, "class_token": "dropped", "activation": "gelu"},
    "DINOv2": {"layer_scale": True, "position_rule": "bicubic", "class_token": "dropped", "activation": "gelu"},
}
POLICIES: dict[str, dict[str, Any]] = {
    "native": {"shortest": 16, "longest": 32},
    "aspect kept": {"shortest": 16, "longest": 32, "keep_aspect": True, "split": True},
    "square": {"policy": "square", "shortest": 32, "longest": 32},
    "cut from the centre": {"policy": "square", "shortest": 32, "longest": 32, "crop_from": 40, "resample": "bicubic"},
    "tiles": {"policy": "tiles", "shortest": 32, "longest": 64, "split": True, "resample": "lanczos"},
    "naflex": {"policy": "naflex", "shortest": 32, "longest": 32, "positions": "interpolated"},
}
FACTORS: dict[str, Sequence[str]] = {
    "connector": [*CONNECTORS],
    "encoder": [*ENCODERS],
    "fusion": [*FUSIONS],
    "decoder": [*DECODERS],
    "policy": [*POLICIES],
}
REFUSED: dict[frozenset[Choice], str] = (
    {
        frozenset({("connector", connector), (factor, value)}): message
        for connectors, factor, values, message in (
            (
                [name for name, one in CONNECTORS.items() if one.token_width(24, 32) == 24],
                "fusion",
                ["autoregressive"],
                r"visual tokens are 24 wide, .* width 32; set",
            ),
            (
                ["none"],
                "encoder",
                ["CLIP with its class token"],
                r"class_tokens is 0, but an image has 1 states beside",
            ),
            (
                ["flat linear"],
                "policy",
                ["native", "aspect kept", "naflex"],
                r"every image must have 4 x 4 patches; set",
            ),
            (
                [name for name, one in CONNECTORS.items() if not one.takes_class_token],
                "encoder",
                ["CLIP with its class token"],
                r"makes visual tokens of patches, and a class token is none's; set vision.class_token to dropped",
            ),
        )
        for connector, value in itertools.product(connectors, values)
    }
    | {
        frozenset({("encoder", encoder), ("policy", "naflex")}): r"images.positions is interpolated, .* needs parity"
        for encoder, one in ENCODERS.items()
        if "position_rule" not in one
    }
    | {frozenset({("fusion", "group"), ("policy", "tiles")}): r"sees group joins images that stand side by side"}
)
"""Choices that are refused together, and what is said."""


def pairs_of(row: Row) -> Iterable[frozenset[Choice]]:
    """Every two choices of a row."""
    return map(frozenset, itertools.combinations(zip(FACTORS, row, strict=True), 2))


def is_allowed(row: Row) -> bool:
    """Return whether no two choices of a row are refused together."""
    return not any(pair in REFUSED for pair in pairs_of(row))


def every_pair() -> set[frozenset[Choice]]:
    """Every two values of two factors."""
    named = [[(factor, value) for value in values] for factor, values in FACTORS.items()]
    lists = itertools.combinations(named, 2)
    return {frozenset(pair) for one, other in lists for pair in itertools.product(one, other)}


@cache
def cover() -> dict[str, Row]:
    """Rows in which every pair that is not refused occurs, by name.

    Greedy: each row begins with a pair that has not occurred, the first in order, and takes for every other factor the
    value that brings most new pairs among those that leave it allowed.
    """
    left = dict.fromkeys(sorted(every_pair() - REFUSED.keys(), key=sorted))
    rows: dict[str, Row] = {}
    while left:
        chosen = dict(next(iter(left)))
        row = max(_completions(chosen), key=lambda one: (sum(pair in left for pair in pairs_of(one)), one))
        for pair in pairs_of(row):
            left.pop(pair, None)
        rows[", ".join(row)] = row
    return rows


def completed(pair: frozenset[Choice]) -> Row:
    """A row with two choices that are refused together, and otherwise none."""
    others = [row for row in itertools.product(*_values(dict(pair))) if set(pairs_of(row)) & REFUSED.keys() == {pair}]
    return others[0]


def _values(chosen: dict[str, str]) -> list[Sequence[str]]:
    return [[chosen[factor]] if factor in chosen else values for factor, values in FACTORS.items()]


def _completions(chosen: dict[str, str]) -> list[Row]:
    return [row for row in itertools.product(*_values(chosen)) if is_allowed(row)]
