"""The cost of a model equals the paper's figures and what real modules and kernels do."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lorgnette.model.batch import SequenceLengths
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs import presets
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.flops import ModelCost

COST = ModelCost(VLMConfig())


def millions(count: int, digits: int = 1) -> float:
    return round(count / 1e6, digits)


def test_connector_is_743_million() -> None:
    """SwiGLU projection 91.8M and perceiver 651.4M: the paper's 740M new parameters (Table 3)."""
    assert millions(COST.parameters["connector"]) == 743.2
    assert millions(sum(p.numel() for p in COST.model.connector.projection.parameters())) == 91.8


def test_lora_of_rank_64_makes_the_paper_s_950_million_trained() -> None:
    assert millions(COST.lora_parameters("language", 64)) == 167.8
    assert millions(COST.lora_parameters("vision", 64)) == 34.8
    trained = COST.trained_parameters({"vision": "lora", "connector": "full", "language": "lora"})
    assert millions(trained, 0) == 946


PUBLISHED = {
    "mistral-7b": 7_241_732_096,
    "llama-1-7b": 6_738_415_616,
    "llama-2-7b": 6_738_415_616,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "smollm3-3b": 3_075_098_624,
    "phi-3-mini-4k": 3_821_079_552,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gemma-3-270m": 268_098_176,
    "gemma-3-1b": 999_885_952,
    "gemma-3-4b": 3_880_263_168,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
}


@pytest.mark.parametrize("name", presets.LANGUAGE)
def test_decoder_presets_have_exactly_the_published_parameters(name: str) -> None:
    cost = ModelCost(VLMConfig.parse({"vision": {"layers": 1}, "language": {"preset": name}, "extra_vocabulary": 0}))
    assert cost.parameters["language"] == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "size"), [("siglip-so400m", 417.8), ("siglip-base-16-224", 85.8), ("siglip-large-16-384", 303.7)]
)
def test_vision_presets_have_the_published_size_without_the_pooling_head(name: str, size: float) -> None:
    cost = ModelCost(VLMConfig.parse({"vision": {"preset": name}}))
    assert millions(cost.parameters["vision"]) == size


def attention_flops(q: torch.Size, k: torch.Size, *_: object, **__: object) -> int:
    batch, heads, length, width = q
    return 4 * batch * heads * length * k[2] * width


def attention_backward_flops(grad: torch.Size, q: torch.Size, k: torch.Size, *_: object, **__: object) -> int:
    return 2 * attention_flops(q, k)


@pytest.mark.parametrize(("window", "global_every"), [(None, None), (5, None), (5, 2)])
def test_flops_are_those_of_the_kernels(tiny, window: int | None, global_every: int | None) -> None:
    config = tiny.config(language={"sliding_window": window, "global_every": global_every}, connector={"latents": 5})
    model, cost = tiny.model(config), ModelCost(config)
    batch = tiny.batch(config, [[(3, 4), (8, 8)], [], [(2, 2)]])
    aten = torch.ops.aten
    known = {
        aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1],
        aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
    }
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        model(batch, output="loss").loss_sum.backward()
    supervised_tokens = int((batch.targets_T != -100).sum())
    c = config.language
    seen = sum(cost.document_flops(n) - n * cost.token_flops() for n in batch.documents.lengths)
    pairs = (c.layers - 1) * sum(n**2 for n in batch.documents.lengths)
    window = config.language.window_of(1)
    for targets in batch.targets_T.split(batch.documents.lengths):  # in the last layer only what is read attends
        rows = (targets != -100).nonzero()[:, 0]
        keys = int(rows[-1]) + 1 - (0 if window is None else max(int(rows[0]) - window + 1, 0))
        pairs += len(rows) * keys
    invisible = 3 * (4 * c.heads * c.head_width * pairs - seen)  # kernels are counted as if they did invisible pairs
    # nothing needs the gradient of pixels
    pixels = 2 * batch.images.total * config.vision.patch_width * config.vision.width
    expected = cost.step_flops(batch.images, batch.documents, supervised_tokens) + invisible - pixels
    assert counter.get_total_flops() == expected


@pytest.mark.parametrize("name", ["mistral-7b", "smollm2-135m", "llama-3.2-1b", "qwen2.5-0.5b", "qwen3-0.6b"])
def test_a_measured_decoder_costs_what_its_sizes_say(name: str) -> None:
    """The closed forms of a Llama's layer, as an oracle of what is measured."""
    c = LanguageConfig.parse({"preset": name})
    cost = ModelCost(VLMConfig(vision=VisionConfig(layers=1), language=c))
    inner, kv_inner = c.heads * c.head_width, c.kv_heads * c.head_width
    mlp = 6 * c.width * c.mlp_width
    assert cost.token_flops() == c.layers * (4 * c.width * (inner + kv_inner) + mlp)
    assert cost.token_flops(7) - cost.token_flops() == c.layers * 4 * 7 * inner
    assert cost.unread_flops() == 4 * c.width * inner + mlp
    assert cost.head_flops() == 2 * c.width * cost.config.vocabulary


@pytest.mark.parametrize("text_mlp", [True, False])
def test_measured_blocks_of_cross_attention_cost_what_their_sizes_say(tiny: type, text_mlp: bool) -> None:
    settings = {"kind": "cross_attention", "every": 1, "text_mlp": text_mlp, "mlp_width": 20, "kv_heads": 1}
    config = tiny.config(fusion=settings)
    batch, cost, c = tiny.batch(config, [[(3, 4), (2, 2)], []]), ModelCost(config), config.language
    inner, (first, last) = c.heads * c.head_width, batch.visual_positions_V.tolist()
    seeing = batch.documents.lengths[0] - first
    tokens = batch.documents.total if text_mlp else seeing
    block = seeing * 4 * c.width * inner + tokens * 6 * c.width * 20 + 4 * 8 * inner * seeing
    assert last > first and cost.fusion_flops(batch) == c.layers * (block + 2 * 8 * 4 * c.width * c.head_width)
    assert cost.seeing_flops(8) == c.layers * (4 * c.width * inner + 6 * c.width * 20 + 4 * 8 * inner)
    assert ModelCost(tiny.config()).fusion_flops(batch) == ModelCost(tiny.config()).seeing_flops(8) == 0


@pytest.mark.parametrize("name", presets.VISION_PRESETS)
def test_a_measured_encoder_costs_what_its_sizes_say(name: str) -> None:
    c, patches = VisionConfig.parse({"preset": name}), 100
    rows = patches + (c.class_token != "none")
    layer = rows * (8 * c.width**2 + 4 * c.width * c.mlp_width) + 4 * rows**2 * c.width
    expected = c.layers * layer + 2 * patches * c.width * c.patch_width
    assert ModelCost(VLMConfig(vision=c)).vision_flops(patches) == expected


def test_layers_without_a_window_see_all() -> None:
    """Gemma 3 1B: 22 of 26 layers see 512 tokens at most, each query and key 4 multiply-adds of 256 in 4 heads."""
    cost = ModelCost(VLMConfig.parse({"vision": {"layers": 1}, "language": {"preset": "gemma-3-1b"}}))
    pair = 4 * 4 * 256
    assert cost.token_flops(2000) - cost.token_flops() == pair * (22 * 512 + 4 * 2000)
    tokens = [min(place, 512) for place in range(1, 2001)]
    seen = 22 * sum(tokens) + 4 * sum(range(1, 2001))
    assert cost.document_flops(2000) - 2000 * cost.token_flops() == pair * seen
    assert cost.cache_bytes() == 26 * 2 * 256 * 2, "layers with a window keep every token too"


def test_frozen_and_lora_parts_cost_less() -> None:
    images, documents = SequenceLengths((2916, 729)), SequenceLengths((500, 300))
    step = lambda **modes: COST.step_flops(images, documents, 400, modes)  # noqa: E731
    frozen = step(vision="frozen", connector="full", language="frozen")
    lora = step(vision="lora", connector="full", language="lora")
    full = step(vision="full", connector="full", language="full")
    assert frozen < lora < full
    forward = sum(map(COST.image_flops, images.lengths)) + sum(map(COST.document_flops, documents.lengths))
    read = 400 * (COST.head_flops() - COST.unread_flops())  # of 800 tokens, half are read
    assert 3 * (forward + read) == full


def test_bytes_of_the_cache() -> None:
    assert COST.cache_bytes() == 32 * 2 * 8 * 128 * 2
