"""Weights in unusual types, under unusual names, or beside settings that they cannot have: read, or refused at once."""

from __future__ import annotations

import json
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorgnette.errors import CheckpointError
from lorgnette.hub.join import LanguageBackbone, VisionBackbone
from lorgnette.hub.load import load
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from tests.hub.test_join import write_decoder, write_siglip
from tests.hub.tiny import SAMPLES, tiny_config

EMBEDDING = "model.text_model.embed_tokens.weight"
Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def change_tensors(folder: Path, change: Change) -> Path:
    held = change(load_file(folder / "model.safetensors"))
    save_file(
        {name: tensor.contiguous() for name, tensor in held.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def change_config(folder: Path, group: str = "", **values: Any) -> Path:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    (config[group] if group else config).update(values)
    file.write_text(json.dumps(config))
    return folder


def halves(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n: t.to(torch.float16 if "vision" in n else torch.bfloat16) for n, t in held.items()}


def norms(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n: t.float() if "norm" in n else t.to(torch.bfloat16) for n, t in held.items()}


@pytest.mark.parametrize("change", [halves, norms], ids=["two halves", "norms in float32"])
@pytest.mark.parametrize(
    ("said", "expected"),
    [("bfloat16", torch.bfloat16), ("torch.float16", torch.float16), ("float32", torch.float32), (None, torch.float32)],
)
def test_weights_of_several_types_become_one(copied: Path, change: Change, said: Any, expected: torch.dtype) -> None:
    change_config(change_tensors(copied, change), dtype=None, torch_dtype=said)
    model, processor = load(copied)
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    assert generate(model, processor, SAMPLES[:1], GenerationConfig(max_tokens=3))[0].tokens
    assert {one.dtype for one in load(copied, dtype="fp16")[0].parameters()} == {torch.float16}


def test_float64_is_read(copied: Path, upstream: Path) -> None:
    change_tensors(copied, lambda held: {name: tensor.double() for name, tensor in held.items()})
    expected, _ = load(upstream)
    found, processor = load(copied)
    for name, tensor in expected.named_parameters():
        assert torch.equal(tensor, found.get_parameter(name))
    assert generate(found, processor, SAMPLES[1], GenerationConfig(max_tokens=2))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.uint8, torch.bool], ids=str)
def test_quantised_weights_are_named(copied: Path, dtype: torch.dtype) -> None:
    change_tensors(copied, lambda held: held | {EMBEDDING: held[EMBEDDING].to(dtype)})
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight is of type \w+, as in quantised checkpoints"):
        load(copied)


def test_types_and_devices_by_name(upstream: Path) -> None:
    for name, dtype in (("bfloat16", torch.bfloat16), ("torch.float16", torch.float16), ("auto", torch.float32)):
        assert {one.dtype for one in load(upstream, dtype=name)[0].parameters()} == {dtype}
    for wrong in ("int8", "wide", torch.int8, 5):
        with pytest.raises(CheckpointError, match="lorgnette computes in float32, bfloat16 or float16"):
            load(upstream, dtype=wrong)  # type: ignore[arg-type]
    said = {"nowhere": "PyTorch cannot use it here", "mps": r"no MPS \(Apple GPU\) device here"}
    said |= {} if torch.cuda.is_available() else {"cuda": "no CUDA device here", "cuda:3": "no CUDA device here"}
    for device, why in said.items():
        with pytest.raises(CheckpointError, match=f"device {device}: {why} .*; use device='cpu'"):
            load(upstream, device=device)


PREFIXES: dict[str, Callable[[str], str]] = {
    "compiled": lambda name: f"_orig_mod.{name}",
    "in parallel": lambda name: f"module.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "of PEFT": lambda name: f"base_model.model.{name}",
    "a model within": lambda name: f"model.{name}",
    "of some trainer": lambda name: f"student.vlm.{name}",
    "a part compiled": lambda name: name.replace("text_model.", "text_model._orig_mod."),
    "layers compiled": lambda name: name.replace("layers.1.", "layers.1._orig_mod."),
}


@pytest.mark.parametrize("rename", PREFIXES.values(), ids=PREFIXES)
@pytest.mark.parametrize("tied", [False, True])
def test_prefixes_of_names_are_left_out(make_upstream, tmp_path: Path, rename: Callable, tied: bool) -> None:
    folder = make_upstream(tmp_path / "plain", tiny_config(tied_embeddings=tied))
    expected, _ = load(folder)
    change_tensors(folder, lambda held: {rename(name): tensor for name, tensor in held.items()})
    found, _ = load(folder)
    assert found.config == expected.config
    assert all(torch.equal(tensor, found.get_parameter(name)) for name, tensor in expected.named_parameters())


@pytest.mark.parametrize("rename", PREFIXES.values(), ids=PREFIXES)
def test_prefixes_in_backbones(tmp_path: Path, rename: Callable) -> None:
    write_siglip(tmp_path / "vision", whole=True)
    write_decoder(tmp_path / "language", "llama", {"tie_word_embeddings": True})
    for name, opened in (("vision", VisionBackbone.open), ("language", LanguageBackbone.open)):
        expected = opened(tmp_path / name)
        change_tensors(tmp_path / name, lambda held: {rename(name): tensor for name, tensor in held.items()})
        found = opened(tmp_path / name)
        assert found.config == expected.config
        names = [{one.removeprefix("model.") for one in backbone.weights.names} for backbone in (expected, found)]
        assert names[0] == names[1]


def test_a_tensor_under_two_names_is_refused(copied: Path) -> None:
    change_tensors(copied, lambda held: held | {f"module.{EMBEDDING}": held[EMBEDDING] + 1})
    with pytest.raises(CheckpointError, match="holds some tensors twice"):
        load(copied)


def test_a_tied_model_that_stores_its_head_alone(make_upstream, tmp_path: Path) -> None:
    folder = make_upstream(tmp_path / "tied", tiny_config(tied_embeddings=True))
    expected, _ = load(folder)
    change_tensors(folder, lambda held: {("lm_head.weight" if n == EMBEDDING else n): t for n, t in held.items()})
    found, _ = load(folder)
    assert found.language.head is found.language.embedding
    assert torch.equal(torch.cat(found.language.embedding.tables), torch.cat(expected.language.embedding.tables))
    write_decoder(tmp_path / "language", "llama", {"tie_word_embeddings": True})
    rename = {"model.embed_tokens.weight": "lm_head.weight"}
    change_tensors(tmp_path / "language", lambda held: {rename.get(n, n): t for n, t in held.items()})
    assert LanguageBackbone.open(tmp_path / "language").config.tied_embeddings


HUGE = 10**9
SIZES = [
    *(("text_config", key) for key in ("vocab_size hidden_size num_hidden_layers num_attention_heads".split())),
    *(("text_config", key) for key in ("intermediate_size num_key_value_heads head_dim").split()),
    *(("vision_config", key) for key in ("hidden_size num_hidden_layers num_attention_heads image_size").split()),
    *(("vision_config", key) for key in ("intermediate_size num_channels patch_size").split()),
    *(("perceiver_config", f"resampler_{key}") for key in ("n_latents", "depth", "n_heads", "head_dim")),
    ("perceiver_config", "num_key_value_heads"),
    ("", "image_token_id"),
]
TRIAL = """
import json, resource, sys
from pathlib import Path
from lorgnette.errors import LorgnetteError
from lorgnette.hub.join import LanguageBackbone, VisionBackbone
from lorgnette.hub.describe import describe
from lorgnette.hub.load import load
from lorgnette.inputs.processor import Processor

ways = {"load": load, "describe": describe, "vision": VisionBackbone.open, "language": LanguageBackbone.open}
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 1_000_000_000, resource.RLIM_INFINITY))
for file, group, key, value, way in json.load(sys.stdin):
    path = Path(file)
    good = path.read_text()
    values = json.loads(good)
    (values[group] if group else values)[key] = value
    path.write_text(json.dumps(values))
    try:
        ways[way](path.parent)
        outcome = "opened"
    except LorgnetteError as error:
        outcome = f"refused: {error}"
    path.write_text(good)
    print(f"{group} {key} {way} {outcome}", flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads what Linux says of a process's memory")
def test_huge_sizes_are_refused_before_anything_is_allocated(upstream: Path, tmp_path: Path) -> None:
    """In a process that may take a gigabyte more than it has: an attempt to allocate for 10^9 would end it."""
    whole = Path(shutil.copytree(upstream, tmp_path / "whole"))
    write_siglip(tmp_path / "vision")
    write_decoder(tmp_path / "language", "llama", {"num_key_value_heads": 2, "head_dim": 8})
    trials: list[tuple[str, str, str, Any, str]] = [
        (str(whole / "config.json"), group, key, HUGE, way) for group, key in SIZES for way in ("load", "describe")
    ]
    trials.append((str(whole / "processor_config.json"), "", "image_seq_len", HUGE, "load"))
    for group, key in SIZES:
        if group in ("text_config", "vision_config"):
            way = "language" if group == "text_config" else "vision"
            trials.append((str(tmp_path / way / "config.json"), "", key, HUGE, way))
    done = subprocess.run(
        [sys.executable, "-c", TRIAL],
        input=json.dumps(trials),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = done.stdout.splitlines()
    assert len(outcomes) == len(trials)
    opened = {line for line in outcomes if "refused" not in line}
    assert not opened, opened
    assert resource.RLIMIT_AS is not None


def test_a_tokenizer_with_far_more_ids_than_rows_is_refused(copied: Path) -> None:
    file = copied / "tokenizer.json"
    values = json.loads(file.read_text())
    values["model"]["vocab"]["faraway"] = 8_000_000
    file.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"the tokenizer has ids up to 8,000,000, but the embedding only 300"):
        load(copied)


LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a larger shape": lambda header: header[EMBEDDING].update(shape=[HUGE, HUGE]),
    "offsets beyond the end": lambda header: header[EMBEDDING].update(data_offsets=[0, 2**62]),
    "offsets backwards": lambda header: header[EMBEDDING].update(data_offsets=[100, 0]),
    "another type": lambda header: header[EMBEDDING].update(dtype="F64"),
    "no type": lambda header: header[EMBEDDING].update(dtype="F7"),
    "a negative shape": lambda header: header[EMBEDDING].update(shape=[-1, 32]),
    "no offsets": lambda header: header[EMBEDDING].pop("data_offsets"),
    "no numbers, and sizes beyond 64 bits": lambda header: header.update(
        empty={"dtype": "F32", "shape": [2**62, 0, 2**62], "data_offsets": [0, 0]}
    ),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_headers_that_lie_are_refused(copied: Path, lie: Callable) -> None:
    file = copied / "model.safetensors"
    content = file.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    lie(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: truncated, or not a safetensors file"):
        load(copied)
    file.write_bytes(struct.pack("<Q", 2**63) + content[8:])
    with pytest.raises(CheckpointError, match="truncated, or not a safetensors file"):
        load(copied)
