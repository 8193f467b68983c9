"""The benchmarks for a GPU run end to end on the CPU at a tiny size, and their checks see what is wrong."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.gpu import common, correct, generate, train_step
from lorgnette.model.ops import attention
from lorgnette.train.parallel import span_readers

torch.set_num_threads(1)
TINY = ["--size", "tiny", "--device", "cpu", "--peak-tflops", "0.1", "--peak-gbs", "10"]


def kept(folder, name: str) -> dict:
    return json.loads((folder / f"{name}.jsonl").read_text())


def test_train_step(tmp_path, monkeypatch) -> None:
    for module, name in span_readers():
        monkeypatch.setattr(module, name, getattr(module, name))  # compiling replaces it for the whole process
    short = ["--images", "3", "--text", "6", "--rank", "4", "--steps", "3", "--warmup", "1"]
    with torch.compiler.set_stance("force_eager"):  # the same path, without minutes of a compiler
        row = train_step.main([*TINY, *short, "--results", str(tmp_path), "--trace", str(tmp_path / "step")])
    assert kept(tmp_path, "gpu_train_step") == row
    for name in ("eager", "compiled"):
        figures = row[name]
        assert figures["losses"][-1] < figures["losses"][0], "nothing was learned from one batch"
        reached = figures["tflop_per_step"] / figures["seconds"]
        assert figures["mfu"] == pytest.approx(reached / 0.1, rel=0.02)
        assert figures["tokens_per_second"] == pytest.approx(3 * 16 / figures["seconds"], rel=0.02)
        assert json.loads((tmp_path / f"step.{name}.json").read_text())["traceEvents"]


def test_generate(tmp_path) -> None:
    row = generate.main([*TINY, "--prompts", "6", "--tokens", "5", "--repeats", "1", "--results", str(tmp_path)])
    assert kept(tmp_path, "gpu_generate") == row
    assert row["equal_tokens"] == 1.0
    share = row["gb_read"] / row["ours"]["decode_seconds"] / 10
    assert row["ours"]["bandwidth_share"] == pytest.approx(share, rel=0.02)


def test_bytes_of_decoding_are_those_of_the_weights_and_the_cache() -> None:
    config = common.MODELS["tiny"]
    model = common.random_model(config, "cpu", torch.float32)
    decoder = model.language
    weights = sum(p.numel() for part in (decoder.layers, decoder.norm, decoder.head) for p in part.parameters())
    cached = 2 * 2 * 2 * 16 * (4 + 5 + 8 + 9)  # layers, keys and values, heads, width; documents of 3 and 7 tokens
    assert generate.decode_bytes(config, [3, 7], 3, 4) == 4 * (2 * weights + cached)


def test_correct(tmp_path) -> None:
    row = correct.main(["--device", "cpu", "--results", str(tmp_path)])
    assert row["correct"], {name: row[name] for name in correct.CHECKS}
    assert kept(tmp_path, "gpu_correct") == row


@pytest.mark.parametrize("wrong", [{"causal": False, "window": None}, {"causal": True, "window": 15}])
def test_a_wrong_mask_is_seen(monkeypatch, wrong: dict) -> None:
    right = attention.attention
    monkeypatch.setattr(attention, "attention", lambda *tensors, causal, window: right(*tensors, **wrong))
    assert any("causal" in what for what in correct.off("attention", "cpu"))


def test_a_card_that_is_not_known_has_no_share() -> None:
    options = common.parser("").parse_args(["--device", "cpu"])
    assert common.peaks(options) == (None, None)
    assert common.share(1e12, None) is None
