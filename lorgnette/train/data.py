"""Builds the data pipeline of a stage."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from lorgnette.data.config import AugmentConfig, MessagesConfig, PreparedConfig
from lorgnette.data.loader.batches import BatchBuilder, Steps
from lorgnette.data.plan.mixture import PlannedSource
from lorgnette.data.plan.pack_plan import PackedPlan
from lorgnette.data.plan.sample_ref import Plan
from lorgnette.data.prepare import Prepared, prepare
from lorgnette.data.rejected import read_rejected
from lorgnette.data.sources import open_source
from lorgnette.data.sources.messages import MessagesSource
from lorgnette.data.sources.table import most_units
from lorgnette.errors import DataError, SettingsError
from lorgnette.inputs.processor import Processor
from lorgnette.run import Run, StageConfig
from lorgnette.train.setup import stage_processor
from lorgnette.untrusted import quoted

PREPARED = typing.get_args(PreparedConfig)


def build_data(
    run: Run,
    stage_number: int,
    processor: Processor,
    *,
    folder: Path | None = None,
    rank: int = 0,
    world: int = 1,
) -> Steps | BatchBuilder:
    """The steps of a stage: what the loader reads, and what anyone can list without training.

    A stage with `pack` trains on packs of prepared sources (what has not been prepared is prepared now), one without on
    samples of sources that make them on demand.
    folder: of the run, where counts are kept that let it go on at once; see `PackedPlan`.
    rank, world: which share of each step is wanted. Ranks never need to speak to each other about data.
    Raises: SettingsError if the stage's settings do not go together; DataError if a source cannot be used.
    """
    stage = run.stages[stage_number]
    processor = stage_processor(processor, run, stage)
    seed = run.seed * 1000 + stage_number
    vocabulary = run.model.vocabulary
    if stage.pack is None:
        _refuse_what_packs_need(stage)
        most = run.model.language.max_positions
        sources = tuple(open_source(config, processor, most) for config in stage.sources)
        sizes = tuple(source.size for source in sources)
        plan = Plan(sizes, tuple(config.weight for config in stage.sources), stage.samples_per_step, seed)
        return Steps(plan, sources, processor, stage.micro_batches, vocabulary, rank, world, most)
    return _open_packed(stage, processor, seed, vocabulary, folder, rank, world)


def doubts(stage: StageConfig, steps: Steps | BatchBuilder) -> Iterator[str]:
    """Warnings about settings that are valid but probably unintended.

    steps: of the stage. Raises: DataError for a source of which nothing would be trained on.
    """
    if stage.warmup > stage.steps:
        yield (
            f"stage {stage.name!r}: its {stage.steps:,} steps end before its warm-up of {stage.warmup:,}, so that the"
            " learning rate never reaches its peak"
        )
    if isinstance(steps, BatchBuilder):
        yield from (f"stage {stage.name!r}: {said}" for said in steps.plan.oversized())
    prepared = [one for one in steps.sources if isinstance(one, Prepared)]
    if isinstance(steps, Steps):
        whole = [one for one in steps.sources if isinstance(one, MessagesSource)]
        yield from (f"{one.prepared.config.title}: {one.too_long}" for one in whole if one.too_long)
        prepared = [one.prepared for one in whole]
    for one in prepared:
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
    yield from (f"{title}: {sentence}" for sentence in facts.get("unread", ()))


def prepare_stages(run: Run, processor: Processor, console: Console | None = None) -> None:
    """Prepare what any stage of a run trains on and has not been prepared, before the first of them starts.

    console: where progress is shown. Raises: as `lorgnette.data.prepare.prepare`.
    """
    for stage in run.stages:
        for config in stage.sources:
            if isinstance(config, PREPARED) and (stage.pack is not None or isinstance(config, MessagesConfig)):
                prepare(config, processor, console=console)


def _open_packed(
    stage: StageConfig,
    processor: Processor,
    seed: int,
    vocabulary: int,
    folder: Path | None,
    rank: int,
    world: int,
) -> BatchBuilder:
    assert stage.pack is not None
    made = [config.kind for config in stage.sources if not isinstance(config, PREPARED)]
    if made:
        raise SettingsError(
            f"stage {stage.name!r}: `pack` needs the lengths of all samples, which sources of kind {', '.join(made)}"
            " do not have; leave out `pack`, or those sources"
        )
    if stage.micro_batches != 1:
        raise SettingsError(
            f"stage {stage.name!r}: with `pack` each pack is a batch of its own; leave out micro_batches, and set"
            " pack.packs_per_step"
        )
    configs = [config for config in stage.sources if isinstance(config, PREPARED)]
    prepared = tuple(prepare(config, processor) for config in configs)
    for config, one in zip(configs, prepared, strict=True):
        if not len(one.index):
            raise DataError(f"{config.title}: holds no row that can be trained on; {one.rejected} says why")
    planned = tuple(
        PlannedSource(config.title, one.index, config.weight, most_units(config))
        for config, one in zip(configs, prepared, strict=True)
    )
    images, connector = processor.images, processor.connector
    plan = PackedPlan(planned, stage.pack, seed, images, connector, stage.augment, stage.weights)
    counts = None
    if folder is not None:
        counts = folder / f"packs-{stage.name}.json"
        plan.load_counts(counts)
    return BatchBuilder(plan, prepared, processor, vocabulary, rank, world, counts)


def _refuse_what_packs_need(stage: StageConfig) -> None:
    """Raises: SettingsError for settings that only a stage with `pack` obeys."""
    prepared = [
        config.title
        for config in stage.sources
        if isinstance(config, PREPARED) and not isinstance(config, MessagesConfig)
    ]
    if prepared:
        raise SettingsError(
            f"stage {stage.name!r}: {', '.join(prepared)} is read from files, and trained on in packs: give the stage"
            " `pack`, for example pack: {tokens: 2048}"
        )
    if stage.augment != AugmentConfig() or stage.weights != "samples":
        raise SettingsError(
            f"stage {stage.name!r}: `augment` and `weights` are for packs of prepared sources; leave them out, or give"
            " `pack`"
        )
