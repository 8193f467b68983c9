"""The answerer: batches change nothing, and shared prefixes score as whole documents do."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lorgnette.eval.models.base import Model
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.infer.generate import end_tokens
from lorgnette.inputs.processor import Processor
from lorgnette.model.vlm import VLM
from lorgnette.sample import Sample, Text, Turn
from tests.hub.tiny import SAMPLES, tiny_config, tiny_model, tiny_processor

PROMPTS = (*SAMPLES, Sample(()), Sample((Turn("user"), Text(""))))
CANDIDATES = (
    ["a cat", "red", "a circle over the mat"],
    ["the"],
    ["red", "blue", "red"],
    [" the mat", " the mat and", ""],
    [],
    ["the cat", "the mat"],
    ["x", "xy"],
)


@pytest.fixture(scope="module")
def processor() -> Processor:
    return tiny_processor()


def slow_score(model: VLM, processor: Processor, sample: Sample, text: str, split: bool | None) -> float:
    """The oracle: the whole document anew, its supervised tokens picked out one by one."""
    turn = (Turn("assistant"),) if sample.is_chat else ()
    whole = dataclasses.replace(sample, segments=(*sample.segments, *turn, Text(text, supervised=True)))
    batch = processor([whole], split=split)
    with torch.no_grad():
        scores_TK = model(batch).logits.double().log_softmax(-1)
    wanted = [(at, token) for at, token in enumerate(batch.targets_T.tolist()) if token >= 0]
    return sum(scores_TK[at, token].item() for at, token in wanted if token not in end_tokens(processor))


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("split", [None, True])
@pytest.mark.parametrize("language", [{}, {"sliding_window": 9}], ids=["mistral", "window"])
def test_scores_equal_whole_documents(
    processor: Processor, batch_size: int, split: bool | None, language: dict
) -> None:
    model = tiny_model(tiny_config(**language), seed=2)
    answerer = LorgnetteModel(model, processor, batch_size=batch_size, split=split)
    scores = answerer.score(PROMPTS, CANDIDATES)
    assert [len(row) for row in scores] == [len(row) for row in CANDIDATES]
    for sample, texts, found in zip(PROMPTS, CANDIDATES, scores, strict=True):
        expected = [slow_score(model, processor, sample, text, split) for text in texts]
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-4), sample.text


def test_images_are_seen_once_per_prompt(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = tiny_model(), []
    encode = VLM.encode_images
    monkeypatch.setattr(
        VLM, "encode_images", lambda self, batch: calls.append(len(batch.images)) or encode(self, batch)
    )
    LorgnetteModel(model, processor).score(SAMPLES, [["a", "b", "c"]] * len(SAMPLES))
    assert calls == [5]


def test_scoring_depends_on_the_images(processor: Processor) -> None:
    answerer = LorgnetteModel(tiny_model(), processor)
    blind = dataclasses.replace(
        SAMPLES[0], segments=(SAMPLES[0].segments[0], *SAMPLES[4].images, SAMPLES[0].segments[-1])
    )
    (seen,), (other,) = answerer.score([SAMPLES[0], blind], [["red"], ["red"]])
    assert abs(seen - other) > 1e-3


def test_generate_is_the_protocols(processor: Processor) -> None:
    model = tiny_model(seed=1)
    answerer: Model = LorgnetteModel(model, processor, identity="run 3, step 100", batch_size=2)
    assert answerer.identity == "run 3, step 100"
    texts = answerer.generate(SAMPLES, max_tokens=6)
    assert texts == LorgnetteModel(model, processor).generate(SAMPLES, max_tokens=6)
    assert any(len(text) > 1 for text in texts)
    letter = next(character for character in texts[0] if character.isprintable())
    assert all(letter not in text for text in answerer.generate(SAMPLES, max_tokens=6, stop=[letter]))
