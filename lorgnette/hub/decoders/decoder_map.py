"""Settings of decoders in both directions: the `config.json` of a family in transformers <-> `LanguageConfig`."""

from __future__ import annotations

from typing import Any

from lorgnette.errors import CheckpointError
from lorgnette.hub.decoders.setting_rows import (
    SILU,
    Fixed,
    Json,
    MappedSetting,
    need,
    read_rows,
    refuse_others,
    whole_number,
    write_rows,
)
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.untrusted import quoted

DECODER_SETTINGS = (
    MappedSetting("vocabulary", "vocab_size"),
    MappedSetting("width", "hidden_size", 4096),
    MappedSetting("layers", "num_hidden_layers", 32),
    MappedSetting("heads", "num_attention_heads", 32),
    MappedSetting("mlp_width", "intermediate_size"),
    MappedSetting("max_positions", "max_position_embeddings"),
    MappedSetting("norm_eps", "rms_norm_eps", 1e-6),
)
FAMILIES: dict[str, Json] = {
    "llama": {"vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048},
    "mistral": {"vocab_size": 32000, "intermediate_size": 14336, "max_position_embeddings": 131072}
    | {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768}
    | {"num_key_value_heads": 32, "sliding_window": 4096},
    "qwen3": {"vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768}
    | {"num_key_value_heads": 32, "sliding_window": 4096, "head_dim": 128},
    "smollm3": {"vocab_size": 128256, "intermediate_size": 11008, "max_position_embeddings": 32768}
    | {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 4}
    | {"rope_theta": 2000000.0, "tie_word_embeddings": True},
    "phi3": {"vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 4096}
    | {"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096},
    "gemma": {"vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28}
    | {"num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "max_position_embeddings": 8192}
    | {"tie_word_embeddings": True},
}
"""Defaults of each family's config class in transformers, for keys that a config.json leaves out."""
LLAMA = {"attention_bias": False, "qk_norm": False, "activation": "silu", "norm_offset": False} | {
    "scaled_embedding": False
}
"""What Llama computes where families differ."""
CHOICES: dict[str, Json] = {
    "qwen2": {"attention_bias": True},
    "qwen3": {"qk_norm": True},
    "gemma": {"activation": "gelu_tanh", "norm_offset": True, "scaled_embedding": True},
}
"""What a family computes otherwise."""
ACTIVATIONS_THERE = {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh"}
GEMMA_FIXED = (
    Fixed("hidden_act", "gelu_pytorch_tanh", "gelu_pytorch_tanh"),
    Fixed("hidden_activation", "gelu_pytorch_tanh", "gelu_pytorch_tanh"),
    Fixed("use_bidirectional_attention", False, False),
)
DECODER_FIXED = (Fixed("attention_bias", False, False), Fixed("mlp_bias", False, False))


def read_decoder(values: Json, where: str, tied: bool | None = None) -> LanguageConfig:
    """The config of a decoder. `tied` overrules its own `tie_word_embeddings`, as the whole of an Idefics2 does.

    Raises: CheckpointError if the family or one of its options is not ours.
    """
    family = values.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise CheckpointError(f"{where}: model_type is {family!r:.60}; known decoders are {', '.join(FAMILIES)}")
    values = FAMILIES[family] | values
    if family == "gemma" and values.get("hidden_act") == "gelu":  # older files say so and mean the other
        values["hidden_act"] = "gelu_pytorch_tanh"
    refuse_others((*DECODER_FIXED, *(GEMMA_FIXED if family == "gemma" else (SILU,))), values, where)
    ours = read_rows(DECODER_SETTINGS, values, where)
    for name, key, silent in (
        ("kv_heads", "num_key_value_heads", ours["heads"]),
        ("head_width", "head_dim", ours["width"] // ours["heads"]),
    ):
        ours[name] = silent if values.get(key) is None else whole_number(values, key, where)
    ours |= {"family": family} | LLAMA | CHOICES.get(family, {})
    ours["rope_theta"], ours["rope_scaling"] = _read_rope(values, where)
    ours["tied_embeddings"] = values.get("tie_word_embeddings", False) if tied is None else tied
    ours["sliding_window"] = _read_window(values, family, ours["layers"], where)
    ours["no_rope_every"] = _read_no_rope(values, ours["layers"], where) if family == "smollm3" else None
    return LanguageConfig.parse(ours, where)


def write_decoder(language: LanguageConfig) -> Json:
    """The config of a decoder of its own family. Raises: CheckpointError if the family cannot represent a setting."""
    family = language.family
    for name, value in (LLAMA | CHOICES.get(family, {})).items():
        need(f"language.{name}", getattr(language, name), value, f"what {family} has there")
    if family != "smollm3":
        need("language.no_rope_every", language.no_rope_every, None, f"what {family} has there")
    if family in WITHOUT_WINDOW:
        need("language.sliding_window", language.sliding_window, None, "its only value there")
    rope = {"rope_type": "default"} | (language.rope_scaling or {}) | {"rope_theta": language.rope_theta}
    values = write_rows(DECODER_SETTINGS, language) | {
        "model_type": family,
        "hidden_act": ACTIVATIONS_THERE[language.activation],
        "num_key_value_heads": language.kv_heads,
        "head_dim": language.head_width,
        "rope_parameters": rope,
        "tie_word_embeddings": language.tied_embeddings,
        "attention_dropout": 0.0,
    }
    if family not in WITHOUT_WINDOW:
        values["sliding_window"] = language.sliding_window
    if family == "smollm3":
        every = language.no_rope_every or language.layers + 1
        values["no_rope_layers"] = [int(number % every != 0) for number in range(1, language.layers + 1)]
        values["no_rope_layer_interval"] = every
    if family == "phi3":  # its class takes this one, whatever the group of rotary settings says
        scaling = language.rope_scaling or {}
        original = scaling.get("original_max_position_embeddings", language.max_positions)
        values["original_max_position_embeddings"] = int(original)  # type: ignore[arg-type]  # a number, as was checked
    if family in ("smollm3", "phi3"):  # whose classes name a row that a smaller table has not
        values["pad_token_id"] = None
    if family in ("qwen2", "qwen3"):
        values |= {"use_sliding_window": language.sliding_window is not None, "max_window_layers": 0}
    return values


def _read_rope(values: Json, where: str) -> tuple[Any, Json | None]:
    """Base and scaling of the rotary embedding, from the new form (`rope_parameters`) or the old (`rope_scaling`)."""
    given = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if not isinstance(given, dict):
        raise CheckpointError(f"{where}: rope_parameters is a {type(given).__name__}; expected a group of settings")
    rope = {key: value for key, value in _one_rope(given, where).items() if value is not None and key not in UNREAD}
    theta = rope.pop("rope_theta", values.get("rope_theta") or 10000.0)
    old_name = rope.pop("type", "default")
    kind = rope.setdefault("rope_type", old_name)
    if (rope.pop("partial_rotary_factor", None) or values.get("partial_rotary_factor") or 1) != 1:
        raise CheckpointError(
            f"{where}: partial_rotary_factor is not 1; lorgnette's rotary embedding turns whole heads"
        )
    if kind == "default":
        if len(rope) > 1:
            extra = quoted(", ".join(sorted(rope.keys() - {"rope_type"})), 80)
            raise CheckpointError(
                f"{where}: rope_parameters has {extra}, but no rope_type that obeys it; add or remove it"
            )
        return theta, None
    if values["model_type"] == "phi3" and kind in ("su", "yarn"):
        kind = rope["rope_type"] = "longrope"  # as transformers, which knows no other scaling of this family
    if kind in ("llama3", "yarn", "longrope"):
        outside = values.get("original_max_position_embeddings")
        original = rope.get("original_max_position_embeddings", values["max_position_embeddings"])
        rope["original_max_position_embeddings"] = original if outside is None else outside
    if kind == "yarn" and "factor" not in rope:
        rope["factor"] = values["max_position_embeddings"] / whole_number(
            rope, "original_max_position_embeddings", where
        )
    return theta, rope


UNREAD = frozenset({"attn_factor", "finetuned"})
"""Keys of rope_scaling that published files have and no class of transformers reads."""


def _one_rope(given: Json, where: str) -> Json:
    """The group that all layers share, where newer files give one for each kind of layer."""
    groups = [value for value in given.values() if isinstance(value, dict)]
    if not groups:
        return given
    if len(groups) < len(given) or any(group != groups[0] for group in groups):
        raise CheckpointError(f"{where}: rope_parameters differ between kinds of layers; lorgnette has one for all")
    return groups[0]


def _read_window(values: Json, family: str, layers: int, where: str) -> int | None:
    """The sliding window that all layers share, or None. Windows on some layers only are refused."""
    kinds = values.get("layer_types")
    if kinds is not None:
        _check_layer_types(kinds, family, layers, where)
    if family == "smollm3" and values.get("use_sliding_window") and values.get("sliding_window") is not None:
        raise CheckpointError(f"{where}: {ONE_WINDOW}, and smollm3 has it on those without rotary positions")
    if family in WITHOUT_WINDOW or values.get("sliding_window") is None:
        return None
    window = whole_number(values, "sliding_window", where)
    if family in ("mistral", "phi3"):
        return window
    first = layers
    if values.get("use_sliding_window"):
        first = min(whole_number(values, "max_window_layers", where, default=28, least=0), layers)
    if kinds is None and first not in (0, layers):
        raise CheckpointError(f"{where}: {ONE_WINDOW}")
    slides = first < layers if kinds is None else kinds[0] == "sliding_attention"
    return window if slides else None


def _read_no_rope(values: Json, layers: int, where: str) -> int | None:
    """Layers from one without rotary positions to the next, from the list of those that have some, or the interval."""
    every, turned = whole_number(values, "no_rope_layer_interval", where, default=4), values.get("no_rope_layers")
    if turned is None:
        return every if every <= layers else None
    if not isinstance(turned, list) or len(turned) < layers or any(one not in (0, 1) for one in turned):
        raise CheckpointError(f"{where}: no_rope_layers is {quoted(turned, 80)}; expected 0 or 1 for each layer")
    without = [number for number, one in enumerate(turned[:layers], 1) if not one]
    if without and without != [*range(without[0], layers + 1, without[0])]:
        raise CheckpointError(
            f"{where}: no_rope_layers leaves rotary positions out of layers {quoted(without, 80)}, counted from 1;"
            " lorgnette leaves them out of every n-th"
        )
    return without[0] if without else None


WITHOUT_WINDOW = ("llama", "smollm3", "gemma")
ONE_WINDOW = "lorgnette's decoder has a sliding window on all layers or on none"


def _check_layer_types(kinds: Any, family: str, layers: int, where: str) -> None:
    """Raises: CheckpointError for kinds of layers that this decoder does not have, or not one for each layer."""
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise CheckpointError(
            f"{where}: layer_types is {quoted(kinds, 80)}; expected a kind for each of {layers} layers"
        )
    known = ("full_attention",) if family in WITHOUT_WINDOW else ("full_attention", "sliding_attention")
    if any(kind not in known for kind in kinds):
        raise CheckpointError(
            f"{where}: layer_types holds {quoted(next(kind for kind in kinds if kind not in known), 60)};"
            f" {family}'s layers are {' or '.join(known)} here"
        )
    if len(set(kinds)) > 1:
        raise CheckpointError(f"{where}: {ONE_WINDOW}")
