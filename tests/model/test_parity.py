"""The model equals transformers' classes in float32: logits and the gradient of every parameter."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from lorgnette.hub import config_map, weight_map
from lorgnette.hub.decoders import decoder_map
from lorgnette.inputs.image import patch_positions
from lorgnette.model.batch import Batch
from lorgnette.model.config import VLMConfig
from lorgnette.model.vlm import VLM

IMAGES = [[(3, 5), (2, 2)], [], [(1, 8)], [(8, 8), (4, 3), (5, 5)]]
SPLIT = [[(4, 3)] * 4 + [(7, 5)], [(2, 2)]]

GEMMA = {"family": "gemma", "activation": "gelu_tanh", "norm_offset": True, "scaled_embedding": True}
GEMMA |= {"tied_embeddings": True}
GEMMA2 = GEMMA | {"family": "gemma2", "post_norms": True, "layers": 4, "sliding_window": 6, "global_every": 2}
GEMMA2 |= {"score_cap": 0.5, "logit_cap": 1.5}
GEMMA3 = GEMMA | {"family": "gemma3_text", "post_norms": True, "qk_norm": True, "layers": 7, "sliding_window": 6}
GEMMA3 |= {"global_every": 3, "rope_theta": 1e6, "local_rope_theta": 1e4}
WHOLE = {
    "plain": ({}, IMAGES),
    "latents 64": ({"connector": {"latents": 64}}, IMAGES),
    "split": ({}, SPLIT),
    "one kv head": ({"connector": {"kv_heads": 1}, "language": {"kv_heads": 1}}, IMAGES),
    "all kv heads": ({"connector": {"kv_heads": 4}, "language": {"kv_heads": 4}}, IMAGES),
    "tied": ({"language": {"tied_embeddings": True}}, IMAGES),
    "deep, other widths": (
        {"connector": {"depth": 3, "head_width": 12}, "language": {"layers": 3, "width": 40, "head_width": 16}},
        IMAGES,
    ),
    "sliding window": ({"language": {"sliding_window": 7}}, IMAGES),
    "Llama inside": ({"language": {"family": "llama", "rope_theta": 5e5}}, IMAGES),
    "Qwen2 inside": ({"language": {"family": "qwen2", "attention_bias": True, "tied_embeddings": True}}, IMAGES),
    "SmolLM3 inside": ({"language": {"family": "smollm3", "no_rope_every": 2}}, IMAGES),
    "Phi-3 inside": ({"language": {"family": "phi3"}}, IMAGES),
    "Qwen3 inside": ({"language": {"family": "qwen3", "qk_norm": True, "head_width": 16}}, IMAGES),
    "gelu": ({"vision": {"activation": "gelu"}}, IMAGES),
    "text only": ({}, [[], [], []]),
}


@pytest.mark.parametrize(("overrides", "documents"), WHOLE.values(), ids=WHOLE)
def test_idefics2(tiny, overrides: dict, documents: list) -> None:
    config = tiny.config(**overrides | {"connector": {"projection_width": 40} | overrides.get("connector", {})})
    model = tiny.model(config)
    batch = tiny.batch(
        config, documents, positions=lambda shape, grid: torch.tensor(patch_positions(*shape, grid, "parity"))
    )
    oracle = build(
        transformers.Idefics2ForConditionalGeneration, config_map.write_idefics2(config), model, whole(config)
    )

    ours, theirs = model(batch).logits, oracle(**padded(batch, documents, config)).logits
    theirs = torch.cat([row[:length] for row, length in zip(theirs, batch.documents.lengths, strict=True)])
    assert error(ours, theirs) <= 1e-5

    model(batch, output="loss").loss_sum.backward()
    F.cross_entropy(theirs, batch.targets_T, reduction="sum").backward()
    compare_gradients(model, oracle, whole(config), skip=not any(documents))


DECODERS: dict[str, dict] = {
    "Llama": {"family": "llama"},
    "Llama, kv heads 4": {"family": "llama", "kv_heads": 4, "tied_embeddings": True},
    "Llama, linear": {"family": "llama", "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "Llama 3.1": {
        "family": "llama",
        "rope_theta": 500000.0,
        "head_width": 32,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "Llama, dynamic": {
        "family": "llama",
        "max_positions": 32,
        "head_width": 16,
        "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
    },
    "Llama, yarn": {
        "family": "llama",
        "head_width": 16,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    },
    "Mistral": {"family": "mistral"},
    "Mistral, window": {"family": "mistral", "sliding_window": 5},
    "Qwen2.5": {"family": "qwen2", "attention_bias": True, "tied_embeddings": True},
    "Qwen3": {"family": "qwen3", "qk_norm": True, "head_width": 24, "tied_embeddings": True},
    "Gemma": GEMMA,
    "Gemma, wide heads, untied": GEMMA | {"head_width": 24, "kv_heads": 1, "tied_embeddings": False},
    "Gemma 2": GEMMA2,
    "Gemma 2, all global, no caps": GEMMA2
    | {"sliding_window": None, "global_every": None, "score_cap": None, "logit_cap": None},
    "Gemma 2, all local, other scores": GEMMA2 | {"global_every": None, "query_pre_attn_scalar": 24, "kv_heads": 1},
    "Gemma 3": GEMMA3,
    "Gemma 3, stretched, other scores, untied": GEMMA3
    | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "query_pre_attn_scalar": 24, "kv_heads": 1}
    | {"tied_embeddings": False, "logit_cap": 2.0, "head_width": 24},
    "SmolLM3": {"family": "smollm3", "layers": 5, "no_rope_every": 2, "tied_embeddings": True},
    "Phi-3": {"family": "phi3"},
    "Phi-3, long": {
        "family": "phi3",
        "max_positions": 64,
        "rope_scaling": {
            "rope_type": "longrope",
            "short_factor": (1.0, 1.5, 2.0, 3.0),
            "long_factor": (4.0,) * 4,
            "original_max_position_embeddings": 32,
        },
    },
    "Phi-3, window, fewer kv heads": {"family": "phi3", "sliding_window": 6, "kv_heads": 1},
    "Qwen3, window": {"family": "qwen3", "qk_norm": True, "sliding_window": 6},
}


@pytest.mark.parametrize("overrides", DECODERS.values(), ids=DECODERS)
def test_decoder(tiny, overrides: dict) -> None:
    config = tiny.config(language=overrides, extra_vocabulary=0)
    model = tiny.model(config)
    table = weight_map.decoder_rules(config.language, "model.")
    values = json.loads(json.dumps(decoder_map.write_decoder(config.language)))
    kind = transformers.AutoConfig.for_model(**values)
    oracle = build(type(transformers.AutoModelForCausalLM.from_config(kind)), values, model, table)
    batch = tiny.batch(config, [[]], text=23)

    ours, theirs = model(batch).logits, oracle(batch.tokens_T[None]).logits[0]
    assert error(ours, theirs) <= 1e-5
    weights = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1))
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    compare_gradients(model, oracle, table)


@pytest.mark.parametrize("activation", ["gelu_tanh", "quick_gelu"])
def test_siglip(tiny, activation: str) -> None:
    config = tiny.config(vision={"activation": activation})
    model = tiny.model(config)
    table = weight_map.vision_rules(config.vision, "")
    values = config_map.write_vision(config.vision) | {"vision_use_head": False}
    oracle = build(transformers.SiglipVisionModel, values, model, table, strict=False)
    batch = tiny.batch(config, [[(8, 8), (8, 8)]])

    ours = model.vision(batch.patches_PC, batch.patch_positions_P, batch.grids)
    pixels_PC = model.vision.normalise(batch.patches_PC, ours)
    theirs = oracle(as_image(pixels_PC, (8, 8), config)).last_hidden_state.flatten(0, 1)
    assert error(ours, theirs) <= 1e-5
    weights = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1))
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    compare_gradients(model, oracle, table)


def whole(config: VLMConfig) -> list[weight_map.Rule]:
    return weight_map.idefics2_rules(config)


def build(kind: type, values: dict, model: VLM, table: Sequence[weight_map.Rule], strict: bool = True) -> nn.Module:
    """The transformers class of these settings with our weights."""
    oracle = kind(kind.config_class(**values)).eval()
    state = {rule.theirs: rule.to_theirs(dict(model.named_parameters())) for rule in table}
    missing, unexpected = oracle.load_state_dict(state, strict=False)
    assert not unexpected
    assert not strict or set(missing) <= {"lm_head.weight"}
    oracle.tie_weights()
    return oracle


def padded(batch: Batch, documents: list, config: VLMConfig) -> dict[str, Tensor]:
    """The batch as transformers takes it: rows padded on the right, images on the right and below, with masks."""
    count, patch = len(documents), config.vision.patch
    tokens = torch.zeros(count, batch.documents.longest, dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for row, (start, length) in enumerate(zip(batch.documents.starts, batch.documents.lengths, strict=False)):
        tokens[row, :length], mask[row, :length] = batch.tokens_T[start : start + length], 1
    inputs = {"input_ids": tokens, "attention_mask": mask}
    if not any(documents):
        return inputs
    side = 8 * patch
    pixels = torch.zeros(count, max(map(len, documents)), config.vision.channels, side, side)
    real = torch.zeros(count, max(map(len, documents)), side, side, dtype=torch.bool)
    start = 0
    for row, shapes in enumerate(documents):
        for column, (height, width) in enumerate(shapes):
            patches = batch.patches_PC[start : start + height * width].float() / 255
            image = as_image((patches - 0.5) / 0.5, (height, width), config)[0]
            pixels[row, column, :, : height * patch, : width * patch] = image
            real[row, column, : height * patch, : width * patch] = True
            start += height * width
    return inputs | {"pixel_values": pixels, "pixel_attention_mask": real}


def as_image(patches_PC: Tensor, shape: tuple[int, int], config: VLMConfig) -> Tensor:
    """Patches of equal images back to pixels: images, channels, height, width."""
    (rows, columns), patch = shape, config.vision.patch
    pieces = patches_PC.view(-1, rows, columns, config.vision.channels, patch, patch)
    return pieces.permute(0, 3, 1, 4, 2, 5).reshape(-1, config.vision.channels, rows * patch, columns * patch)


def error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def compare_gradients(model: VLM, oracle: nn.Module, table: Sequence[weight_map.Rule], skip: bool = False) -> None:
    """Every parameter of the table: the largest difference, relative to the largest gradient, at most 1e-4."""
    ours = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    theirs = dict(oracle.named_parameters())
    for rule in table:
        if theirs[rule.theirs].grad is None:
            assert skip, rule.theirs
            continue
        # a key bias moves all scores of a query alike, so its true gradient is zero: compare it to its weight's
        scale = theirs[rule.theirs.replace("k_proj.bias", "k_proj.weight")].grad.abs().max()
        difference = (rule.to_theirs(ours) - theirs[rule.theirs].grad).abs().max()
        assert difference <= 1e-4 * scale, (rule.theirs, difference, scale)
