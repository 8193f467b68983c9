"""Every choice of the paper's recipes at micro size: it trains, resumes to the same bits, answers, is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from lorgnette.eval.shuffled_images import blinded
from lorgnette.hub.export import save
from lorgnette.hub.load import load
from lorgnette.hub.source import find_folder
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.model.config import VLMConfig
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.model.configs.vision_config import VisionConfig
from lorgnette.run import Run
from lorgnette.sample import Sample
from lorgnette.train.loop import Interrupted, Trainer
from tests.house.source import ROOT
from tests.train.watchers import StopAfter

QUIET = Console(quiet=True)
SIZES = ("width", "layers", "heads", "mlp_width", "patch", "grid")
SMALLER = {
    "flat_linear": {"side": 4, "tokens": 16},
    "mapping_network": {"constants": 16, "width": 32, "heads": 2, "mlp_width": 64},
}
"""Sizes of connectors for squares of 4 x 4 patches."""


def connector_of(model: VLMConfig) -> dict[str, Any]:
    """The connector's choice, beside the preset `micro`: a quarter of the visual tokens, the same depth."""
    connector = model.connector
    if not isinstance(connector, PerceiverConfig):
        return {"kind": connector.kind, **SMALLER.get(connector.kind, {})}
    chosen = {"latents": connector.latents // 4, "depth": connector.depth}
    return chosen if connector.projection_width else chosen | {"projection_width": None}


def twin(recipe: Run) -> dict[str, Any]:
    """Model, images and modes of a recipe of the paper's size, as overrides of the preset `micro`."""
    model, stage = recipe.model, recipe.stages[0]
    plain = VisionConfig().plain()
    vision = {key: value for key, value in model.vision.plain().items() if key not in SIZES and value != plain[key]}
    language = {
        "family": model.language.family,
        "sliding_window": 32 if model.language.sliding_window else None,
        "kv_heads": 4 if model.language.kv_heads == model.language.heads else 2,
    }
    fusion = {} if model.fusion == "autoregressive" else {"fusion": {"kind": "cross_attention", "every": 1}}
    square, longest = recipe.images.policy == "square", 64 if recipe.images.longest <= 378 else 128
    return {
        "model": {
            "preset": "micro",
            "vision": vision,
            "language": language,
            "connector": connector_of(model),
            **fusion,
        },
        "images": {
            "policy": recipe.images.policy,
            "shortest": longest if square else 48,
            "longest": longest,
            "patch": 16,
            "grid": 8,
            "resample": recipe.images.resample,
        },
        "modes": {part: getattr(stage, part).plain() for part in ("vision", "language")},
    }


def choices() -> dict[str, dict[str, Any]]:
    """Distinct twins, each by its first recipe."""
    paths = sorted((ROOT / "recipes/paper").rglob("*.yaml"))
    found = {f"{path.parent.name}/{path.stem}": twin(Run.load(path)) for path in paths}
    distinct = {json.dumps(chosen, sort_keys=True): name for name, chosen in reversed(found.items())}
    return {name: found[name] for name in found if name in distinct.values()}


CHOICES = choices()


def run_of(chosen: dict[str, Any], squares: Path) -> Run:
    stage = {
        "name": "ablation", "steps": 2, "pack": {"samples": 4, "packs_per_step": 1}, "lr": 0.01,
        "lora": {"rank": 2, "targets": ["query", "down"], "keep": False},
        "sources": [{"kind": "chat", "path": str(squares / "rows.jsonl")}],
    }  # fmt: skip
    values = {
        "name": "twin", "threads": 1, "loader": {"workers": 0}, "checkpoints": {"every": 1},
        "tokenizer": {"path": str(find_folder("builtin:language"))},
        "model": chosen["model"], "images": chosen["images"], "stages": [stage | chosen["modes"]],
    }  # fmt: skip
    return Run.parse(values)


def questions(squares: Path) -> list[Sample]:
    def asked(number: int) -> Sample:
        content = [{"type": "image", "path": str(squares / f"{number}.png")}, {"type": "text", "text": "What colour?"}]
        return Sample.from_messages([{"role": "user", "content": content}])

    return [asked(number) for number in (0, 10)]


@pytest.mark.parametrize("name", CHOICES)
def test_it_trains_resumes_to_the_same_bits_answers_sighted_and_blind_and_comes_back(name, squares, tmp_path):
    run = run_of(CHOICES[name], squares)
    trainer = Trainer(run, tmp_path / "whole", QUIET)
    model = trainer.train().eval()
    with pytest.raises(Interrupted, match="after step 1 of 2"):
        Trainer(run, tmp_path / "stopped", QUIET, callbacks=[StopAfter(1)]).train()
    resumed = dict(Trainer(run, tmp_path / "stopped", QUIET).train().named_parameters())
    assert all(torch.equal(parameter, resumed[key]) for key, parameter in model.named_parameters())

    save(model, trainer.processor, tmp_path / "model")
    again, processor = load(tmp_path / "model")
    assert again.config == run.model
    sighted = questions(squares)
    blind = list(map(blinded(sighted), range(len(sighted))))
    settings = GenerationConfig(max_tokens=2)
    for asked in (sighted, blind):
        answers = generate(model, trainer.processor, asked, settings)
        assert answers == generate(again, processor, asked, settings) and all(one.tokens for one in answers)
    with torch.no_grad():
        seen, unseen = (model(processor(asked), output="last").logits for asked in (sighted, blind))
    assert not torch.equal(seen, unseen), "what it is shown reaches the answer"
