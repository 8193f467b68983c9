"""The verb `lorgnette data plan`: the samples of each step, and a check that a run trained on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from lorgnette.data.loader.batches import BatchBuilder
from lorgnette.data.plan.sample_ref import SampleRef, joined
from lorgnette.errors import DataError, LorgnetteError
from lorgnette.inputs.processor import Processor
from lorgnette.output import say
from lorgnette.run import Run
from lorgnette.train.data import build_data, stage_processor
from lorgnette.train.logging.log import read_log


class OtherData(LorgnetteError):
    """A run was trained on samples that differ from its plan."""


def steps_of(run: Run, processor: Processor, number: int) -> BatchBuilder:
    """Builder of the steps of a stage, as in training."""
    return build_data(run, number, stage_processor(processor, run, run.stages[number]))


def list_steps(console: Console, steps: BatchBuilder, first: int, last: int, names: bool) -> None:
    """Print each step with its digest, and its samples if `names`; then the digest of all steps."""
    digests = []
    for step in range(first, last):
        digests.append(steps.plan.digest(step))
        packs = [steps.refs(step, part) for part in range(steps.parts)]
        samples = sum(map(len, packs))
        _say(console, f"step {step}  {digests[-1]}  {len(packs)} packs, {samples} samples")
        if names:
            for line in _lines(steps, packs):
                _say(console, line)
    _say(console, f"steps {first}:{last}  {joined(digests)}")


def _lines(steps: BatchBuilder, packs: list[list[SampleRef]]) -> Iterator[str]:
    for number, pack in enumerate(packs):
        shown = [steps.plan.view(ref) for ref in pack]
        tokens, patches = sum(one.tokens for one in shown), sum(one.patches for one in shown)
        yield f"  pack {number}: at most {tokens:,} tokens and {patches:,} patches"
        yield from (f"    {steps.plan.name(ref)}" for ref in pack)


def verify(console: Console, run: Run, processor: Processor, folder: Path) -> None:
    """Compare the digest of every step in a run's log with the plan, and print the samples that were replaced.

    Raises: OtherData naming the first step that differs; DataError if the folder has no log of such a run.
    """
    rows = [row for row in read_log(folder / "log.jsonl") if {"data", "step"} <= row.keys()]
    if not rows:
        raise DataError(f"{folder}: log.jsonl is missing or has no digests of data; give the folder of a run")
    names = [stage.name for stage in run.stages]
    opened: dict[str, BatchBuilder] = {}
    replaced = 0
    for row in rows:
        stage, step = row["stage"], row["step"] - 1
        if stage not in names:
            raise OtherData(f"{folder}: has steps of a stage {stage!r}; the recipe has {', '.join(names)}")
        if stage not in opened:
            opened[stage] = steps_of(run, processor, names.index(stage))
        planned = opened[stage].plan.digest(step)
        if row["data"] != planned:
            raise OtherData(
                f"{folder}: step {step} of stage {stage} was trained on {row['data']}, but the plan has {planned}:"
                " settings, data or tokenizer differ from those of the run"
            )
        for sentence in row.get("replaced", ()):
            replaced += 1
            _say(console, f"step {step} of stage {stage}: {sentence}")
    for stage in opened:
        digests = [row["data"] for row in rows if row["stage"] == stage]
        _say(console, f"stage {stage}  {joined(digests)}  {len(digests)} steps trained as planned")
    if replaced:
        _say(console, f"{replaced} samples could not be used and were replaced, as the plan prescribes")


def _say(console: Console, line: str) -> None:
    say(console, line)
