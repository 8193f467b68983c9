"""The trace of a step without memory is that of a real step; layers left out are counted as those traced."""

from __future__ import annotations

import pytest

from lorgnette.train.data import build_data
from lorgnette.train.optim import build_optimiser
from lorgnette.train.planner.memory import TRACED, TensorBytes, Trace, estimate
from lorgnette.train.setup import build
from lorgnette.train.stages import prepare_parts

KINDS = {
    "perceiver": "{projection_width: 48, latents: 4, depth: 2, heads: 2, head_width: 8, kv_heads: 1}",
    "linear": "{kind: linear}",
    "pixel shuffle": "{kind: pixel_shuffle, side: 2}",
}


BLOCKS = {
    "one block": "{kind: cross_attention, every: 5}",
    "five blocks": "{kind: cross_attention, every: 1, text_mlp: false}",
}


def first_pack(run):
    _, processor = build(run)
    return next(batch for batch in build_data(run, 0, processor).part(0, 0) if len(batch.images))


@pytest.mark.parametrize("mode", ["full", "frozen", "lora", "dora"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_trace_without_memory_is_the_trace_with_it(tiny, mode, checkpointed):
    run = tiny.override(f"stages.0.vision.mode={mode}", f"stages.0.language.mode={mode}")
    if checkpointed:
        run = run.override("stages.0.checkpointing=[vision, connector, language]")
    batch = first_pack(run)
    fake, real = (Trace(run, run.stages[0], batch, 1 + checkpointed, real=real) for real in (False, True))
    assert [one.part for one in fake.intervals] == [one.part for one in real.intervals]
    assert fake.peak(0) == pytest.approx(real.peak(0), rel=0.02)
    assert sum(fake.activations().values()) == pytest.approx(sum(real.activations().values()), rel=0.02)


@pytest.mark.parametrize("mode", ["frozen", "lora", "full"])
@pytest.mark.parametrize("connector", KINDS)
def test_layers_that_are_left_out_are_counted_as_if_they_were_traced(tiny, mode, connector, monkeypatch):
    run = tiny.override(
        f"stages.0.vision.mode={mode}", f"stages.0.language.mode={mode}",
        "model.vision.layers=6", "model.language.layers=5",
    )  # fmt: skip
    run = type(run).parse(run.plain() | {"model": run.plain()["model"] | {"connector": yaml_of(KINDS[connector])}})
    batch = first_pack(run)
    packs = 1 if connector == "linear" else 2
    short = Trace(run, run.stages[0], batch, packs)
    monkeypatch.setattr("lorgnette.train.planner.memory.TRACED", 100)
    whole = Trace(run, run.stages[0], batch, packs)
    assert len(whole.intervals) > len(short.intervals) > TRACED
    assert short.activations() == pytest.approx(whole.activations(), rel=0.01)
    assert short.peak(0) == pytest.approx(whole.peak(0), rel=0.01)


@pytest.mark.parametrize("checkpointing", ["[]", "[fusion, language]"])
@pytest.mark.parametrize("fusion", BLOCKS)
def test_blocks_between_layers_that_are_left_out_are_counted_too(tiny, fusion, checkpointing, monkeypatch):
    run = tiny.override(
        f"model.fusion={BLOCKS[fusion]}", "model.language.layers=5", f"stages.0.checkpointing={checkpointing}"
    )
    batch = first_pack(run)
    short = Trace(run, run.stages[0], batch, 2)
    monkeypatch.setattr("lorgnette.train.planner.memory.TRACED", 100)
    whole = Trace(run, run.stages[0], batch, 2)
    assert short.activations()["fusion"] > 0
    assert sum(short.activations().values()) == pytest.approx(sum(whole.activations().values()), rel=0.01)
    assert short.peak(0) == pytest.approx(whole.peak(0), rel=0.02)


def yaml_of(text):
    import yaml

    return yaml.safe_load(text)


def test_checkpointing_and_frozen_parts_take_less(tiny):
    plain = tiny.override("stages.0.vision.mode=full", "stages.0.language.mode=full")
    checkpointed = plain.override("stages.0.checkpointing=[vision, connector, language]")
    frozen = plain.override("stages.0.vision.mode=frozen", "stages.0.language.mode=frozen")
    batch, peaks = first_pack(plain), []
    for run in (plain, checkpointed, frozen):
        model, _ = build(run)
        prepare_parts(model, run.stages[0], seed=0)
        found = estimate(run, run.stages[0], model, [batch])
        assert found.peak > sum(one.weights + one.optimiser for one in found.parts.values())
        peaks.append(found)
    assert peaks[1].peak < peaks[0].peak and peaks[2].peak < peaks[0].peak
    states = 4 * batch.images.total * plain.model.vision.width
    assert peaks[2].parts["vision"].activations == states, "a frozen encoder keeps what it gives to the connector"


@pytest.mark.parametrize("checkpointing", ["[]", "[vision, connector, language]"])
@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
@pytest.mark.parametrize("mode", ["frozen", "lora", "full"])
def test_the_estimate_is_what_a_step_with_its_update_takes(tiny, mode, optimiser, checkpointing):
    run = tiny.override(
        f"stages.0.vision.mode={mode}", f"stages.0.language.mode={mode}", f"stages.0.optimiser={optimiser}",
        f"stages.0.checkpointing={checkpointing}", "stages.0.pack.packs_per_step=1", "stages.0.micro_batches=1",
        "model.language.width=64", "model.language.mlp_width=256", "model.language.layers=6",
    )  # fmt: skip
    batch, stage, (model, _) = first_pack(run), run.stages[0], build(run)
    prepare_parts(model, stage, seed=0)
    for name, part in model.stacks().items():
        part.checkpointed = name in stage.checkpointing
    updates, weights = build_optimiser(model.train(), stage), 4 * sum(one.numel() for one in model.parameters())
    with TensorBytes(weights) as counter:
        counter.know(model.parameters())
        for _ in range(2):  # the second finds moving averages
            model(batch, output="loss").loss_sum.backward()
            updates.step()
            updates.zero_grad()
    assert estimate(run, stage, model, [batch]).peak == pytest.approx(counter.peak, rel=0.05)
