"""Import then export is bit-equal, and transformers computes from our folder what we do."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from typer.testing import CliRunner

import lorgnette.hub.export
from lorgnette.cli import app
from lorgnette.errors import CheckpointError
from lorgnette.hub.export import export, save
from lorgnette.hub.formats.format import IDEFICS2, MODEL_FORMATS
from lorgnette.hub.load import load
from lorgnette.hub.parity import check_parity
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.config import ImageConfig
from lorgnette.model.config import VLMConfig
from tests.hub.tiny import SAMPLES, tiny_config, tiny_model, tiny_processor

MODELS = {
    "mistral": {},
    "mistral with a window": {"sliding_window": 6},
    "llama": {"family": "llama", "rope_theta": 5e5},
    "llama 3.1": {
        "family": "llama",
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "qwen2": {"family": "qwen2", "attention_bias": True, "sliding_window": 8},
    "qwen3": {"family": "qwen3", "qk_norm": True, "head_width": 16},
    "smollm3": {"family": "smollm3", "no_rope_every": 2},
    "phi3": {"family": "phi3"},
    "tied": {"tied_embeddings": True},
}


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def assert_bit_equal(first: Path, second: Path) -> None:
    ours, theirs = tensors_of(first), tensors_of(second)
    assert ours.keys() == theirs.keys()
    assert all(tensor.dtype == theirs[name].dtype for name, tensor in ours.items())
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("language", MODELS.values(), ids=MODELS)
def test_import_then_export_is_bit_equal(make_upstream, tmp_path: Path, language: dict) -> None:
    first = make_upstream(tmp_path / "first", tiny_config(**language))
    second = export(*load(first), tmp_path / "second")
    assert_bit_equal(first, second)
    third = save(*load(second), tmp_path / "third")
    assert_bit_equal(first, third)
    assert (third / "config.json").read_text() == (second / "config.json").read_text()


LOCAL = {"post_norms": True, "sliding_window": 6, "global_every": 2, "query_pre_attn_scalar": 3}
GEMMAS: dict[str, dict[str, Any]] = {
    "gemma": {},
    "gemma2": LOCAL | {"score_cap": 0.5, "logit_cap": 3.0},
    "gemma3_text": LOCAL | {"qk_norm": True, "local_rope_theta": 70.0},
}


@pytest.mark.parametrize("family", GEMMAS)
def test_a_whole_around_gemma_is_kept_in_lorgnettes_own_form(tmp_path: Path, family: str) -> None:
    gemma = {"family": family, "activation": "gelu_tanh", "norm_offset": True, "scaled_embedding": True}
    config = tiny_config(**gemma | GEMMAS[family], tied_embeddings=True)
    model = tiny_model(config)
    again, _ = load(save(model, tiny_processor(config), tmp_path / "saved"))
    stored = dict(again.named_parameters())
    assert again.config == config
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.named_parameters())


def test_half_precision_and_shards_stay_as_they_are(make_upstream, tmp_path: Path) -> None:
    first = make_upstream(tmp_path / "first", tiny_config(), dtype=torch.bfloat16, shards=True)
    assert len(list(first.glob("*.safetensors"))) > 1
    model, processor = load(first)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    whole, shards = (
        export(model, processor, tmp_path / "whole"),
        export(model, processor, tmp_path / "shards", shard_bytes=50_000),
    )
    assert [file.name for file in whole.glob("*.safetensors")] == ["model.safetensors"]
    index = json.loads((shards / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == len(list(shards.glob("*.safetensors"))) > 2
    assert all(file.stat().st_size < 55_000 for file in shards.glob("*.safetensors"))
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors_of(first).values())
    for folder in (whole, shards, save(*load(shards), tmp_path / "again")):
        assert_bit_equal(first, folder)


def test_a_dtype_and_device_can_be_asked_for(upstream: Path) -> None:
    model, _ = load(upstream, dtype=torch.float16, device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}


@pytest.mark.parametrize("language", MODELS.values(), ids=MODELS)
def test_transformers_computes_the_same_from_our_folder(tmp_path: Path, language: dict) -> None:
    config = tiny_config(**language)
    folder = export(tiny_model(config), tiny_processor(config), tmp_path / "model", verify=True)
    parity = json.loads((folder / "parity.json").read_text())
    assert parity["passed"]
    assert {*parity["parts"]} == {"vision", "connector", "language", "logits"}
    assert all(part["relative"] <= 1e-5 for part in parity["parts"].values())


def test_settings_of_images_that_transformers_cannot_obey_are_named_in_the_certificate(tmp_path: Path) -> None:
    images = tiny_processor().images.model_copy(update={"keep_aspect": True, "positions": "exact"})
    processor = dataclasses.replace(tiny_processor(), images=images)
    folder = export(tiny_model(), processor, tmp_path / "model", verify=True)
    parity = json.loads((folder / "parity.json").read_text())
    assert parity["passed"]
    assert parity["not_obeyed"] == {"keep_aspect": True, "positions": "exact"}
    assert load(folder)[1].images == images, "ours obeys them"


def test_the_demos_geometry_is_certified_by_the_command_line(tmp_path: Path) -> None:
    """Patches of 16 pixels, a grid of 8, aspects kept: what the demo trains."""
    config = VLMConfig.parse(
        tiny_config().plain() | {"vision": tiny_config().vision.plain() | {"patch": 16, "grid": 8}}
    )
    images = ImageConfig(patch=16, grid=8, shortest=48, longest=128, keep_aspect=True, positions="exact")
    processor = dataclasses.replace(tiny_processor(config), images=images)
    save(tiny_model(config), processor, tmp_path / "model")
    command = ["export", "--model", str(tmp_path / "model"), str(tmp_path / "out"), "--verify"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "images.keep_aspect = True" in done.output
    parity = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert parity["passed"]
    assert parity["not_obeyed"] == {"keep_aspect": True, "positions": "exact"}


@pytest.mark.parametrize("name", ["mistral with a window", "qwen2", "tied"])
def test_transformers_generates_the_same_tokens(tmp_path: Path, name: str) -> None:
    config = tiny_config(**MODELS[name])
    model, processor = tiny_model(config, seed=3), tiny_processor(config)
    folder = export(model, processor, tmp_path / "model")
    oracle = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    reader = transformers.AutoProcessor.from_pretrained(folder)
    asked = SAMPLES[:3]
    images = [[image.source for image in sample.images] for sample in asked]
    contents = [
        [{"type": "image"}] * len(shown) + [{"type": "text", "text": sample.text}]
        for shown, sample in zip(images, asked, strict=True)
    ]
    texts = [
        reader.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        for content in contents
    ]
    inputs = reader(text=texts, images=images, padding=True, padding_side="left", return_tensors="pt")
    with torch.no_grad():
        found = oracle.generate(**inputs, max_new_tokens=24, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    answers = generate(model, processor, asked, GenerationConfig(max_tokens=24))
    for answer, tokens in zip(answers, found.tolist(), strict=True):
        assert list(answer.tokens) == tokens[: len(answer.tokens)]
        assert set(tokens[len(answer.tokens) :]) <= {processor.tokenizer.pad}


def test_a_model_unknown_to_transformers_is_saved_but_not_exported(tmp_path: Path) -> None:
    plain = tiny_config().plain()
    plain["connector"]["projection_width"] = 20
    plain["isolate_documents"] = False
    config = VLMConfig.parse(plain)
    model, processor = tiny_model(config), tiny_processor(config)
    with pytest.raises(CheckpointError, match=r"projection_width is 20, but for transformers it must be 48"):
        export(model, processor, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
    again, _ = load(save(model, processor, tmp_path / "saved"))
    assert again.config == config
    batch = processor([SAMPLES[0]])
    assert torch.equal(model(batch).logits, again(batch).logits)


def test_settings_without_a_key_in_transformers_come_back(tmp_path: Path) -> None:
    plain = tiny_config().plain() | {"isolate_documents": False, "extra_vocabulary": 5}
    plain["language"]["vocabulary"] -= 2
    plain["vision"] |= {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    config = VLMConfig.parse(plain)
    again, processor = load(export(tiny_model(config), tiny_processor(config), tmp_path / "model"))
    assert again.config == config
    assert processor.images == tiny_processor().images


def test_what_transformers_saves_again_is_still_ours(tmp_path: Path) -> None:
    first = export(tiny_model(), tiny_processor(), tmp_path / "first")
    transformers.AutoModelForImageTextToText.from_pretrained(first).save_pretrained(tmp_path / "second")
    transformers.AutoProcessor.from_pretrained(first).save_pretrained(tmp_path / "second")
    model, processor = load(tmp_path / "second")
    assert model.config == tiny_config()
    assert_bit_equal(first, tmp_path / "second")
    assert processor([SAMPLES[2]]).tokens_T.tolist() == tiny_processor()([SAMPLES[2]]).tokens_T.tolist()


def test_export_replaces_an_earlier_export_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    export(tiny_model(seed=1), tiny_processor(), folder, shard_bytes=50_000)
    assert len(list(folder.glob("*.safetensors"))) > 2
    model, processor = load(folder)
    export(model, processor, folder)  # over the very files that are mapped
    assert [file.name for file in folder.glob("*.safetensors*")] == ["model.safetensors"], "no shard stays behind"
    assert_bit_equal(folder, export(tiny_model(seed=1), tiny_processor(), tmp_path / "other"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(CheckpointError, match=r"holds letter\.txt, which no export wrote"):
        export(model, processor, tmp_path / "home")
    with pytest.raises(CheckpointError, match="is a file"):
        export(model, processor, tmp_path / "home" / "letter.txt")
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "model", "other"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


STRANGERS = {
    ".git": ".git/",
    ".gitattributes": ".gitattributes",
    "notes.txt": "notes.txt",
    "checkpoint-500": "checkpoint-500/",
    "pytorch_model.bin": "pytorch_model.bin",
    "consolidated.safetensors": "consolidated.safetensors",
}


@pytest.mark.parametrize("write", [export, save], ids=["export", "save"])
@pytest.mark.parametrize("name", STRANGERS)
def test_what_no_export_wrote_is_named_and_kept(tmp_path: Path, name: str, write: Any) -> None:
    folder = export(tiny_model(), tiny_processor(), tmp_path / "clone")
    if "." in name[1:] or name == ".gitattributes":
        (folder / name).write_text("mine")
    else:
        (folder / name).mkdir()
        (folder / name / "HEAD").write_text("mine")
    before = contents(folder)
    with pytest.raises(CheckpointError, match=f"holds {re.escape(STRANGERS[name])}, which no export wrote"):
        write(tiny_model(seed=2), tiny_processor(), folder)
    assert contents(folder) == before


def test_a_card_that_somebody_changed_is_kept(tmp_path: Path) -> None:
    folder = export(tiny_model(), tiny_processor(), tmp_path / "model")
    card = folder / "README.md"
    text = card.read_text()
    card.write_text(text.replace("# model", "# My model, with a word of its history"))
    with pytest.raises(CheckpointError, match=r"README\.md: is not as an export wrote it"):
        export(tiny_model(), tiny_processor(), folder)
    card.write_text(text[: text.index("\n<!-- lorgnette")])  # a card of an earlier version
    export(tiny_model(), tiny_processor(), folder)
    assert card.read_text() == text


def test_a_checkpoint_of_somebody_else_is_not_replaced(copied: Path) -> None:
    before = contents(copied)
    with pytest.raises(CheckpointError, match="holds a checkpoint that lorgnette did not write"):
        export(tiny_model(), tiny_processor(), copied)
    assert contents(copied) == before


def test_a_file_that_appears_while_an_export_is_written_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export(tiny_model(), tiny_processor(), tmp_path / "model")
    write = lorgnette.hub.export.write_tensors

    def slow(*args: Any, **kwargs: Any) -> None:
        write(*args, **kwargs)
        (folder / "thesis.tex").write_text("mine")

    monkeypatch.setattr("lorgnette.hub.export.write_tensors", slow)
    with pytest.raises(CheckpointError, match=r"holds thesis\.tex"):
        export(tiny_model(seed=2), tiny_processor(), folder)
    assert (folder / "thesis.tex").read_text() == "mine"
    assert_bit_equal(folder, export_elsewhere(tmp_path / "other", monkeypatch, write))


def export_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch, write: Any) -> Path:
    monkeypatch.setattr("lorgnette.hub.export.write_tensors", write)
    return export(tiny_model(), tiny_processor(), folder)


def test_a_model_and_a_processor_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    plain = tiny_config().plain()
    plain["connector"]["latents"] = 8
    with pytest.raises(CheckpointError, match="disagree on slots of an image in the text: 8 against 4"):
        export(tiny_model(VLMConfig.parse(plain)), tiny_processor(), tmp_path / "model")


def test_a_certificate_finds_a_setting_read_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = IDEFICS2.read

    def misread(values: dict, where: str) -> VLMConfig:
        return read(values, where).override("language.norm_eps=0.01")

    folder = export(tiny_model(), tiny_processor(), tmp_path / "model")
    assert check_parity(folder).passed
    monkeypatch.setitem(MODEL_FORMATS, "idefics2", dataclasses.replace(IDEFICS2, read=misread))
    certificate = check_parity(folder)
    assert certificate.parts["connector"].relative < 1e-5 < certificate.parts["language"].relative
    with pytest.raises(CheckpointError, match=r"transformers computes something else \(.*language by"):
        certificate.checked()
    with pytest.raises(CheckpointError, match="does not come back: its settings"):
        export(tiny_model(), tiny_processor(), tmp_path / "other", verify=True)
    assert not (tmp_path / "other").exists()


def test_the_card_says_what_the_model_is(tmp_path: Path) -> None:
    folder = export(tiny_model(), tiny_processor(), tmp_path / "my-model")
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n")
    assert "# my-model" in card
    assert "ViT: 2 layers, width 24" in card
