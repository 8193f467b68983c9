"""Measures of a trained cell: benchmarks with and without the right image, held-out losses, cost, and its curve."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lorgnette.eval.benchmark import Asking
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.eval.results.store import Result
from lorgnette.eval.runner import evaluate
from lorgnette.eval.tasks import names_in, task_named
from lorgnette.inputs.processor import Processor
from lorgnette.model.vlm import VLM
from lorgnette.run import Run
from lorgnette.study.config import StudyScale
from lorgnette.study.result_rows import TaskScores
from lorgnette.train import parallel
from lorgnette.train.logging.log import read_log
from lorgnette.train.stages import prepare_parts
from lorgnette.train.validation import Validation

MEASURING = 1
"""Version of what is measured: raised when a row of an earlier one is not the same measurement."""
CURVE_POINTS = 40
BATCH = 50
"""Questions that are asked at once."""


def measuring_digest(scale: StudyScale, run: Run, split: bool | None = None) -> str:
    """Twelve hex digits that name how a run is measured. split: see `StudyCell.split`."""
    sources = [[s.kind, s.model_dump(mode="json", exclude_defaults=True)] for s in run.validation.sources]
    values: list[Any] = [MEASURING, tasks_of(scale), scale.questions, scale.shots, scale.heldout, sources]
    if scale.curve_every:  # rows without are what they were before there were curves
        values.append({"curve": [scale.curve_every, scale.curve_questions]})
    if split is not None:
        values.append({"split": split})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def tasks_of(scale: StudyScale) -> list[str]:
    """Names of the benchmarks, groups resolved."""
    return names_in(",".join(scale.tasks))


def measure_tasks(
    model: VLM, processor: Processor, identity: str, scale: StudyScale, folder: Path
) -> dict[str, TaskScores]:
    """Ask each benchmark's questions with their images and with others'. Answers are stored; a killed call resumes."""
    answerer = LorgnetteModel(model.eval(), processor, identity=identity)
    found = {}
    for name in tasks_of(scale):
        task = task_named(name, Asking(shots=scale.shots))
        sighted, blind = (
            evaluate(task, answerer, blind=blind, limit=scale.questions, batch_size=BATCH, folder=folder / place / name)
            for place, blind in (("sighted", False), ("blind", True))
        )
        found[name] = _scores(sighted, blind)
    return found


def _scores(sighted: Result, blind: Result) -> TaskScores:
    numbers: dict[Any, int] = {}
    pictures = [numbers.setdefault(one.images or one.index, len(numbers)) for one in sighted.examples]
    asked = [sighted.measured_by, [one.name for one in sighted.examples]]
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
    scores, shuffled = ([round(one.score, 5) for one in result.examples] for result in (sighted, blind))
    return TaskScores(scores, shuffled, pictures, digest)


def heldout_losses(model: VLM, processor: Processor, run: Run, samples: int, *, shuffled: bool) -> dict[str, float]:
    """Mean cross-entropy of each of `validation.sources`, in nats a supervised token.

    shuffled: with the images of other samples.
    """
    settings = run.validation.model_copy(update={"every": 1, "samples": samples})
    checked, world = run.model_copy(update={"validation": settings}), parallel.start_distributed()
    return Validation(checked, run.stages[-1], processor, world, shuffled=shuffled).losses(model)


def training_cost(run: Run, log: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Sums over the log of training, and numbers of parameters; `trained` is of the stage with most. run: resolved."""
    sums = {key: sum(row[key] for row in log) for key in ("images", "tokens", "supervised_tokens", "flops")}
    with torch.device("meta"):
        counts = [prepare_parts(VLM(run.model), stage, seed=0) for stage in run.stages]
        parameters = sum(p.numel() for p in VLM(run.model).parameters())
    trained = max(sum(part.trainable for part in stage) for stage in counts)
    seconds = log[-1]["seconds"] if log else 0.0
    return {"steps": len(log), **sums, "seconds": seconds, "trained": trained, "parameters": parameters}


def loss_curve(log: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """At most `CURVE_POINTS` points of (steps, images, tokens, FLOPs, mean loss since the last point)."""
    size, points, spent = -(-len(log) // CURVE_POINTS) or 1, [], [0.0, 0.0, 0.0]
    for first in range(0, len(log), size):
        group = log[first : first + size]
        spent = [so_far + sum(row[key] for row in group) for so_far, key in zip(spent, _SPENT, strict=True)]
        points.append([float(first + len(group)), *spent, round(fmean(row["loss"] for row in group), 5)])
    return points


def score_curve(place: Path, log: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Points of (steps, images, tokens, FLOPs, score, held-out loss) at the measurements during training (Figure 4).

    place: folder of the run. The score is the mean of its benchmarks in percent, the loss the mean of its sources.
    """
    losses = {row["total_step"]: fmean(row["losses"].values()) for row in read_log(place / "validation.jsonl")}
    scores = {row["total_step"]: fmean(row["scores"].values()) for row in read_log(place / "evaluation.jsonl")}
    points, spent = [], [0.0, 0.0, 0.0]
    for number, row in enumerate(log, start=1):
        spent = [so_far + row[key] for so_far, key in zip(spent, _SPENT, strict=True)]
        if number in scores and number in losses:
            points.append([float(number), *spent, round(scores[number], 3), round(losses[number], 5)])
    return points


_SPENT = ("images", "supervised_tokens", "flops")
