"""Settings in both directions, held to what transformers' own config classes make of the same JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers
from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from lorgnette.errors import CheckpointError, LorgnetteError, SettingsError
from lorgnette.hub.config_map import read_idefics2, read_vision, write_idefics2, write_vision
from lorgnette.hub.decoders.decoder_map import read_decoder, write_decoder
from lorgnette.hub.decoders.setting_rows import decimal
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.rope import rotation
from tests.hub.tiny import tiny_config

FAMILIES = {
    "llama": transformers.LlamaConfig,
    "mistral": transformers.MistralConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
    "smollm3": transformers.SmolLM3Config,
    "phi3": transformers.Phi3Config,
    "gemma": transformers.GemmaConfig,
    "gemma2": transformers.Gemma2Config,
    "gemma3_text": transformers.Gemma3TextConfig,
}
LOCAL = ["sliding_attention"]
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}

DECODERS: dict[str, dict[str, Any]] = {
    "Llama 1 7B, old keys": {"model_type": "llama", "rms_norm_eps": 1e-6, "rope_scaling": None, "pretraining_tp": 1},
    "Llama 3.1 8B": {
        "model_type": "llama",
        "vocab_size": 128256,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 8192},
    },
    "linear by its old name": {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}},
    "Mistral v0.1": {"model_type": "mistral", "rms_norm_eps": 1e-5, "sliding_window": 4096},
    "Mistral v0.3": {"model_type": "mistral", "sliding_window": None, "rope_theta": 1e6, "vocab_size": 32768},
    "Llama, heads silent": {"model_type": "llama", "num_key_value_heads": None, "head_dim": None},
    "SmolLM2 135M": {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "num_hidden_layers": 30,
        "rope_theta": 100000,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
    },
    "Qwen2.5 0.5B": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "num_hidden_layers": 24,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "use_sliding_window": False,
        "max_window_layers": 21,
        "tie_word_embeddings": True,
    },
    "SmolLM3, silent": {"model_type": "smollm3"},
    "SmolLM3 3B": {
        "model_type": "smollm3",
        "rope_theta": 5000000.0,
        "max_position_embeddings": 65536,
        "no_rope_layers": [1, 1, 1, 0] * 9,
        "sliding_window": 7,
    },
    "SmolLM3, every third": {"model_type": "smollm3", "no_rope_layer_interval": 3, "num_hidden_layers": 7},
    "SmolLM3, all turn": {"model_type": "smollm3", "no_rope_layers": [1] * 40},
    "Phi-3, silent": {"model_type": "phi3"},
    "Phi-3 mini": {"model_type": "phi3", "sliding_window": 2047, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    "Gemma, silent": {"model_type": "gemma"},
    "Gemma 2B, old keys": {
        "model_type": "gemma",
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "hidden_act": "gelu",
        "hidden_activation": None,
        "rope_theta": 10000.0,
    },
    "Gemma 2, silent": {"model_type": "gemma2"},
    "Gemma 2 27B, old keys": {
        "model_type": "gemma2",
        "hidden_size": 4608,
        "intermediate_size": 36864,
        "num_hidden_layers": 46,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "query_pre_attn_scalar": 144,
        "hidden_act": "gelu_pytorch_tanh",
        "cache_implementation": "hybrid",
        "rope_theta": 10000.0,
        "sliding_window_size": 4096,
    },
    "Gemma 2, no caps, all local": {
        "model_type": "gemma2",
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention"] * 2,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    },
    "Gemma 2, all global": {"model_type": "gemma2", "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2},
    "Gemma 3, silent": {"model_type": "gemma3_text"},
    "Gemma 3 1B, old keys": {
        "model_type": "gemma3_text",
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "vocab_size": 262144,
        "max_position_embeddings": 32768,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "rope_local_base_freq": 10000,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
    },
    "Gemma 3 4B": {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "Gemma 3, few layers": {"model_type": "gemma3_text", "num_hidden_layers": 3, "rope_local_base_freq": 77.0},
    "Qwen2, all windows": {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 0},
    "Qwen2, windows too late": {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 40},
    "Qwen3": {"model_type": "qwen3", "hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8},
}


def facts(config: Any) -> dict[str, Any]:
    """Values of a transformers decoder config, under our names."""
    rope = dict(config.rope_parameters)
    local = rope.get("sliding_attention", {}).get("rope_theta")
    rope = dict(rope.get("full_attention", rope))
    theta = rope.pop("rope_theta")
    rope.pop("type", None)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    windows = tuple(window if kind == "sliding_attention" else None for kind in kinds)
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    divisor = getattr(config, "query_pre_attn_scalar", head_width)
    return {
        "windows": windows,
        "query_pre_attn_scalar": None if divisor == head_width else divisor,
        "score_cap": getattr(config, "attn_logit_softcapping", None),
        "logit_cap": getattr(config, "final_logit_softcapping", None),
        "local_rope_theta": local if any(windows) else None,
        "vocabulary": config.vocab_size,
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_width": head_width,
        "mlp_width": config.intermediate_size,
        "norm_eps": config.rms_norm_eps,
        "rope_theta": theta,
        "rope_scaling": None if rope["rope_type"] == "default" else rope,
        "tied_embeddings": config.tie_word_embeddings,
        "max_positions": config.max_position_embeddings,
    }


@pytest.mark.parametrize("values", DECODERS.values(), ids=DECODERS)
def test_a_decoder_is_read_as_transformers_reads_it(values: dict) -> None:
    ours = read_decoder(dict(values), "config.json")
    theirs = FAMILIES[values["model_type"]](**json.loads(json.dumps(values)))
    assert {key: getattr(ours, key) for key in facts(theirs)} == facts(theirs)
    assert ours.attention_bias == (values["model_type"] == "qwen2")
    assert ours.qk_norm == (values["model_type"] in ("qwen3", "gemma3_text"))
    assert ours.post_norms == (values["model_type"] in ("gemma2", "gemma3_text"))
    gemma = values["model_type"].startswith("gemma")
    assert (ours.norm_offset, ours.scaled_embedding, ours.activation == "gelu_tanh") == (gemma,) * 3
    turned = [int(ours.no_rope_every is None or layer % ours.no_rope_every != 0) for layer in range(1, ours.layers + 1)]
    assert turned == getattr(theirs, "no_rope_layers", [1] * ours.layers)[: ours.layers]
    assert read_decoder(theirs.to_dict(), "config.json") == ours, "what transformers writes says the same"
    written = write_decoder(ours)
    assert read_decoder(written, "config.json") == ours
    assert facts(FAMILIES[values["model_type"]](**written)) == facts(theirs), "and what we write too"


VISIONS: dict[str, dict[str, Any]] = {
    "silent": {},
    "SigLIP-SO400M": {
        "hidden_size": 1152,
        "image_size": 384,
        "intermediate_size": 4304,
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
    "another activation": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
}


@pytest.mark.parametrize(
    ("family", "theirs"), [("siglip", transformers.SiglipVisionConfig), ("idefics2", Idefics2VisionConfig)], ids=str
)
@pytest.mark.parametrize("values", VISIONS.values(), ids=VISIONS)
def test_a_vision_model_is_read_as_transformers_reads_it(values: dict, family: str, theirs: type) -> None:
    ours, other = read_vision(values, "config.json", family), theirs(**values)
    assert ours.grid == other.image_size // other.patch_size
    assert (ours.width, ours.layers, ours.heads) == (
        other.hidden_size,
        other.num_hidden_layers,
        other.num_attention_heads,
    )
    assert (ours.mlp_width, ours.norm_eps, ours.patch) == (
        other.intermediate_size,
        other.layer_norm_eps,
        other.patch_size,
    )
    assert read_vision(write_vision(ours), "config.json", family) == ours


def test_the_published_config_is_the_default_model() -> None:
    """Idefics2-8b's own config.json says little; the rest is what its classes assume."""
    published = {
        "model_type": "idefics2",
        "image_token_id": 32001,
        "perceiver_config": {"model_type": "idefics2"},
        "text_config": {
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "sliding_window": 4096,
            "vocab_size": 32003,
        },
        "vision_config": {"hidden_size": 1152, "image_size": 980, "intermediate_size": 4304, "model_type": "idefics2"}
        | {"num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14},
    }
    config = read_idefics2(json.loads(json.dumps(published)), "config.json")
    language = LanguageConfig(vocabulary=32003, sliding_window=4096)
    assert config == VLMConfig(language=language, extra_vocabulary=0)
    theirs = transformers.Idefics2Config(**published)
    assert read_idefics2(theirs.to_dict(), "config.json") == config
    assert facts(theirs.text_config) == facts(transformers.Idefics2Config(**write_idefics2(config)).text_config)
    silent = read_idefics2({"model_type": "idefics2"}, "config.json")
    assert silent == read_idefics2(transformers.Idefics2Config().to_dict(), "config.json")


@pytest.mark.parametrize("perceiver", [{}, {"hidden_size": 64}, {"hidden_size": 64, "rms_norm_eps": 1e-3}])
def test_the_perceivers_epsilon_follows_transformers(perceiver: dict) -> None:
    """A perceiver without a stated epsilon, of a width other than 4096, gets the decoder's, as in transformers."""
    values = write_idefics2(tiny_config(width=64, norm_eps=1e-4)) | {"perceiver_config": perceiver}
    theirs = transformers.Idefics2Config(**json.loads(json.dumps(values)))
    assert read_idefics2(values, "config.json").connector.norm_eps == theirs.perceiver_config.rms_norm_eps


UNSAYABLE: dict[str, tuple[dict[str, Any], str]] = {
    "projection": ({"connector": PerceiverConfig(projection_width=7)}, "projection_width is 7, but .* must be 14336"),
    "mlp": ({"connector": PerceiverConfig(mlp_ratio=2)}, "mlp_ratio is 2, but for transformers it must be 4"),
    "norms": ({"language": LanguageConfig(qk_norm=True)}, "qk_norm is True, but .* must be False: what mistral has"),
    "biases": ({"language": LanguageConfig(attention_bias=True)}, "attention_bias is True"),
    "rope on some layers": ({"language": LanguageConfig(no_rope_every=4)}, "no_rope_every is 4, but .* must be None"),
    "Gemma's norms": ({"language": LanguageConfig(norm_offset=True)}, "norm_offset is True, but .* must be False"),
    "Llama's gate": ({"language": LanguageConfig(family="gemma")}, "activation is 'silu', but .* must be 'gelu_tanh'"),
    "Gemma 2's caps": ({"language": LanguageConfig(score_cap=5.0)}, "score_cap is 5.0, but .* must be None: what mi"),
    "Gemma 2's norms": ({"language": LanguageConfig(post_norms=True)}, "post_norms is True, but .* must be False"),
    "Gemma 2's layers": (
        {"language": LanguageConfig(sliding_window=9, global_every=2)},
        "global_every is 2, but .* must be None",
    ),
    "no biases": ({"language": LanguageConfig(family="qwen2")}, "attention_bias is False, but .* must be True"),
    "window": ({"language": LanguageConfig(family="llama", sliding_window=9)}, "sliding_window is 9"),
}


@pytest.mark.parametrize(("parts", "message"), UNSAYABLE.values(), ids=UNSAYABLE)
def test_what_transformers_cannot_represent_is_refused(parts: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_idefics2(VLMConfig(**parts))


UNKNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "a family": (
        {"model_type": "gemma4"},
        "model_type is 'gemma4'; known decoders are llama, mistral, qwen2, qwen3, smollm3, phi3, gemma, gemma2,",
    ),
    "windows here and there": (
        {"model_type": "gemma2", "num_hidden_layers": 3, "layer_types": ["full_attention", *LOCAL * 2]},
        "layer_types has no window in layers .1., counted from 1; lorgnette leaves it out of every n-th",
    ),
    "a kind of layer that Gemma has not": (
        {"model_type": "gemma3_text", "num_hidden_layers": 1, "layer_types": ["chunked_attention"]},
        "layer_types holds chunked_attention; gemma3_text's layers are full_attention or sliding_attention here",
    ),
    "a Gemma 2 that sees both ways": (
        {"model_type": "gemma2", "use_bidirectional_attention": True},
        "use_bidirectional_attention is True; lorgnette knows False only",
    ),
    "a cap that Gemma 3's class does not obey": (
        {"model_type": "gemma3_text", "attn_logit_softcapping": 50.0},
        "attn_logit_softcapping is 50.0; lorgnette knows None only",
    ),
    "a cap of 0": ({"model_type": "gemma2", "final_logit_softcapping": 0}, "logit_cap: .*greater than 0"),
    "a scaled local rope": (
        {"model_type": "gemma3_text", "rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
        "sliding_attention.rope_type is linear; lorgnette scales rotary positions in layers without a window alone",
    ),
    "one rope for both kinds": (
        {"model_type": "gemma3_text", "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}},
        "rope_parameters has rope_theta, rope_type; gemma3_text has a group for full_attention and one for",
    ),
    "Gemma that sees both ways": (
        {"model_type": "gemma", "use_bidirectional_attention": True},
        "use_bidirectional_attention is True; lorgnette knows False only",
    ),
    "another gate of Gemma": ({"model_type": "gemma", "hidden_act": "silu"}, "hidden_act is 'silu'"),
    "windows of SmolLM3": (
        {"model_type": "smollm3", "use_sliding_window": True, "sliding_window": 9},
        "a sliding window on all layers or on none, and smollm3 has it on those without rotary positions",
    ),
    "layers without rope here and there": (
        {"model_type": "smollm3", "num_hidden_layers": 4, "no_rope_layers": [0, 1, 1, 0]},
        "no_rope_layers leaves rotary positions out of layers .1, 4., counted from 1",
    ),
    "too few layers of rope": ({"model_type": "smollm3", "no_rope_layers": [1, 0]}, "expected 0 or 1 for each layer"),
    "heads that turn in part": (
        {"model_type": "phi3", "partial_rotary_factor": 0.75},
        "partial_rotary_factor is not 1",
    ),
    "no family": ({}, "model_type is None"),
    "biases of Llama": (
        {"model_type": "llama", "attention_bias": True},
        "attention_bias is True; lorgnette knows False",
    ),
    "biases of the MLP": ({"model_type": "llama", "mlp_bias": True}, "mlp_bias is True; lorgnette knows False only"),
    "another activation": ({"model_type": "llama", "hidden_act": "relu"}, "hidden_act is 'relu'"),
    "some windows": (
        {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 5},
        "a sliding window on all layers or on none",
    ),
    "layers of a third kind": (
        {"model_type": "qwen3", "num_hidden_layers": 1, "layer_types": ["chunked_attention"]},
        "layer_types holds chunked_attention; qwen3's layers are full_attention or sliding_attention here",
    ),
    "layers of two kinds": (
        {"model_type": "mistral", "num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]},
        "a sliding window on all layers or on none",
    ),
    "windows of Llama": (
        {"model_type": "llama", "num_hidden_layers": 1, "layer_types": ["sliding_attention"]},
        "layer_types holds sliding_attention; llama's layers are full_attention here",
    ),
    "too few kinds": ({"model_type": "mistral", "layer_types": ["full_attention"]}, "expected a kind for each of 32"),
    "an epsilon below 0": ({"model_type": "llama", "rms_norm_eps": -1.0}, "norm_eps: .*greater than or equal to 0"),
    "frequencies in the wrong order": (
        {"model_type": "llama", "rope_scaling": LLAMA3 | {"low_freq_factor": 4.0, "high_freq_factor": 4.0}},
        "needs a high_freq_factor above its low_freq_factor",
    ),
    "rope that is text": ({"model_type": "llama", "rope_parameters": "fast"}, "rope_parameters is a str"),
    "a theta that is text": ({"model_type": "llama", "rope_theta": "fast"}, "rope_theta: .*valid number"),
}


@pytest.mark.parametrize(("values", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_our_decoder_has_not_is_refused(values: dict, message: str) -> None:
    with pytest.raises(LorgnetteError, match=f"^here: .*{message}|^here.*{message}"):
        read_decoder(values, "here")


OTHERS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 9},
    "llama": {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 64}, "sliding_window": None},
    "qwen2": {"attention_bias": True, "sliding_window": 11},
    "qwen3": {"qk_norm": True, "sliding_window": None},
    "smollm3": {"no_rope_every": 3, "sliding_window": None},
    "phi3": {"sliding_window": 12},
}


@pytest.mark.parametrize(("family", "rest"), OTHERS.items(), ids=OTHERS)
def test_every_setting_comes_back(family: str, rest: dict) -> None:
    """No setting here has its default, so that one that the tables forget is found."""
    vision = {"width": 24, "layers": 3, "heads": 2, "mlp_width": 36, "patch": 8, "grid": 5, "channels": 1}
    sizes = {"vocabulary": 99, "width": 30, "layers": 3, "heads": 6, "kv_heads": 2, "head_width": 10, "mlp_width": 44}
    config = VLMConfig(
        vision=VisionConfig(**vision, activation="gelu", norm_eps=0.1, mean=(0.1,), std=(0.2,)),
        connector=PerceiverConfig(
            projection_width=44, latents=7, depth=2, heads=4, head_width=6, kv_heads=2, norm_eps=0.2
        ),
        language=LanguageConfig(
            **sizes | rest, family=family, norm_eps=0.3, rope_theta=77.0, tied_embeddings=True, max_positions=64
        ),
        extra_vocabulary=0,
        image_token=98,
    )
    read = read_idefics2(json.loads(json.dumps(write_idefics2(config))), "config.json").plain()
    read["vision"] |= {"mean": [0.1], "std": [0.2]}  # those stand in the processor's files
    assert VLMConfig.parse(read).diff(config) == {}


def test_what_a_family_of_gemma_cannot_say_is_refused() -> None:
    gemma3 = LanguageConfig.parse({"preset": "gemma-3-4b"})
    for change, message in (
        ({"score_cap": 5.0}, "score_cap is 5.0, but .* must be None: what gemma3_text has there"),
        ({"local_rope_theta": None}, "rope_scaling holds in layers with a window too.*set local_rope_theta"),
    ):
        with pytest.raises(CheckpointError, match=message):
            write_decoder(gemma3.model_copy(update=change))


WINDOWS_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no window": ({"global_every": 2}, "global_every is for layers with a window; set sliding_window"),
    "no window for a base": ({"local_rope_theta": 7.0}, "local_rope_theta is for layers with a window"),
    "every layer": ({"global_every": 1, "sliding_window": 9}, "global_every 1 leaves no layer a window"),
}


@pytest.mark.parametrize(("values", "message"), WINDOWS_REFUSED.values(), ids=WINDOWS_REFUSED)
def test_settings_of_layers_that_are_not_there_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        LanguageConfig.parse(values)


def test_an_old_name_of_phi3s_scaling_is_read() -> None:
    rope = {"short_factor": [1.1] * 48, "long_factor": [2.5] * 48}
    old, new = ({"model_type": "phi3", "rope_scaling": rope | {"type": kind}} for kind in ("su", "longrope"))
    assert read_decoder(old, "here") == read_decoder(new, "here")
    assert read_decoder(new, "here").rope_scaling["original_max_position_embeddings"] == 4096


def test_a_whole_around_gemma_is_refused_both_ways() -> None:
    said = "the projection of images has the decoder's activation there, which is SiLU here"
    gemma = {"family": "gemma", "activation": "gelu_tanh", "norm_offset": True, "scaled_embedding": True}
    with pytest.raises(CheckpointError, match=f"activation is 'gelu_tanh', but .* must be 'silu': {said}"):
        write_idefics2(VLMConfig(language=LanguageConfig(**gemma)))
    with pytest.raises(CheckpointError, match=f"here: text_config is a gemma, and {said}"):
        read_idefics2({"text_config": {"model_type": "gemma"}}, "here")


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
ROPES: dict[str, dict[str, Any]] = {
    "yarn": YARN,
    "attn_factor": YARN | {"attn_factor": 0.8782488562869419},
    "attention_factor null": YARN | {"attention_factor": None, "beta_fast": None, "beta_slow": None},
    "attention_factor": YARN | {"attention_factor": 0.7, "mscale": 2.0, "mscale_all_dim": 0.5},
    "mscale": YARN | {"mscale": 1.3, "mscale_all_dim": 0.6},
    "mscale alone": YARN | {"mscale": 1.3},
    "mscale 0": YARN | {"mscale": 0.0, "mscale_all_dim": 1.0},
    "not truncated": YARN | {"truncate": False},
    "truncated": YARN | {"truncate": True, "beta_fast": 20, "beta_slow": 2},
    "factor null": YARN | {"factor": None},
    "a small factor": YARN | {"factor": 0.5},
    "by its old name": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "finetuned": True},
    "without original": {"rope_type": "yarn", "factor": 2.0},
    "longrope": {"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [4.0] * 4}
    | {"original_max_position_embeddings": 64},
    "longrope, factor": {"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [4.0] * 4}
    | {"original_max_position_embeddings": 64, "factor": 8.0},
    "longrope, attention": {"rope_type": "longrope", "short_factor": [1, 1, 2, 2], "long_factor": [4.0] * 4}
    | {"original_max_position_embeddings": 64, "attention_factor": 1.25},
    "llama3 with nulls": LLAMA3 | {"original_max_position_embeddings": 64, "attention_factor": None},
    "linear": {"rope_type": "linear", "factor": 2.0, "attn_factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0, "finetuned": False},
}


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("outside", [None, 48])
def test_frequencies_are_those_of_transformers(rope: dict[str, Any], key: str, outside: int | None) -> None:
    values = {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 256}
    values |= {key: rope, "rope_theta": 5000.0} | (
        {} if outside is None else {"original_max_position_embeddings": outside}
    )
    ours = read_decoder(json.loads(json.dumps(values)), "config.json")
    assert read_decoder(write_decoder(ours), "config.json") == ours
    theirs = transformers.LlamaConfig(**json.loads(json.dumps(values)))
    turn = LlamaRotaryEmbedding(theirs)
    positions = torch.arange(40)
    their_cos, their_sin = turn(torch.zeros(1), positions[None])
    cos, sin = rotation(ours, positions, 40, torch.float32)
    torch.testing.assert_close(cos[:, 0], their_cos[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(sin[:, 0, 4:], their_sin[0, :, 4:], atol=1e-6, rtol=1e-6)


ROPES_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "keys of no type": ({"factor": 2.0}, "rope_parameters has factor, but no rope_type that obeys it"),
    "kinds of layers": (
        {"full_attention": {"rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e5}},
        "rope_parameters differ between kinds of layers",
    ),
    "a factor of 0": (YARN | {"factor": 0}, "rope_scaling's factor must be above 0"),
    "too few factors": (
        {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0] * 4},
        "short_factor needs a number for each of the 4 pairs",
    ),
    "another type": ({"rope_type": "mrope", "mrope_section": [2, 2]}, "rope_type 'mrope' is unknown"),
    "a key of another type": ({"rope_type": "linear", "factor": 2.0, "beta_fast": 3}, "knows no beta_fast"),
}


@pytest.mark.parametrize(("rope", "message"), ROPES_REFUSED.values(), ids=ROPES_REFUSED)
def test_rotary_settings_that_are_not_obeyed_are_named(rope: dict[str, Any], message: str) -> None:
    values = {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4, "rope_parameters": rope}
    with pytest.raises(LorgnetteError, match=message):
        read_decoder(values, "config.json")


def test_one_group_for_all_kinds_of_layers_is_read() -> None:
    group = {"rope_type": "linear", "factor": 2.0, "rope_theta": 77.0}
    values = {"model_type": "qwen3", "rope_parameters": {"full_attention": group, "sliding_attention": dict(group)}}
    found = read_decoder(values, "config.json")
    assert (found.rope_theta, found.rope_scaling) == (77.0, {"rope_type": "linear", "factor": 2.0})


@pytest.mark.parametrize("value", [1e-5, 1e-6, 1e-12, 0.1, 0.02])
def test_a_number_that_float32_made_longer_is_the_number(value: float) -> None:
    longer = torch.tensor(value, dtype=torch.float32).item()
    assert decimal(longer) == decimal(value) == value
    found = read_decoder({"model_type": "llama", "rms_norm_eps": longer}, "config.json")
    assert found == read_decoder({"model_type": "llama", "rms_norm_eps": value}, "config.json")
