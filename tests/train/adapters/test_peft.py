"""Adapters as PEFT writes them: those of layers whose rows are one tensor in a file become one adapter of it."""

from __future__ import annotations

import json

import pytest
import torch
from rich.console import Console

from lorgnette.hub.load import load
from lorgnette.train.loop import Trainer


@pytest.mark.parametrize("mode", ["lora", "dora"])
@pytest.mark.parametrize("targets", ["[query, value, gate, down]", "[query, key, value, output, gate, up, down]"])
def test_adapters_of_fused_layers_merge_to_the_trained_weights(tiny, tmp_path, mode, targets):
    run = tiny.override(
        "model.language.family=phi3", "stages.0.steps=3", "stages.1.steps=3", f"stages.1.language.mode={mode}",
        f"stages.1.lora={{rank: 2, dropout: 0, targets: {targets}}}", "stages.1.lr=0.05",
    )  # fmt: skip
    trained = dict(Trainer(run, tmp_path / "run", Console(quiet=True)).train().named_parameters())
    kept = tmp_path / "run" / "adapters" / "second"
    settings = json.loads((kept / mode / "adapter_config.json").read_text())
    fused = {name: rank for name, rank in settings["rank_pattern"].items() if name.endswith("qkv_proj")}
    assert len(fused) == 2 and set(fused.values()) == {2 * (3 if "key" in targets else 2)}
    settings["base_model_name_or_path"] = str(kept / "base")
    (kept / mode / "adapter_config.json").write_text(json.dumps(settings))
    before, merged = (dict(load(kept / one)[0].named_parameters()) for one in ("base", mode))
    for name in (name for name in trained if name.startswith("language.layers.") and "norm" not in name):
        torch.testing.assert_close(merged[name], trained[name], atol=1e-6, rtol=1e-5, msg=name)
        assert torch.equal(before[name], trained[name]) == (name.split(".")[-2] not in targets), name
