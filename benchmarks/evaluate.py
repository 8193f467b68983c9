"""4-shot evaluation on the built-in benchmarks: lorgnette beside a loop over transformers' Idefics2, one by one.

    python benchmarks/evaluate.py [--limit N] [--threads 2] [--repeats 1] [--note "..."]

A tiny model with the same weights from the same files, greedy, in float32 on the CPU. Both sides are asked by the same
code, so they read the same rows, draw the same shots, store nothing and are scored alike; what differs is who answers.
transformers answers as a loop of its users would: its processor on the prompt and its pictures, `generate`, decode, for
one question after the other. Each side runs in a process of its own; the sides take turns `repeats` times. A row goes
to `benchmarks/results/evaluate.jsonl`. On a machine shared with other work, `cpu_speedup` is the steadier ratio.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from model_step import clock_ratio, conditions

from lorgnette.data.builtin.questions import tokenizer_texts
from lorgnette.eval.benchmark import Asking
from lorgnette.eval.models.base import Model, until_stop
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.eval.runner import evaluate
from lorgnette.eval.tasks import BENCHMARK_GROUPS, task_named
from lorgnette.hub.export import export
from lorgnette.hub.load import load
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, Sample

TASKS = (*BENCHMARK_GROUPS["builtin"], "doc_vqa")
SHOTS = 4
BATCH = 32
VOCABULARY = 1000
IMAGES = ImageConfig(shortest=112, longest=224, grid=16)


def write_model(folder: Path) -> None:
    """A model of 2 million parameters with random weights, as a folder that both sides open."""
    tokenizer = train_tokenizer(list(tokenizer_texts()), vocabulary=VOCABULARY)
    rows = tokenizer.vocabulary
    config = VLMConfig(
        vision=VisionConfig(width=128, layers=4, heads=4, mlp_width=512, grid=16),
        connector=PerceiverConfig(projection_width=384, latents=16, depth=1, heads=4, head_width=32, kv_heads=2),
        language=LanguageConfig(
            vocabulary=rows - 3, width=128, layers=4, heads=4, kv_heads=2, head_width=32, mlp_width=384
        ),
        image_token=tokenizer.id("<image>"),
    )
    export(VLM(config).initialise(0), Processor(tokenizer, IMAGES, config.connector), folder)


class Transformers(Model):
    """One prompt at a time through transformers' own processor and `generate`."""

    def __init__(self, folder: Path) -> None:
        sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]  # not needed, and slow or broken to import
        import transformers

        self.model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.processor = transformers.AutoProcessor.from_pretrained(folder)

    @torch.no_grad()
    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        return [self._answer(sample, max_tokens, stop) for sample in samples]

    def _answer(self, sample: Sample, max_tokens: int, stop: Sequence[str]) -> str:
        text = "".join("<image>" if isinstance(one, Image) else one.text for one in sample.segments)  # type: ignore[union-attr]
        pictures = [PIL.Image.open(io.BytesIO(image.source)).convert("RGB") for image in sample.images]  # type: ignore[arg-type]
        inputs = self.processor(text=text, images=pictures, return_tensors="pt")
        tokens = self.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        answer = self.processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return until_stop(answer, stop)


def measure(side: str, folder: Path, options: argparse.Namespace) -> None:
    """Print the figures of one side as JSON. A few questions first, so that nothing is timed that happens once."""
    torch.set_num_threads(options.threads)
    model: Model
    if side == "ours":
        model = LorgnetteModel(*load(folder), batch_size=BATCH)
    else:
        model = Transformers(folder)
    size = BATCH if side == "ours" else 1
    for name in TASKS:  # the files of the corpus are written, the code is warm; the store of latents is not
        evaluate(task_named(name, Asking(form="base")), model, limit=1, batch_size=size)
    if isinstance(model, LorgnetteModel):
        model = LorgnetteModel(model.model, model.processor, batch_size=BATCH)
    start, cpu = time.perf_counter(), time.process_time()
    found = {
        name: evaluate(task_named(name, Asking(shots=SHOTS)), model, limit=options.limit, batch_size=size)
        for name in TASKS
    }
    seconds, busy = time.perf_counter() - start, time.process_time() - cpu
    figures = {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(busy, 2),
        "busy_threads": round(busy / seconds, 2),
        "questions": sum(result.count for result in found.values()),
        "scores": {name: round(result.accuracy, 2) for name, result in found.items()},
        "metrics": {name: result.measured_by for name, result in found.items()},
        "answers": [example.answer for result in found.values() for example in result.examples],
    }
    print(json.dumps(figures))


def run_side(side: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    command += ["--threads", str(options.threads)]
    command += ["--limit", str(options.limit)] if options.limit else []
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the run in the middle, by processor seconds."""
    middle = statistics.median_low([run["cpu_seconds"] for run in runs])
    return dict(next(run for run in runs if run["cpu_seconds"] == middle))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, help="questions of each benchmark; all of them if not given")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--note", default="")
    parser.add_argument("--side", choices=["ours", "theirs"], help="measure one side in this process and print it")
    parser.add_argument("--folder", type=Path, help="with --side: the model")
    options = parser.parse_args()
    if options.side:
        return measure(options.side, options.folder, options)
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name) / "model")
        for _ in range(options.repeats):
            for side, done in runs.items():
                done.append(run_side(side, Path(name) / "model", options))
    ours, theirs = median(runs["ours"]), median(runs["theirs"])
    same = [mine == other for mine, other in zip(ours.pop("answers"), theirs.pop("answers"), strict=True)]
    row = {
        "benchmark": "evaluate",
        "tasks": list(TASKS),
        "shots": SHOTS,
        "batch": BATCH,
        "threads": options.threads,
        "repeats": options.repeats,
        "limit": options.limit,
        "ours": ours,
        "theirs": theirs,
        "equal_answers": sum(same),
        "speedup": clock_ratio(ours, theirs),
        "cpu_speedup": round(theirs["cpu_seconds"] / ours["cpu_seconds"], 2),
    }
    row |= conditions(options.note)
    print(json.dumps(row, indent=1))
    with (Path(__file__).parent / "results" / "evaluate.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
