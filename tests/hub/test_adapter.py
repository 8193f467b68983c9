"""Folders of PEFT are merged as PEFT itself merges them, or refused by name."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lorgnette.errors import CheckpointError, SettingsError
from lorgnette.hub.checkpoint_hash import checkpoint_digest, digest_with_adapter
from lorgnette.hub.export import export
from lorgnette.hub.load import load
from lorgnette.infer.generate import generate
from lorgnette.infer.generation_config import GenerationConfig
from lorgnette.model.adapted_layers import AdaptedLinear
from lorgnette.model.inference.prepared_layers import linears_of
from lorgnette.model.ops.int8_product import quantise_rows
from tests.hub.tiny import SAMPLES, tiny_config

QV = ["q_proj", "v_proj"]
KINDS: dict[str, dict[str, Any]] = {
    "LoRA": {"target_modules": ["q_proj"]},
    "DoRA, all linear layers": {"target_modules": "all-linear", "use_dora": True},
    "rsLoRA with patterns": {
        "target_modules": QV,
        "use_rslora": True,
        "rank_pattern": {"layers.0.self_attn.q_proj": 2},
        "alpha_pattern": {"text_model.*v_proj": 20},
    },
    "modules saved whole": {"target_modules": QV, "modules_to_save": ["modality_projection", "lm_head"]},
    "a regex for the encoder": {"target_modules": r".*vision_model.*(fc1|out_proj)"},
    "biases": {"target_modules": [*QV, "fc1"], "bias": "all"},
    "biases of adapted layers": {"target_modules": ["fc1"], "bias": "lora_only"},
    "a bias of the product": {"target_modules": ["fc1", "fc2"], "lora_bias": True},
    "the embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "trained tokens": {"target_modules": QV, "trainable_token_indices": {"embed_tokens": [5, 298, 7]}},
    "fan in fan out": {"target_modules": ["gate_proj"], "fan_in_fan_out": True},
    "the convolution": {"target_modules": ["patch_embedding"]},
    "DoRA of the convolution": {"target_modules": ["patch_embedding", "q_proj"], "use_dora": True},
    "DoRA of the embedding": {"target_modules": ["embed_tokens"], "use_dora": True},
}


def write_adapter(base: Path, folder: Path, **settings: Any) -> torch.nn.Module:
    """A trained-looking adapter of a model of transformers, saved by PEFT; the model that PEFT merges of it."""
    model = transformers.Idefics2ForConditionalGeneration.from_pretrained(base)
    adapted = peft.get_peft_model(model, peft.LoraConfig(**{"r": 4, "lora_alpha": 6} | settings))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    adapted.save_pretrained(folder)
    return adapted.merge_and_unload()


def own_names(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name.replace(".original_module", ""): tensor for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_an_adapter_is_merged_as_peft_merges_it(upstream: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    merged = write_adapter(upstream, tmp_path / "adapter", **settings)
    merged.save_pretrained(shutil.copytree(upstream, tmp_path / "merged"))
    ours, _ = load(tmp_path / "adapter")
    theirs, _ = load(tmp_path / "merged")
    before, _ = load(upstream)
    changed = 0
    for name, tensor in theirs.named_parameters():
        assert (tensor - ours.get_parameter(name)).abs().max() <= 1e-6, name
        changed += not torch.equal(tensor, before.get_parameter(name))
    assert changed


@pytest.mark.parametrize(
    "settings", [{"modules_to_save": ["embed_tokens", "lm_head"]}, {}], ids=["saved whole", "none"]
)
def test_an_adapter_of_a_tied_model(make_upstream, tmp_path: Path, settings: dict[str, Any]) -> None:
    base = make_upstream(tmp_path / "base", tiny_config(tied_embeddings=True))
    merged = write_adapter(base, tmp_path / "adapter", target_modules=QV, **settings).eval()
    model, processor = load(tmp_path / "adapter")
    assert model.config.language.tied_embeddings == (not settings)
    batch = processor([SAMPLES[1]])
    with torch.no_grad():
        theirs = merged(input_ids=batch.tokens_T[None]).logits[0]
    assert (model(batch).logits - theirs).abs().max() <= 1e-5 * theirs.abs().max()


EMBED, HEAD = {"target_modules": ["embed_tokens"]}, {"target_modules": ["lm_head"]}
TIED: dict[str, dict[str, Any]] = {
    "embedding": EMBED,
    "embedding by DoRA": EMBED | {"use_dora": True},
    "head": HEAD,
    "both": {"target_modules": ["embed_tokens", "lm_head"]},
    "embedding, kept tied": EMBED | {"ensure_weight_tying": True},
    "head, kept tied": HEAD | {"ensure_weight_tying": True},
    "embedding saved whole": {"target_modules": QV, "modules_to_save": ["embed_tokens"]},
    "embedding saved whole, kept tied": {
        "target_modules": QV,
        "modules_to_save": ["embed_tokens"],
        "ensure_weight_tying": True,
    },
    "head saved whole": {"target_modules": QV, "modules_to_save": ["lm_head"]},
    "rows": {"target_modules": QV, "trainable_token_indices": [5, 6]},
    "rows of each": {"target_modules": QV, "trainable_token_indices": {"embed_tokens": [5, 6], "lm_head": [7]}},
}


@pytest.mark.parametrize("settings", TIED.values(), ids=TIED)
def test_a_tied_model_computes_what_was_trained(make_upstream, tmp_path: Path, settings: dict[str, Any]) -> None:
    """Held to the adapter at work: PEFT's own merge changes the two tables together where they were trained apart."""
    base = make_upstream(tmp_path / "base", tiny_config(tied_embeddings=True))
    write_adapter(base, tmp_path / "adapter", **settings)
    model, processor = load(tmp_path / "adapter")
    below = transformers.Idefics2ForConditionalGeneration.from_pretrained(base)
    at_work = peft.PeftModel.from_pretrained(below, tmp_path / "adapter").eval()
    batch = processor([SAMPLES[1]])
    with torch.no_grad():
        theirs = at_work(input_ids=batch.tokens_T[None]).logits[0]
    assert (model(batch).logits - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_a_bias_where_the_model_has_none_is_refused(upstream: Path, tmp_path: Path) -> None:
    """Reading on would leave out what was trained; PEFT refuses to merge it too."""
    model = transformers.Idefics2ForConditionalGeneration.from_pretrained(upstream)
    settings = peft.LoraConfig(r=4, target_modules=["gate_proj"], lora_bias=True)
    peft.get_peft_model(model, settings).save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"trained a bias \(lora_bias\) for .*gate_proj.bias"):
        load(tmp_path / "adapter")


def test_an_adapter_of_an_adapter_is_told_to_merge(upstream: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_adapter(upstream, tmp_path / name, target_modules=QV)
    with pytest.raises(CheckpointError, match="first is an adapter too: merge that one first"):
        load(edited(tmp_path / "second", base_model_name_or_path=str(tmp_path / "first")))


def edited(folder: Path, **values: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


def test_the_base_is_found_beside_the_adapter_or_named(upstream: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    write_adapter(upstream, folder, target_modules=QV)
    shutil.copytree(upstream, tmp_path / "base")
    expected, _ = load(folder)
    again, _ = load(edited(folder, base_model_name_or_path="../base"))
    assert all(torch.equal(tensor, again.get_parameter(name)) for name, tensor in expected.named_parameters())
    for name in ("owner/nowhere", "/gone/away", "", None):
        with pytest.raises(CheckpointError, match="is an adapter") as caught:
            load(edited(folder, base_model_name_or_path=name))
        assert not name or name in str(caught.value)
        assert len(str(caught.value)) < 700


def test_an_adapter_is_given_to_a_model(upstream: Path, tmp_path: Path) -> None:
    """Whichever model it names, and refused where one of the two is not what it should be."""
    folder = tmp_path / "adapter"
    write_adapter(upstream, folder, target_modules=QV)
    expected, _ = load(folder)
    given, _ = load(upstream, adapter=edited(folder, base_model_name_or_path="/gone/away"))
    assert all(torch.equal(tensor, given.get_parameter(name)) for name, tensor in expected.named_parameters())
    with pytest.raises(CheckpointError, match="is an adapter itself"):
        load(edited(folder, base_model_name_or_path=str(upstream)), adapter=folder)
    with pytest.raises(CheckpointError, match=r"holds no adapter_config\.json, so it is no adapter"):
        load(upstream, adapter=upstream)
    digests = {digest_with_adapter(upstream, None), digest_with_adapter(upstream, folder), checkpoint_digest(folder)}
    assert len(digests) == 3


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"peft_type": "IA3"}, "peft_type is IA3; merge it with PEFT"),
    "a start that changed the base": ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is pissa_niter_4"),
    "layers given twice": ({"layer_replication": [[0, 1], [0, 1]]}, "layer_replication is .*merge it with PEFT"),
    "invocation tokens": ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens is"),
    "another rank": ({"r": 9}, "is of rank 4, but adapter_config.json says 9"),
    "a scale that is text": ({"lora_alpha": "big"}, "lora_alpha is big; expected a number"),
    "a pattern that is none": ({"alpha_pattern": {"(": 3}}, "alpha_pattern holds no pattern"),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_merged_is_refused_by_name(upstream: Path, tmp_path: Path, values: dict, message: str) -> None:
    write_adapter(upstream, tmp_path / "adapter", target_modules=QV)
    with pytest.raises(CheckpointError, match=message):
        load(edited(tmp_path / "adapter", **values))


def test_an_adapter_of_another_model_or_half_an_adapter(upstream: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    write_adapter(upstream, folder, target_modules=QV)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    half = dict(tensors)
    half.pop(next(name for name in half if "lora_B" in name))
    save_file(half, file)
    with pytest.raises(CheckpointError, match="has one of its two matrices only"):
        load(folder)
    save_file({name.replace("layers.0", "layers.9"): tensor for name, tensor in tensors.items()}, file)
    with pytest.raises(CheckpointError, match=r"layers\.9.*it is an adapter of another model"):
        load(folder)


def test_an_adapter_beside_weights_is_refused_by_name(copied: Path, tmp_path: Path) -> None:
    write_adapter(copied, tmp_path / "adapter", target_modules=QV)
    for file in (tmp_path / "adapter").iterdir():
        shutil.copy(file, copied / file.name)
    with pytest.raises(CheckpointError, match=re.escape("holds adapter_config.json beside a model")):
        load(copied)
    (copied / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds adapter_model.safetensors but no adapter_config.json"):
        load(copied)


def test_adapters_kept_in_the_weights_are_named(upstream: Path, copied: Path) -> None:
    model = transformers.Idefics2ForConditionalGeneration.from_pretrained(upstream)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=QV))
    save_file({name: t.contiguous() for name, t in adapted.state_dict().items()}, copied / "model.safetensors")
    with pytest.raises(CheckpointError, match="the weights hold adapters beside what they adapt"):
        load(copied)


ADAPTED = {name: settings for name, settings in KINDS.items() if name not in ("the embedding", "the convolution")}
del ADAPTED["DoRA of the embedding"]  # no linear layer is adapted


@pytest.mark.parametrize("settings", ADAPTED.values(), ids=ADAPTED)
def test_an_adapter_that_is_kept_answers_as_one_that_is_merged(
    upstream: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """The weights of linear layers stay as stored; what is no linear layer is merged."""
    write_adapter(upstream, tmp_path / "adapter", **settings)
    merged, processor = load(tmp_path / "adapter")
    kept, _ = load(tmp_path / "adapter", merge=False)
    before = dict(load(upstream)[0].named_parameters())
    adapted = {name: one for name, one in kept.named_modules() if isinstance(one, AdaptedLinear)}
    assert adapted
    assert all(torch.equal(one.base_layer.weight, before[f"{name}.weight"]) for name, one in adapted.items())
    batch = processor(SAMPLES)
    with torch.no_grad():
        ours, theirs = kept(batch).logits, merged(batch).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()), rtol=0)
    asked = GenerationConfig(max_tokens=4)
    answers = [[one.tokens for one in generate(model, processor, SAMPLES, asked)] for model in (kept, merged)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", ["DoRA, all linear layers", "rsLoRA with patterns"])
def test_an_adapter_is_kept_in_float_beside_8_bit_weights(upstream: Path, tmp_path: Path, name: str) -> None:
    """Held to the same adapter merged into the rounded weights, of which activations are rounded too."""
    write_adapter(upstream, tmp_path / "adapter", **KINDS[name])
    exact, processor = load(tmp_path / "adapter", merge=False)
    found, _ = load(tmp_path / "adapter", merge=False, quantize="int8")
    for layer in exact.language.layers:
        for linears in linears_of(layer):
            for one in linears:
                base = getattr(one, "base_layer", one)
                rounded, steps = quantise_rows(base.weight)
                base.weight.data = rounded * steps[:, None]
                if isinstance(one, AdaptedLinear):
                    one.share = one.shares(base.weight)
    batch = processor(SAMPLES)
    with torch.no_grad():
        ours, theirs = found(batch).logits, exact(batch).logits
    assert (ours - theirs).norm() < 0.05 * theirs.norm()
    with torch.no_grad():
        plain = load(upstream, quantize="int8")[0](batch).logits
    assert (plain - theirs).norm() > 2 * (ours - theirs).norm()


def test_nothing_to_keep_and_what_is_kept_is_not_written(upstream: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no adapter to keep"):
        load(upstream, merge=False)
    write_adapter(upstream, tmp_path / "table", target_modules=["embed_tokens"])
    with pytest.raises(SettingsError, match="adapts no linear layer"):
        load(tmp_path / "table", merge=False)
    write_adapter(upstream, tmp_path / "adapter", target_modules=QV)
    model, processor = load(tmp_path / "adapter", merge=False)
    with pytest.raises(CheckpointError, match="kept beside its weights"):
        export(model, processor, tmp_path / "out")
    given = upstream, tmp_path / "adapter"
    assert digest_with_adapter(*given) != digest_with_adapter(*given, merge=False)


def test_an_adapter_is_kept_beside_a_checkpoint_that_stores_integers(upstream: Path, tmp_path: Path) -> None:
    """As beside weights that are rounded when they are opened, to the bit; merging it would round twice."""
    write_adapter(upstream, tmp_path / "adapter", target_modules=[*QV, "down_proj"], use_dora=True)
    model, processor = load(upstream)
    folder = export(model, processor, tmp_path / "int8", quantize="int8")
    with pytest.raises(CheckpointError, match="whose weights are 8-bit integers; keep it beside them"):
        load(folder, adapter=tmp_path / "adapter")
    stored, _ = load(folder, adapter=tmp_path / "adapter", merge=False)
    now, _ = load(upstream, adapter=tmp_path / "adapter", merge=False, quantize="int8")
    plain, _ = load(folder)
    batch = processor(SAMPLES)
    with torch.no_grad():
        assert torch.equal(stored(batch).logits, now(batch).logits)
        assert not torch.equal(stored(batch).logits, plain(batch).logits)
