"""Does few-shot after pre-training, or zero-shot after a short instruct probe, tell cells apart from seed noise?

    PYTHONPATH=. python benchmarks/calibrate_measure.py [--seeds 3] [--questions 200] [--steps 300]

Two cells that the paper says differ, the language model frozen and with LoRA (Table 3), are trained two ways with equal
steps: pre-training alone, asked with four solved examples as in the paper's ablations; and `recipes/study.yaml`, whose
second stage is an instruct probe, asked without any. Questions are about *validation* pictures, made afresh, so that no
test question chooses its own measure. For each measure a row of `benchmarks/results/calibrate_measure.jsonl` holds the
difference at each seed, and `separation`: its mean over the seeds' standard deviation. The same command resumes.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import torch

from benchmarks.model_step import conditions
from corpus.parts import PARTS
from lorgnette.data.parquet import write_rows
from lorgnette.eval.benchmark import Asking
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.eval.runner import evaluate
from lorgnette.eval.tasks import BENCHMARK_GROUPS, task_named
from lorgnette.hub.load import load
from lorgnette.output import new_console
from lorgnette.run import Run, find_recipe
from lorgnette.study.measures import heldout_losses
from lorgnette.train import loop
from lorgnette.train.setup import resolve

CELLS = ("frozen", "lora")
"""Modes of the language model."""
SHOTS = 4
HELDOUT = 64


def runs(seed: int, mode: str, steps: int, overrides: Sequence[str] = ()) -> dict[str, Run]:
    """The two ways of training a cell, in equally many steps."""
    base = Run.load(find_recipe("study"), [f"seed={seed}", *overrides])
    share = base.stages[0].steps / sum(stage.steps for stage in base.stages)
    first = max(1, round(share * steps))
    words = [f"stages.{number}.language.mode={mode}" for number in range(2)]
    probe = base.override(*words, f"stages.0.steps={first}", f"stages.1.steps={max(1, steps - first)}")
    alone = base.override(words[0], f"stages.0.steps={steps}")
    return {"few-shot": alone.model_copy(update={"stages": alone.stages[:1]}), "probe": probe}


def questions(folder: Path, count: int) -> dict[str, str]:
    """Files of questions about validation pictures, one for each benchmark of the score."""
    found = {}
    for name in BENCHMARK_GROUPS["builtin"]:
        part, path = PARTS[name], folder / f"{name}-{count}.parquet"
        if not path.exists():
            write_rows(path, part.maker()("validation", count, 0), pa.schema(list(part.columns)))
        found[name] = str(path)
    return found


def measures(way: str, run: Run, folder: Path, files: dict[str, str], count: int) -> Iterator[tuple[str, float]]:
    """Measures of one trained cell: scores in percent, and held-out losses in nats a token."""
    if not (folder / "model").is_dir():
        loop.train(run, folder, new_console(quiet=True))
    model, processor = load(folder / "model")
    data = {f"{name}/test": path for name, path in files.items()}
    asking = Asking(shots=SHOTS if way == "few-shot" else 0, data=data, incomplete=True)
    scores: dict[str, list[float]] = {"sighted": [], "blind": []}
    for name in files:
        task = task_named(name, asking)
        for condition, found in scores.items():
            answerer = LorgnetteModel(model.eval(), processor, identity=run.identity)
            place = folder / "eval" / condition / name
            result = evaluate(task, answerer, blind=condition == "blind", limit=count, batch_size=50, folder=place)
            found.append(result.accuracy)
            if condition == "sighted":
                yield name, result.accuracy
    means = {condition: statistics.fmean(found) for condition, found in scores.items()}
    yield "score", means["sighted"]
    yield "gain", means["sighted"] - means["blind"]
    losses = [heldout_losses(model, processor, resolve(run), HELDOUT, shuffled=shuffled) for shuffled in (False, True)]
    right, wrong = (statistics.fmean(loss.values()) for loss in losses)
    yield "loss", right
    yield "loss_gain", wrong - right


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=Path("runs/calibration"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "calibrate_measure.jsonl")
    parser.add_argument("--override", nargs="*", default=[], help="Settings of the base that are changed.")
    parser.add_argument("--note", default="")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    files = questions(options.folder, options.questions)
    found: dict[tuple[str, str, str], list[float]] = {}
    for seed in range(1, options.seeds + 1):
        for mode in CELLS:
            for way, run in runs(seed, mode, options.steps, options.override).items():
                place = options.folder / run.identity
                for measure, value in measures(way, run, place, files, options.questions):
                    found.setdefault((way, measure, mode), []).append(value)
                print(f"seed {seed}, {mode}, {way}: measured", flush=True)
    facts = {"seeds": options.seeds, "questions": options.questions, "steps": options.steps}
    with options.results.open("a", encoding="utf-8") as file:
        for way, measure in dict.fromkeys((way, measure) for way, measure, _ in found):
            row = separation(way, measure, found[way, measure, "lora"], found[way, measure, "frozen"])
            file.write(json.dumps(row | facts | conditions(options.note)) + "\n")
            print(f"{way:9} {measure:16} {row['difference']:+.3f}, separation {row['separation']:.1f}")


def separation(way: str, measure: str, lora: list[float], frozen: list[float]) -> dict[str, object]:
    """The difference of two cells as a row: its mean over the standard deviation that seeds give it."""
    apart = [one - other for one, other in zip(lora, frozen, strict=True)]
    spread = statistics.stdev(apart) if len(apart) > 1 else 0.0
    values = {"lora": lora, "frozen": frozen, "difference": statistics.fmean(apart)}
    size = abs(statistics.fmean(apart)) / spread if spread else 0.0
    return {"benchmark": "calibrate_measure", "way": way, "measure": measure, **values, "separation": size}


if __name__ == "__main__":
    main()
