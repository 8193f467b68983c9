"""Adapters of a LLaVA: PEFT puts on those that were trained here, and those that it trained are merged here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from rich.console import Console

from lorgnette.hub.load import load
from lorgnette.run import Run
from lorgnette.train.loop import Trainer
from tests.hub.formats.test_llava import write_llava_folder
from tests.hub.tiny import SAMPLES


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava_folder(tmp_path_factory.mktemp("llava"), tie_word_embeddings=False)


def logits_there(model: torch.nn.Module, tokens_T: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.eval()(input_ids=tokens_T[None], pixel_values=pixels).logits[0]
    return out


@pytest.mark.parametrize("mode", ["lora", "dora"])
def test_what_was_trained_here_is_put_on_by_peft(llava: Path, squares: Path, tmp_path: Path, mode: str) -> None:
    stage: dict[str, Any] = {
        "name": "tune", "steps": 2, "lr": 0.05, "pack": {"tokens": 512, "patches": 512},
        "vision": {"mode": mode}, "connector": {"mode": "full"}, "language": {"mode": mode},
        "lora": {"rank": 2, "dropout": 0, "targets": ["query", "up", "head"]},
        "sources": [{"kind": "messages", "path": str(squares / "rows.jsonl")}],
    }  # fmt: skip
    run = Run.parse({"name": "tuned", "threads": 1, "init": {"model": str(llava)}, "stages": [stage]})
    Trainer(run, tmp_path / "run", Console(quiet=True)).train()
    kept = tmp_path / "run" / "adapters" / "tune"
    base = transformers.LlavaForConditionalGeneration.from_pretrained(kept / "base")
    named = dict(base.named_modules()).keys()
    settings = peft.LoraConfig.from_pretrained(kept / mode)
    assert named >= set(settings.target_modules) and "lm_head" in settings.target_modules
    assert settings.auto_mapping["base_model_class"] == "LlavaForConditionalGeneration"
    ours, processor = load(kept / mode)
    batch = processor([SAMPLES[0]])
    shown = transformers.CLIPImageProcessorPil.from_pretrained(llava)(SAMPLES[0].images[0].source, return_tensors="pt")
    before = logits_there(base, batch.tokens_T, shown["pixel_values"])
    adapted = peft.PeftModel.from_pretrained(base, kept / mode)
    theirs = logits_there(adapted, batch.tokens_T, shown["pixel_values"])
    assert (theirs - before).abs().max() > 1e-2
    torch.testing.assert_close(ours(batch).logits, theirs, atol=1e-4, rtol=1e-4)


KINDS: dict[str, dict[str, Any]] = {
    "all linear layers": {"target_modules": "all-linear", "use_dora": True},
    "patterns, the head": {
        "target_modules": ["q_proj", "lm_head"],
        "rank_pattern": {"model.language_model.layers.0.self_attn.q_proj": 2},
        "alpha_pattern": {"language_model.*q_proj": 20},
    },
    "saved whole": {"target_modules": ["fc1"], "modules_to_save": ["multi_modal_projector", "embed_tokens"]},
}


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_what_peft_trained_is_merged_here(llava: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    below = transformers.LlavaForConditionalGeneration.from_pretrained(llava)
    adapted = peft.get_peft_model(below, peft.LoraConfig(**{"r": 4, "lora_alpha": 6} | settings))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    adapted.save_pretrained(tmp_path / "adapter")
    ours, processor = load(llava, adapter=tmp_path / "adapter")
    batch = processor([SAMPLES[0]])
    shown = transformers.CLIPImageProcessorPil.from_pretrained(llava)(SAMPLES[0].images[0].source, return_tensors="pt")
    theirs = logits_there(adapted, batch.tokens_T, shown["pixel_values"])
    torch.testing.assert_close(ours(batch).logits, theirs, atol=1e-4, rtol=1e-4)
    plain = load(llava)[0](batch).logits
    assert (plain - theirs).abs().max() > 1e-2
