"""Settings of Gemma 1 to 3: what they compute otherwise than Llama, and what files of 2 and 3 say besides."""

from __future__ import annotations

from typing import Any

from lorgnette.errors import CheckpointError
from lorgnette.hub.decoders.rotary_settings import read_rope
from lorgnette.hub.decoders.setting_rows import Fixed, Json, check_layer_types, group_of, whole_number
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.untrusted import quoted

_SIZES: Json = {"vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26} | {
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}  # fmt: skip
GEMMA_DEFAULTS: dict[str, Json] = {
    "gemma": _SIZES
    | {"hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28}
    | {"num_attention_heads": 16, "num_key_value_heads": 16},
    "gemma2": _SIZES
    | {"query_pre_attn_scalar": 256, "sliding_window": 4096, "sliding_window_pattern": 2}
    | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3_text": _SIZES
    | {"vocab_size": 262208, "max_position_embeddings": 131072, "rope_theta": 1e6, "rope_local_base_freq": 1e4}
    | {"query_pre_attn_scalar": 256, "sliding_window": 4096, "sliding_window_pattern": 6},
}
"""Defaults of each config class in transformers."""
_GEMMA: Json = {"activation": "gelu_tanh", "norm_offset": True, "scaled_embedding": True}
GEMMA_CHOICES: dict[str, Json] = {
    "gemma": _GEMMA,
    "gemma2": _GEMMA | {"post_norms": True},
    "gemma3_text": _GEMMA | {"post_norms": True, "qk_norm": True},
}
"""What each computes otherwise than Llama."""
GEMMA_READ: dict[str, tuple[str, ...]] = {
    "gemma2": ("query_pre_attn_scalar", "global_every", "score_cap", "logit_cap"),
    "gemma3_text": ("query_pre_attn_scalar", "global_every", "local_rope_theta", "logit_cap"),
}
"""What the files of each say of it, beyond the settings of all families."""
_FIXED = (
    Fixed("hidden_act", "gelu_pytorch_tanh", "gelu_pytorch_tanh"),
    Fixed("hidden_activation", "gelu_pytorch_tanh", "gelu_pytorch_tanh"),
    Fixed("use_bidirectional_attention", False, False),
)
GEMMA_FIXED: dict[str, tuple[Fixed, ...]] = {
    "gemma": _FIXED,
    "gemma2": _FIXED,
    "gemma3_text": (*_FIXED, Fixed("attn_logit_softcapping", None, None)),  # transformers' class does not obey it
}
"""Settings of each for which one value is known."""
LOCAL, GLOBAL = "sliding_attention", "full_attention"


def read_gemma(values: Json, ours: Json, where: str) -> Json:
    """Settings under our names that files of Gemma 2 and 3 have otherwise, or besides.

    values: a file's, with the defaults of its class. ours: sizes that are read already.
    Raises: CheckpointError naming what this decoder does not have.
    """
    family, layers = ours["family"], ours["layers"]
    kinds = _layer_types(values, family, layers, where)
    every = _global_every(kinds, where)
    window = None if every == 1 else whole_number(values, "sliding_window", where)
    scalar = whole_number(values, "query_pre_attn_scalar", where)
    read = {
        "query_pre_attn_scalar": None if scalar == ours["head_width"] else scalar,
        "sliding_window": window,
        "global_every": None if window is None else every,
        "logit_cap": values.get("final_logit_softcapping"),
    }
    if family == "gemma2":
        read["rope_theta"], read["rope_scaling"] = read_rope(values, where)
        return read | {"score_cap": values.get("attn_logit_softcapping")}
    read["rope_theta"], read["rope_scaling"], local = _read_two_ropes(values, where)
    return read | {"local_rope_theta": None if window is None else local}


def write_gemma(language: LanguageConfig, rope: Json) -> Json:
    """The same settings under transformers' names. rope: rotary positions of layers without a window."""
    values: Json = {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": language.query_pre_attn_scalar or language.head_width,
        "sliding_window": language.sliding_window or language.max_positions,  # its class needs one, used or not
        "layer_types": [GLOBAL if window is None else LOCAL for window in language.windows],
        "final_logit_softcapping": language.logit_cap,
    }
    if language.family == "gemma2":
        return values | {"attn_logit_softcapping": language.score_cap}
    theta = language.rope_theta if language.local_rope_theta is None else language.local_rope_theta
    need_alike = language.local_rope_theta is None and language.sliding_window is not None
    if need_alike and language.rope_scaling is not None:
        raise CheckpointError(
            "language.rope_scaling holds in layers with a window too, but in gemma3_text it does not; set"
            " local_rope_theta"
        )
    return values | {"rope_parameters": {GLOBAL: rope, LOCAL: {"rope_type": "default", "rope_theta": theta}}}


def _layer_types(values: Json, family: str, layers: int, where: str) -> list[str]:
    """The kind of each layer, from the list of them or, in older files, from the interval of those without a window."""
    kinds = values.get("layer_types")
    if kinds is not None:
        check_layer_types(kinds, (GLOBAL, LOCAL), family, layers, where)
        return list(kinds)
    every = whole_number(values, "sliding_window_pattern", where)
    return [LOCAL if (layer + 1) % every else GLOBAL for layer in range(layers)]


def _global_every(kinds: list[str], where: str) -> int | None:
    """Layers from one without a window to the next; None if all have one."""
    without = [number for number, kind in enumerate(kinds, 1) if kind == GLOBAL]
    if without and without != [*range(without[0], len(kinds) + 1, without[0])]:
        raise CheckpointError(
            f"{where}: layer_types has no window in layers {quoted(without, 80)}, counted from 1; lorgnette leaves it"
            " out of every n-th"
        )
    return without[0] if without else None


def _read_two_ropes(values: Json, where: str) -> tuple[Any, Json | None, Any]:
    """Base and scaling of layers without a window, and the base of those with one, which are not scaled."""
    groups = group_of(values, "rope_parameters", where)
    if unknown := sorted(groups.keys() - {GLOBAL, LOCAL}):
        raise CheckpointError(
            f"{where}: rope_parameters has {quoted(', '.join(unknown), 80)}; gemma3_text has a group for {GLOBAL} and"
            f" one for {LOCAL}"
        )
    wide = group_of(groups, GLOBAL, where) | group_of(values, "rope_scaling", where)
    near = group_of(groups, LOCAL, where)
    if near.get("rope_type", "default") != "default":
        raise CheckpointError(
            f"{where}: rope_parameters.{LOCAL}.rope_type is {quoted(near['rope_type'], 60)}; lorgnette scales rotary"
            " positions in layers without a window alone"
        )
    theta, scaling = read_rope(values | {"rope_parameters": wide, "rope_scaling": None}, where)
    return theta, scaling, near.get("rope_theta", values["rope_local_base_freq"])
