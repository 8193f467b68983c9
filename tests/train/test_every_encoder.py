"""A run that starts from each family of vision encoders: joined, trained, measured, saved and answering."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console

from lorgnette.errors import SettingsError
from lorgnette.hub.export import save
from lorgnette.hub.load import load
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.run import Run
from lorgnette.sample import Sample
from lorgnette.train.data import build_data, stage_processor
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer
from lorgnette.train.planner.dry_run import measure
from lorgnette.train.setup import build, resolve
from lorgnette.train.stages import prepare_parts
from tests.hub.encoders.test_encoder_families import write_clip, write_dinov2, write_naflex, write_timm
from tests.hub.test_join import write_decoder

QUIET = Console(quiet=True)
CONNECTOR = {"projection_width": 48, "latents": 2, "depth": 1, "heads": 2, "head_width": 8, "kv_heads": 1}
ENCODERS = {
    "CLIP, class token kept": (write_clip, {"class_token": "kept"}),
    "CLIP before its last layer": (write_clip, {"skipped_layers": 1}),
    "DINOv2": (write_dinov2, {}),
    "NaFlex": (write_naflex, {}),
    "EVA-02-CLIP-E": (write_timm, {"norm_after": False}),
}
every_encoder = pytest.mark.parametrize("name", ENCODERS)


@pytest.fixture
def run_of(squares, tmp_path):
    """A run on a frozen decoder, with the encoder's own mode in its one stage."""

    def make(name: str, mode: str = "full") -> Run:
        write, chosen = ENCODERS[name]
        write(tmp_path / "vision")
        write_decoder(tmp_path / "language", "llama", {})
        stage = {
            "name": "join", "steps": 8, "pack": {"samples": 4, "packs_per_step": 1}, "lr": 0.01, "warmup": 1,
            "vision": {"mode": mode, "lr": 0.001}, "language": {"mode": "frozen"},
            "sources": [{"kind": "chat", "path": str(squares / "rows.jsonl")}],
        }  # fmt: skip
        values = {
            "name": "joined", "threads": 1, "loader": {"workers": 0}, "stages": [stage],
            "init": {"vision": str(tmp_path / "vision"), "language": str(tmp_path / "language")},
            "model": {"connector": CONNECTOR} | ({"vision": chosen} if chosen else {}),
        }  # fmt: skip
        return Run.parse(values)

    return make


@every_encoder
def test_it_trains_every_weight_that_it_may_and_comes_back(run_of, squares, tmp_path: Path, name: str) -> None:
    run = run_of(name)
    whole = resolve(run)
    assert {key: getattr(whole.model.vision, key) for key in ENCODERS[name][1]} == ENCODERS[name][1]
    before = {key: parameter.detach().clone() for key, parameter in build(run)[0].named_parameters()}
    trainer = Trainer(run, tmp_path / "run", QUIET)
    model = trainer.train()
    rows = [one["loss"] for one in read_log(tmp_path / "run" / "log.jsonl") if "loss" in one]
    assert len(rows) == 8 and rows[-1] < rows[0]
    moved = {key for key, parameter in model.named_parameters() if not torch.equal(parameter, before[key])}
    assert moved == {key for key in before if not key.startswith("language.") or key.endswith(".extra")}
    save(model, trainer.processor, tmp_path / "saved")
    again, processor = load(tmp_path / "saved")
    asked = [{"type": "image", "path": str(squares / "0.png")}, {"type": "text", "text": "What colour?"}]
    sample, settings = Sample.from_messages([{"role": "user", "content": asked}]), GenerationConfig(max_tokens=4)
    answers = [generate(one, processor, [sample], settings) for one in (model.eval(), again)]
    assert answers[0] == answers[1] and answers[0][0].tokens


@every_encoder
def test_the_memory_of_a_step_is_as_estimated(run_of, name: str) -> None:
    run = resolve(run_of(name))
    model, processor = build(run)
    stage = run.stages[0]
    prepare_parts(model, stage, seed=0)
    peak, _, estimated = measure(run, stage, model, build_data(run, 0, stage_processor(processor, run, stage)))
    assert estimated.peak == pytest.approx(peak, rel=0.05)


def test_positions_of_images_and_of_the_encoder_must_agree(tiny) -> None:
    with pytest.raises(SettingsError, match=r"images\.positions is parity, .* needs interpolated"):
        tiny.override("model.vision.position_rule=bicubic")
    with pytest.raises(SettingsError, match="needs parity or exact"):
        tiny.override("images.positions=interpolated")
    both = tiny.override("images.positions=interpolated", "model.vision.position_rule=bicubic", "images.longest=80")
    assert both.model.vision.interpolates


def test_other_settings_of_an_encoder_are_not_chosen_beside_its_weights(tiny) -> None:
    values = {name: value for name, value in tiny.plain().items() if name in ("name", "stages")}
    values |= {"init": {"vision": "a", "language": "b"}}
    assert not Run.parse(values | {"model": {"vision": {"class_token": "dropped"}}}).has_sizes
    assert not Run.parse(values | {"model": {"vision": {"class_token": "kept", "skipped_layers": 1}}}).has_sizes
