"""Refusals of `load`, each a sentence that names the file and the fault; and the faults that it repairs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorgnette.errors import CheckpointError, LorgnetteError
from lorgnette.hub.export import export
from lorgnette.hub.load import load
from tests.hub.tiny import ROWS, SAMPLES, tiny_config, tiny_model, tiny_processor

LATENTS = "model.connector.perceiver_resampler.latents"
EMBEDDING = "model.text_model.embed_tokens.weight"


def setting(path: str, value: Any, file: str = "config.json") -> Callable[[Path], None]:
    """Change one setting of a JSON file: `text_config.hidden_size`."""

    def spoil(folder: Path) -> None:
        values = here = json.loads((folder / file).read_text())
        *groups, key = path.split(".")
        for group in groups:
            here = here[group]
        here[key] = value
        (folder / file).write_text(json.dumps(values))

    return spoil


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Change the stored tensors."""

    def spoil(folder: Path) -> None:
        held = load_file(folder / "model.safetensors")
        change(held)
        save_file(held, folder / "model.safetensors")

    return spoil


def written(file: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())


def removed(*files: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / file).unlink() for file in files]


def truncated(file: str, size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size])


def sharded(index: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return spoil


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "config.json missing": (removed("config.json"), r"holds no config.json"),
    "config.json not JSON": (written("config.json", "{"), r"config.json: is not JSON"),
    "config.json not text": (written("config.json", b"\xff\xfe{}"), r"config.json: is not JSON"),
    "config.json a list": (written("config.json", "[]"), r"config.json: holds a list"),
    "another model": (
        setting("model_type", "blip"),
        r"model_type is 'blip'; lorgnette opens idefics2, idefics, idefics3, smolvlm, llava and its own",
    ),
    "another decoder": (
        setting("text_config.model_type", "gpt2"),
        r"text_config: model_type is 'gpt2'; known decoders",
    ),
    "quantised": (setting("quantization_config", {"bits": 4}), r"the weights are quantised"),
    "a size that is text": (setting("vision_config.hidden_size", "wide"), r"vision_config: hidden_size is 'wide'"),
    "no heads": (setting("text_config.num_attention_heads", 0), r"num_attention_heads is 0; expected a whole number"),
    "heads that do not divide": (setting("text_config.num_key_value_heads", 3), r"4 query heads cannot share 3"),
    "an unknown activation": (setting("vision_config.hidden_act", "relu"), r"hidden_act is 'relu'; known are gelu_"),
    "another activation": (setting("text_config.hidden_act", "gelu"), r"hidden_act is 'gelu'; lorgnette knows 'silu'"),
    "part of a head": (setting("text_config.partial_rotary_factor", 0.5), r"partial_rotary_factor is not 1"),
    "a group that is text": (setting("text_config", "mistral"), r"text_config is a str; expected a group"),
    "too many layers": (setting("text_config.num_hidden_layers", 10**9), r"says 1000000004 layers, but there are 83"),
    "absurd sizes": (setting("vision_config.image_size", 14 * 10**12), r"says sizes that no tensor can have"),
    "another width": (setting("text_config.hidden_size", 40), r"latents is \[4, 32\] instead of \[4, 40\]"),
    "another vocabulary": (setting("text_config.vocab_size", ROWS - 1), r"is \[300, 32\] instead of \[299, 32\]"),
    "tied in config alone, no": (setting("image_token_id", 5), r"disagree on the id of the image token: 5 against 298"),
    "latents": (setting("image_seq_len", 9, "processor_config.json"), r"slots of an image in the text: 4 against 9"),
    "no weights": (removed("model.safetensors"), r"model.safetensors: no such file; a checkpoint needs its weights"),
    "a pickle": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        r"pytorch_model.bin is a pickle, save it as safetensors",
    ),
    "weights cut off": (truncated("model.safetensors", 20_000), r"model.safetensors: truncated, or not a safetensors"),
    "empty weights": (truncated("model.safetensors", 0), r"model.safetensors: truncated, or not a safetensors"),
    "a tensor missing": (tensors(lambda held: held.pop(LATENTS)), rf"the checkpoint lacks {re.escape(LATENTS)}"),
    "a tensor too many": (
        tensors(lambda held: held.update(surprise=torch.zeros(2))),
        r"holds surprise, which config.json does not account for",
    ),
    "a tensor of another shape": (
        tensors(lambda held: held.update({LATENTS: torch.zeros(4, 31)})),
        rf"{re.escape(LATENTS)} is \[4, 31\] instead of \[4, 32\]",
    ),
    "whole numbers": (
        tensors(lambda held: held.update({LATENTS: torch.zeros(4, 32, dtype=torch.int8)})),
        rf"{re.escape(LATENTS)} is of type I8, as in quantised checkpoints; lorgnette reads",
    ),
    "many missing": (
        tensors(lambda held: [held.pop(name) for name in list(held) if "vision_model" in name]),
        r"lacks model.vision_model.embeddings.patch_embedding.bias, .* and 32 more",
    ),
    "an index without a map": (sharded({}), r"index.json: has no weight_map"),
    "a shard elsewhere": (sharded({"weight_map": {"a": "../b"}}), r"places a in '../b', which is not a file of this"),
    "a shard missing": (sharded({"weight_map": {"a": "model-2.safetensors"}}), r"model-2.safetensors: no such file"),
    "a promise broken": (sharded({"weight_map": {"a": "model-1.safetensors"}}), r"lacks a, which .*index.json says"),
    "no tokenizer": (removed("tokenizer.json"), r"tokenizer.json: no such file"),
    "a broken tokenizer": (written("tokenizer.json", "{}"), r"tokenizer.json: cannot be read as a tokenizer"),
    "no image settings": (removed("processor_config.json"), r"holds neither processor_config.json nor preproc"),
    "odd image settings": (
        setting("image_processor.image_mean", [0.5], "processor_config.json"),
        r"mean and std need a value for each of the 3 channels",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), REFUSED.values(), ids=REFUSED)
def test_a_spoiled_folder_is_refused_in_one_sentence(copied: Path, spoil: Callable, message: str) -> None:
    spoil(copied)
    with pytest.raises(LorgnetteError, match=message) as caught:
        load(copied)
    assert str(copied) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for source, message in (
        (tmp_path, "holds no config.json"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "nothing", "no such folder"),
        ("nothing", "no such folder; give that of a checkpoint, or owner/name of one on the hub"),
        ("nobody/nothing", "no such folder here, and the hub did not give it"),  # tests run offline
    ):
        with pytest.raises(CheckpointError, match=message):
            load(source)


def test_a_run_is_opened_by_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: run\n")
    with pytest.raises(CheckpointError, match="the run has no model yet"):
        load(tmp_path)
    export(tiny_model(), tiny_processor(), tmp_path / "model")
    assert load(tmp_path)[0].config == tiny_model().config


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads what Linux says of a process's memory")
def test_loading_copies_no_weights(upstream: Path) -> None:
    """Parameters are the mapped file itself; only the few extra rows, parted from their table, are copies."""
    model, _ = load(upstream)
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(upstream) in line]
    mapped = [tuple(int(end, 16) for end in line[0].split("-")) for line in lines]
    copied = {
        name
        for name, parameter in model.named_parameters()
        if not any(first <= parameter.data_ptr() < last for first, last in mapped)
    }
    assert copied == {"language.embedding.extra", "language.head.extra"}


@pytest.mark.parametrize("tied", [False, True])
def test_missing_rows_are_repaired_with_a_message(
    make_upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture, tied: bool
) -> None:
    """A base checkpoint without a row for `<end_of_utterance>`: upstream fails with an index error."""
    folder = make_upstream(tmp_path / "base", tiny_config(tied_embeddings=tied))
    setting("text_config.vocab_size", ROWS - 1)(folder)
    tables = [name for name in load_file(folder / "model.safetensors") if name in (EMBEDDING, "lm_head.weight")]
    tensors(lambda held: held.update({name: held[name][:-1].clone() for name in tables}))(folder)
    model, processor = load(folder)
    assert "the tokenizer has 300 tokens but the embedding only 299 rows" in caplog.text
    assert model.config.vocabulary == processor.tokenizer.vocabulary == ROWS
    stored = load_file(folder / "model.safetensors")[EMBEDDING]
    torch.testing.assert_close(model.language.embedding.extra[-1], stored.mean(0))
    assert torch.equal(model.language.embedding.table, stored[: ROWS - 3])
    assert model(processor([SAMPLES[0]])).logits.isfinite().all()
    caplog.clear()
    again, _ = load(export(model, processor, tmp_path / "repaired", verify=True))
    assert torch.equal(again.language.embedding.extra, model.language.embedding.extra)
    assert not caplog.text


def test_a_head_stored_beside_its_embedding(make_upstream, tmp_path: Path) -> None:
    """Config says tied: an equal head counts once; a different one is used, as transformers does."""
    folder = make_upstream(tmp_path / "tied", tiny_config(tied_embeddings=True))
    other = Path(shutil.copytree(folder, tmp_path / "untied"))
    tensors(lambda held: held.update({"lm_head.weight": held[EMBEDDING].clone()}))(folder)
    tensors(lambda held: held.update({"lm_head.weight": held[EMBEDDING] + 1}))(other)
    model, _ = load(folder)
    assert model.config.language.tied_embeddings
    assert model.language.head is model.language.embedding
    untied, _ = load(other)
    assert not untied.config.language.tied_embeddings
    torch.testing.assert_close(untied.language.head.table, model.language.head.table + 1)


def test_special_tokens_far_from_the_end_stay_in_the_table(make_upstream, tmp_path: Path) -> None:
    padded = tiny_config(vocabulary=ROWS + 2000)
    folder = make_upstream(tmp_path / "padded", padded)
    model, _ = load(folder)
    assert (model.config.language.vocabulary, model.config.extra_vocabulary) == (ROWS + 2003, 0)
    near = make_upstream(tmp_path / "near", tiny_config(vocabulary=ROWS + 50))
    model, _ = load(near)
    assert (model.config.language.vocabulary, model.config.extra_vocabulary) == (ROWS - 3, 56)
