"""Builds the data pipeline of a stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from lorgnette.data.loader.batches import BatchBuilder
from lorgnette.data.plan.mixture import PlannedSource
from lorgnette.data.plan.pack_plan import PackedPlan
from lorgnette.data.prepare import Prepared, prepare
from lorgnette.data.rejected import read_rejected
from lorgnette.data.sources.table import most_units
from lorgnette.errors import DataError
from lorgnette.inputs.processor import Processor
from lorgnette.run import Run, StageConfig
from lorgnette.untrusted import quoted


def stage_processor(processor: Processor, run: Run, stage: StageConfig) -> Processor:
    """The processor with images sized as the stage says."""
    images = run.stage_images(stage)
    return processor if images == processor.images else replace(processor, images=images)


def build_data(
    run: Run,
    stage_number: int,
    processor: Processor,
    *,
    folder: Path | None = None,
    rank: int = 0,
    world: int = 1,
) -> BatchBuilder:
    """The steps of a stage: what the loader reads, and what anyone can list without training.

    What has not been prepared is prepared now.
    folder: of the run, where counts are kept that let it go on at once; see `PackedPlan`.
    rank, world: which share of each step is wanted. Ranks never need to speak to each other about data.
    Raises: SettingsError if the stage's settings do not go together; DataError if a source cannot be used.
    """
    stage = run.stages[stage_number]
    processor = stage_processor(processor, run, stage)
    seed = run.seed * 1000 + stage_number
    prepared = tuple(prepare(config, processor) for config in stage.sources)
    for config, one in zip(stage.sources, prepared, strict=True):
        if not len(one.index):
            raise DataError(f"{config.title}: holds no row that can be trained on; {one.rejected} says why")
    planned = tuple(
        PlannedSource(config.title, one.index, config.weight, most_units(config))
        for config, one in zip(stage.sources, prepared, strict=True)
    )
    images, connector = processor.images, processor.connector
    plan = PackedPlan(planned, stage.pack, seed, images, connector, stage.augment, stage.weights)
    counts = None
    if folder is not None:
        counts = folder / f"packs-{stage.name}.json"
        plan.load_counts(counts)
    return BatchBuilder(plan, prepared, processor, run.model.vocabulary, rank, world, stage.micro_batches, counts)


def doubts(stage: StageConfig, steps: BatchBuilder) -> Iterator[str]:
    """Warnings about settings that are valid but probably unintended.

    steps: of the stage. Raises: DataError for a source of which nothing would be trained on.
    """
    if stage.warmup > stage.steps:
        yield (
            f"stage {stage.name!r}: its {stage.steps:,} steps end before its warm-up of {stage.warmup:,}, so that the"
            " learning rate never reaches its peak"
        )
    yield from (f"stage {stage.name!r}: {said}" for said in steps.plan.oversized())
    for one in steps.sources:
        yield from left_out(one)


def left_out(prepared: Prepared) -> Iterator[str]:
    """Sentences about rows of a source that are not trained on, and columns of images that are not read."""
    facts, title = prepared.facts, prepared.config.title
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in facts.get("reasons", {}).items() if count)
    if reasons:
        first = next(one for one in read_rejected(prepared.rejected) if one.rows)
        yield (
            f"{title}: {facts['refused']:,} of {facts['rows']:,} rows are not trained on ({reasons});"
            f" {first.file}, {first.place}: {first.reason}: {quoted(first.detail)}; all in"
            f" {prepared.rejected}"
        )
    for note, count in facts.get("notes", {}).items():
        if count:
            yield f"{title}: of {count:,} {'row' if count == 1 else 'rows'}: {note}; see {prepared.rejected}"
    yield from (f"{title}: {sentence}" for sentence in facts.get("unread", ()))


def prepare_stages(run: Run, processor: Processor, console: Console | None = None) -> None:
    """Prepare what any stage of a run trains on and has not been prepared, before the first of them starts.

    console: where progress is shown. Raises: as `lorgnette.data.prepare.prepare`.
    """
    for stage in run.stages:
        for config in stage.sources:
            prepare(config, processor, console=console)
