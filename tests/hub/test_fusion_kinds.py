"""Models with cross-attention: saved and opened, answering as the reference does, refused where they have no place."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lorgnette.errors import CheckpointError, SettingsError
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.hub.describe import describe, lines
from lorgnette.hub.export import export, save
from lorgnette.hub.load import load
from lorgnette.infer.batch_invariance import examine
from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.generate import generate
from lorgnette.infer.image_cache import ImageFeatureCache
from lorgnette.infer.reference import generate_reference
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.processor import Processor
from lorgnette.model.config import LinearConfig, VLMConfig
from tests.hub.tiny import SAMPLES, picture, tiny_config, tiny_model, tiny_processor

FUSIONS = {
    "last": {"every": 2},
    "group": {"every": 1, "sees": "group", "gate": "vector", "text_mlp": False},
    "all": {"every": 1, "sees": "all", "qk_norm": False},
}
SETTINGS = GenerationConfig(max_tokens=5)
every_fusion = pytest.mark.parametrize("fusion", FUSIONS.values(), ids=FUSIONS)


def whole(fusion: dict) -> VLMConfig:
    """Images of unequal numbers of visual tokens, and gates that are open."""
    values = {"fusion": {"kind": "cross_attention", "gate_init": 1.5} | fusion, "connector": LinearConfig().plain()}
    return VLMConfig.parse(tiny_config().plain() | values)


@every_fusion
def test_it_is_saved_and_opened_in_lorgnettes_own_form(fusion, tmp_path):
    config = whole(fusion)
    model, processor = tiny_model(config), tiny_processor(config)
    save(model, processor, tmp_path / "saved")
    again, read = load(tmp_path / "saved")
    assert again.config == config and read.connector == config.slots
    stored = dict(again.named_parameters())
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.named_parameters())
    before, after = (generate(one, two, SAMPLES, SETTINGS) for one, two in ((model, processor), (again, read)))
    assert before == after
    said = "\n".join(lines(describe(tmp_path / "saved")))
    assert config.fusion.about in said and f"{sum(p.numel() for p in model.fusion.parameters()):,}" in said


@every_fusion
@pytest.mark.parametrize("split", [False, True])
def test_answers_are_the_references_alone_together_and_from_kept_visual_tokens(fusion, split):
    config = whole(fusion)
    model, processor = tiny_model(config), tiny_processor(config)
    expected = [generate_reference(model, processor, sample, SETTINGS, split=split) for sample in SAMPLES]
    assert generate(model, processor, SAMPLES, SETTINGS, split=split) == expected
    kept = ImageFeatureCache(model, processor, split=split)
    assert [generate(model, processor, SAMPLES, SETTINGS, image_cache=kept) for _ in range(2)] == [expected] * 2


@every_fusion
def test_answers_do_not_depend_on_the_batch(fusion):
    config = whole(fusion)
    found = examine(tiny_model(config), tiny_processor(config), [picture(60, 40), picture(84, 84, seed=1)])
    assert found.passed, found.verdict()


def test_an_image_has_one_slot_and_changes_the_answer():
    config = whole(FUSIONS["last"])
    model, processor = tiny_model(config), tiny_processor(config)
    batch = processor(SAMPLES)
    assert len(batch.visual_positions_V) == len(batch.grids) == 5
    other = processor([SAMPLES[0]])
    logits = [model(one, output="last").logits for one in (other, _inverted(other))]
    assert not torch.allclose(*logits, atol=1e-3)


def _inverted(batch):
    return dataclasses.replace(batch, patches_PC=255 - batch.patches_PC)


@every_fusion
def test_candidates_are_scored_from_a_cache_that_they_share(fusion):
    config = whole(fusion)
    model, processor = tiny_model(config), tiny_processor(config)
    answerer = LorgnetteModel(model, processor)
    candidates = [["the cat", "a mat"], ["blue"], ["red", "over", "circle"]]
    together = answerer.score(SAMPLES[:3], candidates)
    pairs = [(sample, text) for sample, texts in zip(SAMPLES[:3], candidates, strict=True) for text in texts]
    alone = [answerer.score([sample], [[text]])[0][0] for sample, text in pairs]
    assert [score for scores in together for score in scores] == pytest.approx(alone, abs=1e-4)


def test_it_is_refused_by_name_where_it_has_no_place(tmp_path):
    config = VLMConfig.parse(tiny_config().plain() | {"fusion": {"kind": "cross_attention", "every": 1}})
    model, processor = tiny_model(config), tiny_processor(config)
    with pytest.raises(CheckpointError, match=r"fusion is .* must be 'autoregressive'"):
        export(model, processor, tmp_path / "exported")
    with pytest.raises(SettingsError, match="use generate for a model with cross_attention"):
        Engine(model, processor)
    slots_of_each_token = Processor(processor.tokenizer, processor.images, config.connector)
    with pytest.raises(CheckpointError, match="disagree on slots of an image in the text: 1 against 4"):
        save(model, slots_of_each_token, tmp_path / "saved")
