"""What a base in 8 bits costs LoRA: the same tuning over the float decoder and over the rounded one (QLoRA's way).

    python benchmarks/lora_int8.py [--steps 60] [--seeds 3] [--mode lora]

The backbones that the package carries are joined and tuned on built-in questions, with `language.quantize` left out and
set to `int8`; seed, data and order are the same. `loss` is that of held-out questions after the last step, `final` the
mean over seeds; `weight_bytes` are those of the decoder while it trains, `cpu_seconds` of the process. A row goes to
`benchmarks/results/lora_int8.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from model_step import conditions
from rich.console import Console

from lorgnette.run import Run
from lorgnette.train.callbacks import Callback, TrainerState
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer

SOURCES = [{"kind": "instruct", "path": "builtin:train/instruct"}]


class DecoderBytes(Callback):
    """Bytes of the decoder's weights while it trains."""

    bytes = 0

    def on_step_end(self, run: Run, state: TrainerState, metrics: Any) -> None:
        self.bytes = sum(one.numel() * one.element_size() for one in state.model.language.layers.parameters())


def settings(steps: int, seed: int, mode: str, quantize: str | None) -> Run:
    stage: dict[str, Any] = {
        "name": "tune", "steps": steps, "sources": SOURCES, "lr": 0.001, "warmup": 5, "longest": 64,
        "pack": {"tokens": 512, "patches": 512, "packs_per_step": 2},
        "vision": {"mode": "frozen"}, "connector": {"mode": "full"},
        "language": {"mode": mode, "quantize": quantize},
        "lora": {"rank": 16, "alpha": 16, "dropout": 0.0, "keep": False},
    }  # fmt: skip
    values: dict[str, Any] = {
        "name": "lora-int8", "seed": seed, "threads": 1, "stages": [stage], "loader": {"workers": 0},
        "init": {"vision": "builtin:vision", "language": "builtin:language"},
        "images": {"shortest": 48, "longest": 64, "patch": 16, "grid": 8, "keep_aspect": True},
        "model": {"preset": "micro"},
        "validation": {"every": steps, "samples": 200},
    }  # fmt: skip
    return Run.parse(values)


def tuned(run: Run) -> dict[str, float]:
    """Held-out loss, bytes and CPU time of a run."""
    watch, before = DecoderBytes(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(run, Path(folder), Console(quiet=True), callbacks=[watch]).train()
        losses = read_log(Path(folder) / "validation.jsonl")[-1]["losses"]
    seconds = time.process_time() - before
    return {"loss": round(fmean(losses.values()), 5), "bytes": watch.bytes, "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--mode", choices=("lora", "dora"), default="lora")
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = {"float32": [], "int8": []}
    for seed in range(options.seeds):
        for side, rows in found.items():
            rows.append(tuned(settings(options.steps, seed, options.mode, None if side == "float32" else side)))
            print(seed, side, rows[-1], flush=True)
    row = {
        "benchmark": "lora_int8",
        "mode": options.mode,
        "steps": options.steps,
        "loss": {side: [one["loss"] for one in rows] for side, rows in found.items()},
        "final": {side: round(fmean(one["loss"] for one in rows), 4) for side, rows in found.items()},
        "weight_bytes": {side: rows[0]["bytes"] for side, rows in found.items()},
        "cpu_seconds": {side: [one["seconds"] for one in rows] for side, rows in found.items()},
    }
    row |= conditions(options.note)
    print(json.dumps(row, indent=1))
    with (Path(__file__).parent / "results" / "lora_int8.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
