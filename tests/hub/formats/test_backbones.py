"""Parts of a whole as folders of their own: transformers computes the same with them, and we read the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from lorgnette.errors import CheckpointError
from lorgnette.hub.formats.backbones import write_language_backbone, write_vision_backbone
from lorgnette.hub.join import LanguageBackbone, VisionBackbone, build
from lorgnette.hub.source import SHIPPED, find_folder, shipped_backbones
from lorgnette.inputs.tokenizer import Tokenizer
from lorgnette.model.batch import SequenceLengths
from lorgnette.model.context import Context
from tests.house.source import ROOT
from tests.hub.tiny import tiny_config, tiny_model, tiny_processor, tiny_tokenizer

GEMMA = {"activation": "gelu_tanh", "norm_offset": True, "scaled_embedding": True, "tied_embeddings": True}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"tied_embeddings": True},
    "qwen2": {"attention_bias": True, "tied_embeddings": True},
    "qwen3": {"qk_norm": True},
    "smollm3": {"no_rope_every": 2, "tied_embeddings": True},
    "phi3": {},
    "gemma": GEMMA,
    "gemma2": GEMMA
    | {"post_norms": True, "sliding_window": 4, "global_every": 2, "score_cap": 0.5, "logit_cap": 3.0}
    | {"query_pre_attn_scalar": 3},
    "gemma3_text": GEMMA
    | {"post_norms": True, "qk_norm": True, "sliding_window": 4, "global_every": 2, "local_rope_theta": 70.0},
}


@torch.no_grad()
def test_transformers_sees_with_our_vision_encoder(tmp_path: Path) -> None:
    model, processor = tiny_model(), tiny_processor()
    write_vision_backbone(model, processor, tmp_path / "vision")
    oracle, report = transformers.SiglipVisionModel.from_pretrained(tmp_path / "vision", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    side = model.config.vision.grid * model.config.vision.patch
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (1, 3, side, side), generator=generator, dtype=torch.uint8)
    patch, grid = model.config.vision.patch, model.config.vision.grid
    patches_PC = torch.nn.functional.unfold(image.float(), patch, stride=patch)[0].T.to(torch.uint8)
    ours = model.vision(patches_PC, torch.arange(grid**2), ((grid, grid),))
    theirs = oracle.eval()(image / 127.5 - 1).last_hidden_state[0]
    assert relative(ours, theirs) <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_transformers_speaks_with_our_decoder(tmp_path: Path, family: str) -> None:
    config = tiny_config(family=family, **FAMILIES[family])
    model, folder = tiny_model(config), tmp_path / "language"
    write_language_backbone(model, tiny_processor(config), folder)
    oracle, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("the cat sat on the mat")["input_ids"]
    assert ids == [tokenizer.bos_token_id, *tiny_tokenizer().encode("the cat sat on the mat")]
    assert len(tokenizer) == config.language.vocabulary  # no token for images
    tokens_T = torch.tensor(ids)
    hidden_TD = model.language(
        model.language.embedding(tokens_T), Context(torch.arange(len(ids)), SequenceLengths((len(ids),)))
    )
    ours = model.language.head.logits(hidden_TD)[:, : config.language.vocabulary]
    assert relative(ours, oracle.eval()(tokens_T[None]).logits[0]) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_was_cut_out_can_be_joined_again(tmp_path: Path, dtype: torch.dtype) -> None:
    model, processor = tiny_model(), tiny_processor()
    write_vision_backbone(model, processor, tmp_path / "vision", dtype)
    write_language_backbone(model, processor, tmp_path / "language", dtype)
    other = tiny_model(seed=1)
    VisionBackbone.open(tmp_path / "vision").give_to(other)
    LanguageBackbone.open(tmp_path / "language").give_to(other)
    kept = dict(model.named_parameters())
    for name, tensor in other.named_parameters():
        same = torch.equal(tensor, kept[name].to(tensor.dtype))
        assert same != (name.startswith("connector.") or ".extra" in name), name
        assert tensor.dtype == (torch.float32 if name.startswith("connector.") else dtype)


SHIPPED_NAMES = shipped_backbones()
VISION = [name for name in SHIPPED_NAMES if name.startswith("builtin:vision")]
LANGUAGE = [name for name in SHIPPED_NAMES if name.startswith("builtin:language")]


def test_shipped_backbones_are_small_and_each_has_its_card() -> None:
    assert sorted(VISION + LANGUAGE) == SHIPPED_NAMES
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*")) < 18e6
    card = (ROOT / "docs/backbones.md").read_text(encoding="utf-8")
    assert all(f"\n## `{name}`\n" in card for name in SHIPPED_NAMES)


@pytest.mark.parametrize("language", LANGUAGE)
@pytest.mark.parametrize("vision", VISION)
@torch.no_grad()
def test_shipped_backbones_join(vision: str, language: str) -> None:
    model, processor = build(vision, language)
    opened = VisionBackbone.open(vision).config
    assert (model.config.vision.width, model.config.extra_vocabulary) == (opened.width, 3)
    assert processor.tokenizer.decode(processor.tokenizer.encode("a red apple")) == "a red apple"


@torch.no_grad()
def test_the_shipped_language_models_know_their_texts_the_weak_one_less() -> None:
    """Their loss on a text of the kind that they were trained on, in nats a token."""
    found = {}
    for name in LANGUAGE:
        words = LanguageBackbone.open(name)
        tokenizer = Tokenizer.load(words.weights.folder)
        oracle = transformers.AutoModelForCausalLM.from_pretrained(words.weights.folder, dtype=torch.float32).eval()
        text = "Two things: at the left a red apple, a kind of food; at the right a boat."
        ids = torch.tensor([tokenizer.encode(text)])
        found[name] = oracle(ids, labels=ids).loss.item()
    random = torch.log(torch.tensor(float(words.config.vocabulary)))
    assert found["builtin:language"] < found["builtin:language-weak"] < random and found["builtin:language"] < 4


def test_an_unknown_built_in_backbone_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"there are builtin:language, .* and builtin:vision"):
        find_folder("builtin:visoin")


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_weights_can_be_read_by_whoever_may_read_the_folder(tmp_path: Path) -> None:
    write_vision_backbone(tiny_model(), tiny_processor(), tmp_path / "vision")
    modes = {file.stat().st_mode & 0o777 for file in (tmp_path / "vision").iterdir()}
    assert len(modes) == 1, "safetensors makes its files for their owner alone"
