"""The prepared layers compute what the plain ones do, in the same memory."""

from __future__ import annotations

import copy

import pytest
import torch
from peft.tuners.lora import LoraConfig
from safetensors.torch import save_file
from torch import nn

from lorgnette.model.batch import Batch
from lorgnette.model.inference.prepared_layers import prepare
from lorgnette.model.kv_cache import KVCache
from lorgnette.model.vlm import VLM
from tests.model.choices import FUSIONS

LOCAL = {"layers": 3, "sliding_window": 4, "global_every": 2}
GEMMA = {"norm_offset": True, "post_norms": True, "activation": "gelu_tanh", "scaled_embedding": True}
DECODERS = {
    "llama": {},
    "one kv head": {"kv_heads": 1, "tied_embeddings": True},
    "all heads": {"kv_heads": 4},
    "qwen2": {"attention_bias": True},
    "qwen3": {"qk_norm": True, "head_width": 12},
    "smollm3": {"no_rope_every": 2},
    "window": {"sliding_window": 4},
    "gemma2": LOCAL | GEMMA | {"score_cap": 0.5, "logit_cap": 2.0, "query_pre_attn_scalar": 3},
    "gemma3": LOCAL | GEMMA | {"qk_norm": True, "local_rope_theta": 70.0},
}
DOCUMENTS = [[(3, 5)], [], [(8, 8), (2, 2)], []]


def logits(model: VLM, batch: Batch) -> list[torch.Tensor]:
    """Logits of the prompts, and of five steps after them."""
    cache = KVCache(model.config, reserve=2)
    with torch.no_grad():
        found = [model(batch, output="last", cache=cache).logits]
        for step in range(5):
            tokens = torch.tensor([(7 * step + 3 * row) % 50 for row in range(4)])
            found.append(model(cache.next(tokens), output="last", cache=cache).logits)
    return found


def prepared(model: VLM, batch: Batch) -> list[torch.Tensor]:
    assert prepare(model.language)
    found = logits(model, batch)
    model.language.prepared = None
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("language", DECODERS.values(), ids=DECODERS)
def test_every_decoder_is_as_its_plain_layers(tiny, language: dict, dtype: torch.dtype) -> None:
    config = tiny.config(language=language)
    model, batch = tiny.model(config).to(dtype), tiny.batch(config, DOCUMENTS)
    plain = logits(model, batch)
    close = {"atol": 0.25, "rtol": 0.1} if dtype == torch.bfloat16 else {"atol": 2e-5, "rtol": 2e-5}
    torch.testing.assert_close(prepared(model, batch), plain, **close)


@pytest.mark.parametrize("fusion", [one for name, one in FUSIONS.items() if name != "autoregressive"])
def test_cross_attention_stands_between_prepared_layers(tiny, fusion: dict) -> None:
    config = tiny.config(fusion=fusion)
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    torch.testing.assert_close(prepared(model, batch), logits(model, batch), atol=2e-5, rtol=2e-5)


def memory(model: nn.Module) -> int:
    """Bytes of all storages that hold parameters."""
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in model.parameters()}
    return sum(storages.values())


def test_no_memory_is_added_and_parameters_stay_parameters(tiny, tmp_path) -> None:
    config = tiny.config(language={"attention_bias": True})
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    before, values = memory(model), {name: one.detach().clone() for name, one in model.named_parameters()}
    assert prepare(model.language)
    assert memory(model) == before
    first = model.language.prepared
    assert prepare(model.language)
    assert model.language.prepared is first
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, values[name])
    save_file(dict(model.named_parameters()), tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_size < before + 20_000
    with torch.no_grad():
        for parameter in model.parameters():  # as an optimizer does
            parameter.add_(0.03)
    fast = logits(model, batch)
    model.language.prepared = None
    torch.testing.assert_close(fast, logits(model, batch), atol=2e-5, rtol=2e-5)


def test_weights_that_were_replaced_are_prepared_again(tiny) -> None:
    config = tiny.config()
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    prepare(model.language)
    model.language.layers[0].attention.key.weight = nn.Parameter(torch.randn(16, 32))
    fast = prepared(model, batch)
    torch.testing.assert_close(fast, logits(model, batch), atol=2e-5, rtol=2e-5)


def test_copies_and_moved_models_are_plain_again(tiny) -> None:
    model = tiny.model(tiny.config())
    prepare(model.language)
    assert copy.deepcopy(model).language.prepared is None
    assert model.double().language.prepared is None


def test_layers_with_adapters_and_in_training_stay_plain(tiny) -> None:
    import peft

    model = tiny.model(tiny.config())
    assert not prepare(model.train().language)
    peft.inject_adapter_in_model(LoraConfig(target_modules=["attention.key"]), model.eval().language)
    assert not prepare(model.language)
    assert model.language.prepared is None


def test_gradients_run_through_the_plain_layers(tiny) -> None:
    config = tiny.config()
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    prepare(model.language)
    model(batch, output="loss").loss_sum.backward()
    assert all(parameter.grad is not None for parameter in model.language.layers.parameters())
