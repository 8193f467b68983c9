"""A decoder in 8-bit integers: near its float weights, the same whatever stands beside a row, and never trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lorgnette.errors import CheckpointError, SettingsError
from lorgnette.hub.card import MEASURED, CardFacts
from lorgnette.hub.checkpoint_hash import checkpoint_digest
from lorgnette.hub.export import export
from lorgnette.hub.load import load
from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.generate import generate
from lorgnette.infer.generation_config import GenerationConfig
from lorgnette.model.inference.quantised import quantise
from lorgnette.model.ops import int8_product
from lorgnette.run import Run
from lorgnette.train.setup import build_model, resolve
from tests.hub.formats.test_llava import write_llava_folder
from tests.hub.tiny import SAMPLES, tiny_config, tiny_processor
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


@pytest.mark.parametrize("form", ["idefics2", "llava"])
@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_a_quantised_checkpoint_is_opened_as_if_it_were_quantised_now(tmp_path, form: str, family: str) -> None:
    """To the bit, its integers in a quarter of the bytes, and no float matrix of them in memory."""
    if form == "llava":
        model, processor = load(write_llava_folder(tmp_path / "upstream", tie_word_embeddings=False))
    else:
        model, processor = whole_model(tiny_config(family=family), seed=1), tiny_processor()
    export(model, processor, tmp_path / "float", format=form)
    rounded_from = checkpoint_digest(tmp_path / "float")
    facts = CardFacts(rounded_from=rounded_from)
    folder = export(model, processor, tmp_path / "int8", format=form, quantize="int8", facts=facts)
    now, _ = load(tmp_path / "float", quantize="int8")
    stored, processor = load(folder)
    assert stored.language.quantization == "int8"
    assert [name for name, _ in stored.named_parameters()] == [name for name, _ in now.named_parameters()]
    samples = [SAMPLES[0]] if form == "llava" else SAMPLES
    with torch.no_grad():
        batch = processor(samples)
        assert torch.equal(stored(batch).logits, now(batch).logits)
    config = json.loads((folder / "config.json").read_text())
    [group] = config["quantization_config"]["config_groups"].values()
    saved = safetensors.torch.load_file(folder / "model.safetensors")
    rounded = {name for name, tensor in saved.items() if tensor.dtype == torch.int8}
    assert rounded and all(saved[f"{name}_scale"].shape == (len(saved[name]), 1) for name in rounded)
    assert len(group["targets"]) == (4 if family == "phi3" and form == "idefics2" else 7)
    assert config["lorgnette"]["rounded_from"] == rounded_from
    card = (folder / "README.md").read_text()
    assert "Weights in 8 bits" in card and rounded_from in card


def test_what_a_quantised_checkpoint_cannot_is_refused_by_name(tmp_path, monkeypatch) -> None:
    folder = export(whole_model(seed=1), tiny_processor(), tmp_path / "model", quantize="int8")
    for options in ({"dtype": "bfloat16"}, {"device": "meta"}):
        with pytest.raises(SettingsError, match="quantize int8: computes on the CPU"):
            load(folder, **options)
    with pytest.raises(SettingsError, match="leave out it, or --quantize"):
        export(whole_model(), tiny_processor(), tmp_path / "other", quantize="int8", verify=True)
    with pytest.raises(SettingsError, match="is unknown"):
        export(whole_model(), tiny_processor(), tmp_path / "other", quantize="int3")
    run = Run.parse({"name": "more", "init": {"model": str(folder)}, "stages": [{"name": "one", "steps": 1,
        "sources": [{"kind": "chat", "path": "builtin:train/chat"}]}]})  # fmt: skip
    with pytest.raises(SettingsError, match="start from the model that they were rounded from"):
        build_model(resolve(run))
    monkeypatch.setattr(int8_product, "ENGINE", "elsewhere")
    with pytest.raises(SettingsError, match="needs the elsewhere engine"):
        load(folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"num_bits": 8', '"num_bits": 4'))
    with pytest.raises(CheckpointError, match="lorgnette reads 8-bit integers"):
        load(folder)


def test_cards_quote_the_row_that_was_measured() -> None:
    file = Path(__file__).parents[2] / "benchmarks" / "results" / "int8.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    said = [
        f"{row['answers_equal']:.0%} of {row['questions']} greedy answers".replace("%", " %")
        for row in rows
        if row["median_logit_change"] and f"changed by {row['median_logit_change']:.0%}".replace("%", " %") in MEASURED
    ]
    assert any(one in MEASURED for one in said)
