"""Settings of decoders in both directions: the `config.json` of a family in transformers <-> `LanguageConfig`."""

from __future__ import annotations

from lorgnette.errors import CheckpointError
from lorgnette.hub.decoders.gemma_settings import (
    GEMMA_CHOICES,
    GEMMA_DEFAULTS,
    GEMMA_FIXED,
    GEMMA_READ,
    read_gemma,
    write_gemma,
)
from lorgnette.hub.decoders.rotary_settings import read_rope
from lorgnette.hub.decoders.setting_rows import (
    SILU,
    Fixed,
    Json,
    MappedSetting,
    check_layer_types,
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
    **GEMMA_DEFAULTS,
}
"""Defaults of each family's config class in transformers, for keys that a config.json leaves out."""
LLAMA: Json = {"attention_bias": False, "qk_norm": False, "activation": "silu", "norm_offset": False} | {
    "scaled_embedding": False, "post_norms": False, "query_pre_attn_scalar": None, "score_cap": None,
    "logit_cap": None, "global_every": None, "local_rope_theta": None, "no_rope_every": None,
}  # fmt: skip
"""What Llama computes where families differ."""
CHOICES: dict[str, Json] = {
    "qwen2": {"attention_bias": True},
    "qwen3": {"qk_norm": True},
    **GEMMA_CHOICES,
}
"""What a family computes otherwise."""
CHOSEN_BY_FILES = {**GEMMA_READ, "smollm3": ("no_rope_every",)}
"""Of what families differ in: what a file of one says."""
ACTIVATIONS_THERE = {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh"}
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
    refuse_others((*DECODER_FIXED, *GEMMA_FIXED.get(family, (SILU,))), values, where)
    ours = read_rows(DECODER_SETTINGS, values, where)
    for name, key, silent in (
        ("kv_heads", "num_key_value_heads", ours["heads"]),
        ("head_width", "head_dim", ours["width"] // ours["heads"]),
    ):
        ours[name] = silent if values.get(key) is None else whole_number(values, key, where)
    ours |= {"family": family} | LLAMA | CHOICES.get(family, {})
    ours["tied_embeddings"] = values.get("tie_word_embeddings", False) if tied is None else tied
    if family in GEMMA_READ:
        return LanguageConfig.parse(ours | read_gemma(values, ours, where), where)
    ours["rope_theta"], ours["rope_scaling"] = read_rope(values, where)
    ours["sliding_window"] = _read_window(values, family, ours["layers"], where)
    ours["no_rope_every"] = _read_no_rope(values, ours["layers"], where) if family == "smollm3" else None
    return LanguageConfig.parse(ours, where)


def write_decoder(language: LanguageConfig) -> Json:
    """The config of a decoder of its own family. Raises: CheckpointError if the family cannot represent a setting."""
    family = language.family
    for name, value in (LLAMA | CHOICES.get(family, {})).items():
        if name not in CHOSEN_BY_FILES.get(family, ()):
            need(f"language.{name}", getattr(language, name), value, f"what {family} has there")
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
    if family in GEMMA_READ:
        values |= write_gemma(language, rope)
    if family in ("qwen2", "qwen3"):
        values |= {"use_sliding_window": language.sliding_window is not None, "max_window_layers": 0}
    return values


def _read_window(values: Json, family: str, layers: int, where: str) -> int | None:
    """The sliding window that all layers share, or None. Windows on some layers only are refused."""
    kinds = values.get("layer_types")
    if kinds is not None:
        known = ("full_attention",) if family in WITHOUT_WINDOW else ("full_attention", "sliding_attention")
        check_layer_types(kinds, known, family, layers, where)
        if len(set(kinds)) > 1:
            raise CheckpointError(f"{where}: {ONE_WINDOW}")
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
