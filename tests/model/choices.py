"""Rows of the batteries: every connector and every fusion at tiny sizes. A new kind is tested by being a row here."""

from __future__ import annotations

from typing import Any

from lorgnette.model.configs.connector_config import (
    AverageConfig,
    FlatLinearConfig,
    IdentityConfig,
    LinearConfig,
    MappingNetworkConfig,
    MLPConfig,
    PerceiverConfig,
    PixelShuffleConfig,
)
from lorgnette.model.configs.connector_settings import ConnectorSettings

PERCEIVER = {"latents": 3, "depth": 2, "heads": 4, "head_width": 8, "kv_heads": 2}
CONNECTORS: dict[str, ConnectorSettings] = {
    "perceiver": PerceiverConfig(**PERCEIVER, projection_width=40),
    "perceiver without MLP": PerceiverConfig(**PERCEIVER, projection_width=None),
    "perceiver of m4": PerceiverConfig(**PERCEIVER, projection_width=40, qk_norm=True),
    "perceiver of Idefics1": PerceiverConfig(
        **PERCEIVER | {"kv_heads": 4}, width_of="vision", norm="layer", norm_eps=1e-5, qk_norm=True, mlp="relu"
    ),
    "perceiver of OpenFlamingo": PerceiverConfig(
        **PERCEIVER | {"kv_heads": 4}, width_of="vision", norm="layer", norm_eps=1e-5, mlp="gelu"
    ),
    "none": IdentityConfig(),
    "linear": LinearConfig(),
    "mlp": MLPConfig(),
    "mlp of another width": MLPConfig(hidden=20),
    "pixel shuffle": PixelShuffleConfig(),
    "average": AverageConfig(side=3),
    "flat linear": FlatLinearConfig(side=4, tokens=3),
    "mapping network": MappingNetworkConfig(constants=3, depth=2, width=20, heads=2, mlp_width=28),
}

FUSIONS: dict[str, Any] = {
    "autoregressive": "autoregressive",
    "last": {"kind": "cross_attention", "every": 2, "gate_init": 1.5},
    "group": {
        "kind": "cross_attention", "every": 1, "gate_init": 1.5, "sees": "group", "gate": "vector", "text_mlp": False
    },
    "all": {"kind": "cross_attention", "every": 1, "gate_init": 1.5, "sees": "all", "qk_norm": False},
    "OpenFlamingo": {
        "kind": "cross_attention", "every": 2, "first": 1, "gate_init": 1.5, "heads": 2, "head_width": 12,
        "qk_norm": False, "norm": "layer", "norm_eps": 1e-4, "mlp": "gelu", "mlp_width": 44
    },
}  # fmt: skip
"""Fusions, with gates that are open."""


def _pairs() -> dict[str, tuple[ConnectorSettings, Any]]:
    """Every connector with one of the fusions in turn, in the sequence where it can stand there. `cover.py` has all."""
    found = {}
    for number, (name, connector) in enumerate(CONNECTORS.items()):
        in_sequence = ["autoregressive"] if connector.token_width(24, 32) == 32 else ["last"]
        others = [one for one in FUSIONS if one != "autoregressive"]
        fusion = others[number // 2 % len(others)] if number % 2 else in_sequence[0]
        found[f"{name}, {fusion}"] = (connector, FUSIONS[fusion])
    return found


TILES = ("images.policy=tiles", "images.split=true", "images.resample=lanczos")
"""Settings of images that are cut in tiles, over those of a tiny run, whose shorter side becomes a tile's."""
PAIRS: dict[str, tuple[Any, ...]] = {
    **_pairs(),
    "pixel shuffle, tiles": (CONNECTORS["pixel shuffle"], "autoregressive", *TILES),
    "perceiver, last, tiles": (CONNECTORS["perceiver"], FUSIONS["last"], *TILES),
}
"""Connectors with fusions, and settings of images besides, by name."""
