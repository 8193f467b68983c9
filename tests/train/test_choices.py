"""Every connector as a whole model: ways of computing, files and what is said of them, memory, training.

`test_cover.py` holds every pair of choices to what is cheaper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lorgnette.data.loader.batches import BatchBuilder
from lorgnette.errors import CheckpointError, LorgnetteError, SettingsError
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.hub.describe import describe, lines
from lorgnette.hub.export import export, save
from lorgnette.hub.load import load
from lorgnette.infer.batch_invariance import examine
from lorgnette.infer.generate import generate
from lorgnette.infer.image_cache import ImageFeatureCache
from lorgnette.infer.reference import generate_reference
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.processor import Processor
from lorgnette.model.configs.connector_settings import ConnectorSettings
from lorgnette.model.vlm import VLM
from lorgnette.run import Run
from lorgnette.train.data import build_data
from lorgnette.train.optim import build_optimiser
from lorgnette.train.planner import dry_run
from lorgnette.train.setup import build, build_processor
from lorgnette.train.stages import prepare_parts
from lorgnette.train.step import train_step
from tests.data.squares import row, write
from tests.hub.tiny import SAMPLES, picture
from tests.model.choices import CONNECTORS, FUSIONS, PAIRS

ANSWER = GenerationConfig(max_tokens=5)
every_pair = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
blocks = pytest.mark.parametrize("fusion", [name for name in FUSIONS if name != "autoregressive"])
RunOf = Callable[..., Run]


@pytest.fixture
def run_of(tiny) -> RunOf:
    """Make a tiny run with a connector and a fusion; its images are squares where the connector takes no others."""

    def make(connector: ConnectorSettings, fusion: Any = "autoregressive", *settings: str) -> Run:
        values = tiny.override("model.vision.width=24", "model.language.width=32").plain()
        values["model"] |= {"connector": connector.plain(), "fusion": fusion}
        if connector.only_grid:
            values["images"] |= {"policy": "square", "shortest": 32, "longest": 8 * connector.only_grid[0]}
        return Run.parse(values).override(*settings)

    return make


def drawn(run: Run, seed: int = 0) -> tuple[VLM, Processor]:
    """The model of a run with norms and biases that are not just ones and zeros, and its processor."""
    model, processor = build(run)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval(), processor


@every_pair
def test_no_way_of_computing_changes_an_answer(run_of, pair):
    model, processor = drawn(run_of(*pair))
    expected = [generate_reference(model, processor, sample, ANSWER) for sample in SAMPLES]
    assert generate(model, processor, SAMPLES, ANSWER) == expected, "the reference computes all tokens anew, alone"
    found = examine(model, processor, [picture(60, 40), picture(84, 84, seed=1)])
    assert found.passed, found.verdict()


@every_pair
def test_kept_visual_tokens_of_images_in_one_crop_and_in_five_give_the_same_answers(run_of, pair):
    model, processor = drawn(run_of(*pair))
    for split in (False, True):
        kept = ImageFeatureCache(model, processor, split=split)
        expected = generate(model, processor, SAMPLES, ANSWER, split=split)
        assert [generate(model, processor, SAMPLES, ANSWER, image_cache=kept) for _ in range(2)] == [expected] * 2
        batch, visual_VD = kept.prompts(SAMPLES)
        together = processor(SAMPLES, add_generation_prompt=True, split=split)
        assert torch.equal(batch.tokens_T, together.tokens_T)
        with torch.no_grad():
            torch.testing.assert_close(visual_VD, model.encode_images(together), atol=1e-5, rtol=1e-5)


@every_pair
def test_it_is_saved_and_opened_bit_for_bit(run_of, pair, tmp_path):
    connector, fusion, *_ = pair
    model, processor = drawn(run_of(*pair))
    config = model.config
    save(model, processor, tmp_path / "saved")
    again, read = load(tmp_path / "saved")
    assert again.config == config and read.connector == config.slots and read.images == processor.images
    stored = dict(again.named_parameters())
    assert stored.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.named_parameters())
    answers = [generate(one, two, SAMPLES[:1], ANSWER) for one, two in ((model, processor), (again, read))]
    assert answers[0] == answers[1]
    said = "\n".join(lines(describe(tmp_path / "saved")))
    assert connector.about in said and f"{sum(p.numel() for p in model.connector.parameters()):,}" in said
    if fusion != "autoregressive":
        assert config.fusion.about in said and f"{sum(p.numel() for p in model.fusion.parameters()):,}" in said
    if connector != CONNECTORS["perceiver"] or fusion != "autoregressive":
        with pytest.raises(CheckpointError, match=r"cannot hold connector\.kind=|must be '?(auto|decoder|32|Fal)"):
            export(model, processor, tmp_path / "exported")


@every_pair
def test_it_trains_beside_frozen_backbones_in_the_memory_that_was_estimated(run_of, pair):
    frozen = [f"stages.0.{part}.mode=frozen" for part in ("vision", "language")]
    run = run_of(*pair, *frozen, "stages.0.pack.samples=8", "stages.0.lr=0.02")
    stage = run.stages[0]
    model, processor = build(run)
    prepare_parts(model, stage, seed=0)
    steps, before = build_data(run, 0, processor), {name: p.detach().clone() for name, p in model.named_parameters()}
    first = train_step(model, steps.batches(0), build_optimiser(model, stage), stage.max_grad_norm)
    for name, parameter in model.named_parameters():
        trains = name.startswith(("connector.", "fusion.")) or name.endswith(".extra")
        assert (parameter.grad is not None and bool(parameter.grad.any())) == trains, name
    peak, _, memory = dry_run.measure(run, stage, model, steps)
    assert memory.peak == pytest.approx(peak, rel=0.05)
    optimiser = build_optimiser(model, stage)
    results = [train_step(model, steps.batches(step), optimiser, stage.max_grad_norm) for step in range(2, 5)]
    assert results[-1].loss < first.loss
    same = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert same == {name for name in before if name.startswith(("vision.", "language.")) and ".extra" not in name}
    assert generate(model.eval(), processor, SAMPLES[:1], ANSWER)[0].tokens


COUNTED = {name: (one, "autoregressive") for name, one in CONNECTORS.items() if one.token_width(1, 2) == 2}
COUNTED |= {name: pair for name, pair in PAIRS.items() if "tiles" in name}


@pytest.mark.parametrize("pair", COUNTED.values(), ids=COUNTED)
def test_samples_cost_what_the_plan_counts(run_of, pair, tmp_path):
    """Packs of a prepared source, whose images are split and enlarged by chance. Of tiles whose tags are text, the plan
    counts the longest tag for each.
    """
    folder = write(tmp_path / "data", [row(number) for number in range(30)])
    values = run_of(*pair).plain()
    source = {"kind": "instruct", "path": str(folder), "most_turns": 3}
    pack = {"tokens": 300, "patches": 400, "packs_per_step": 2}
    values["stages"][0] |= {"sources": [source], "pack": pack, "augment": {"split": 0.3, "upscale": 0.3}}
    run = Run.parse(values)
    steps = build_data(run, 0, build_processor(run))
    assert isinstance(steps, BatchBuilder)
    for ref in [ref for step in range(2) for ref in steps.plan.step(step)]:
        read, view = steps.read(ref), steps.plan.view(ref, shuffle=True)
        assert read.shape[0] == view.patches
        assert view.tokens == read.shape[1] or (run.images.policy == "tiles" and view.tokens > read.shape[1])


def test_images_are_sized_for_squares_of_patches(run_of):
    _, processor = build(run_of(CONNECTORS["pixel shuffle"]))
    assert processor.images.multiple == 2
    crops = [crop for sample in SAMPLES for crop in processor.render(sample, split=True).images]
    assert len({(crop.rows, crop.columns) for crop in crops}) > 1
    assert all(crop.rows % 2 == crop.columns % 2 == 0 for crop in crops)


def test_images_that_a_connector_cannot_take_are_refused_by_name(run_of, tiny):
    run = run_of(CONNECTORS["flat linear"])
    said = "every image must have 4 x 4 patches; set images.policy to square and images.longest to 32"
    for setting in ("images.policy=native", "stages.1.longest=24"):
        with pytest.raises(SettingsError, match=said):
            run.override(setting, "images.shortest=24")
    _, processor = build(run)
    with pytest.raises(SettingsError, match=said):
        dataclasses.replace(processor, images=processor.images.override("policy=native"))
    with pytest.raises(LorgnetteError, match=r"visual tokens are 24 wide, as the vision encoder, .* width 32; set"):
        run_of(CONNECTORS["perceiver of Idefics1"])


def test_an_image_has_one_slot_beside_blocks_and_changes_the_answer(run_of):
    model, processor = drawn(run_of(CONNECTORS["linear"], FUSIONS["last"]))
    batch = processor(SAMPLES)
    assert len(batch.visual_positions_V) == len(batch.grids) == 5
    other = processor([SAMPLES[0]])
    inverted = dataclasses.replace(other, patches_PC=255 - other.patches_PC)
    logits = [model(one, output="last").logits for one in (other, inverted)]
    assert not torch.allclose(*logits, atol=1e-3)


@blocks
def test_candidates_are_scored_from_a_cache_that_they_share(run_of, fusion):
    model, processor = drawn(run_of(CONNECTORS["linear"], FUSIONS[fusion]))
    answerer = LorgnetteModel(model, processor)
    candidates = [["the cat", "a mat"], ["blue"], ["red", "over", "circle"]]
    together = answerer.score(SAMPLES[:3], candidates)
    pairs = [(sample, text) for sample, texts in zip(SAMPLES[:3], candidates, strict=True) for text in texts]
    alone = [answerer.score([sample], [[text]])[0][0] for sample, text in pairs]
    assert [score for scores in together for score in scores] == pytest.approx(alone, abs=1e-4)


def test_slots_that_a_model_has_not_are_refused_by_name(run_of, tmp_path):
    model, processor = drawn(run_of(CONNECTORS["linear"], FUSIONS["last"]))
    slots_of_each_token = Processor(processor.tokenizer, processor.images, model.config.connector)
    with pytest.raises(CheckpointError, match="disagree on slots of an image in the text: 1 against 144"):
        save(model, slots_of_each_token, tmp_path / "saved")
