"""A decoder in 8-bit integers: near its float weights, the same whatever stands beside a row, and never trained."""

from __future__ import annotations

import pytest
import torch

from lorgnette.errors import CheckpointError, SettingsError
from lorgnette.hub.export import export
from lorgnette.hub.load import load
from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.generate import generate
from lorgnette.infer.generation_config import GenerationConfig
from lorgnette.model.inference.quantised import quantise
from tests.hub.tiny import SAMPLES, tiny_processor
from tests.hub.tiny import tiny_model as whole_model
from tests.infer.engine.driving import answers, finish, request
from tests.model.test_prepared import DECODERS, DOCUMENTS, logits

pytestmark = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="this processor has no engine for int8"
)


@pytest.mark.parametrize("language", DECODERS.values(), ids=DECODERS)
def test_every_decoder_is_near_its_float_weights(tiny, language: dict) -> None:
    config = tiny.config(language=language)
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    exact = logits(model, batch)
    with torch.no_grad():
        whole = model(batch, output="last").logits
    quantise(model.language, "int8")
    rounded = logits(model, batch)
    for one, other in zip(rounded, exact, strict=True):
        assert not torch.equal(one, other)
        assert (one - other).norm() < 0.15 * other.norm()
    with torch.no_grad():
        again = model(batch, output="last").logits  # without a cache
    torch.testing.assert_close(again, rounded[0], atol=0.05 * float(whole.abs().max()), rtol=0)


def test_answers_of_the_engine_are_those_of_generate() -> None:
    model, processor = whole_model(seed=1), tiny_processor()
    quantise(model.language, "int8")
    settings = GenerationConfig(max_tokens=8)
    alone = [generate(model, processor, [sample], settings)[0] for sample in SAMPLES]
    engine = Engine(model, processor)
    for number, sample in enumerate(SAMPLES):
        engine.add(request(number, sample))
    found = answers(finish(engine))
    same = [found[str(number), 0].tokens == one.tokens for number, one in enumerate(alone)]
    assert sum(same) >= len(same) - 1  # attention sums in another order, which may move a number over a half


def test_it_is_loaded_answers_and_is_neither_trained_moved_nor_written(tmp_path) -> None:
    export(whole_model(seed=1), tiny_processor(), tmp_path / "model")
    model, processor = load(tmp_path / "model", quantize="int8")
    plain, _ = load(tmp_path / "model")
    layers = sum(one.numel() for one in plain.language.layers.parameters() if one.ndim == 2)
    count = sum(one.numel() for one in model.parameters())
    assert count == sum(one.numel() for one in plain.parameters()) - layers  # no float copy is kept
    assert len(generate(model, processor, SAMPLES, GenerationConfig(max_tokens=3))) == len(SAMPLES)
    with pytest.raises(CheckpointError, match="rounded to int8"):
        export(model, processor, tmp_path / "again")
    with pytest.raises(SettingsError, match="stays on the CPU in float32"):
        model.to(torch.bfloat16)
    with pytest.raises(SettingsError, match="quantised already"):
        quantise(model.language, "int8")
    model.connector.requires_grad_(True)
    with pytest.raises(SettingsError, match="no gradients"):
        model(processor.prompts(SAMPLES), output="logits")


WRONG = {
    "an unknown name": ({"quantize": "int3"}, "'int3': is unknown; use int8"),
    "half precision": ({"quantize": "int8", "dtype": "bfloat16"}, "not dtype torch.bfloat16"),
    "another device": ({"quantize": "int8", "device": "meta"}, "not device meta"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_refused(tmp_path, options: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(tmp_path, **options)
