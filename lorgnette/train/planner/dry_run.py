"""Estimates memory, FLOPs and time of a run, and checks them with two real steps."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from statistics import fmean

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lorgnette.data.config import FilesConfig
from lorgnette.data.loader.batches import BatchBuilder
from lorgnette.data.loader.training_batch import TrainingBatch
from lorgnette.data.sources.reading.shards import is_url
from lorgnette.errors import CheckpointError
from lorgnette.hub.source import is_here
from lorgnette.model.batch import IGNORE_INDEX, SequenceLengths
from lorgnette.model.flops import ModelCost
from lorgnette.model.ops.device import AUTO, choose_device
from lorgnette.model.vlm import VLM
from lorgnette.output import say
from lorgnette.run import Run, StageConfig
from lorgnette.train import parallel
from lorgnette.train.data import build_data, doubts, stage_processor
from lorgnette.train.gradients import parallel_microbatches
from lorgnette.train.optim import build_optimiser, schedule, set_lr
from lorgnette.train.planner.memory import MemoryEstimate, TensorBytes, estimate
from lorgnette.train.setup import build, build_processor, check_fit, resolve
from lorgnette.train.stages import TrainablePart, pack_flops, prepare_parts
from lorgnette.train.step import train_step

_KINDS = ("weights", "gradients", "optimiser", "activations")
MOST_PARTS = 16
"""Most packs of a step that are built: all packs of a large step would take too long and too much memory."""
_SHORT = {"gradients": "grads", "optimiser": "optim.", "activations": "activ."}


@dataclass(frozen=True)
class Glance:
    """Packs of a stage's first step that stand for all of them.

    times: packs of the step over packs here, by which sums are scaled.
    """

    batches: list[TrainingBatch]
    times: float = 1.0
    steps: BatchBuilder | None = None
    """Builder that the packs come from; None where they are synthetic."""
    missing: str = ""
    """Reason why the packs are synthetic."""

    def cost(self, run: Run, stage: StageConfig) -> StepCost:
        """Cost of a step of the stage."""
        cost, batches = ModelCost(run.model), self.batches
        return StepCost(
            tokens=self.times * sum(batch.documents.total for batch in batches),
            supervised_tokens=self.times * sum(batch.supervised_tokens for batch in batches),
            images=self.times * sum(len(batch.images) for batch in batches),
            packs=self.times * len(batches),
            flops=self.times * sum(pack_flops(cost, stage, batch) for batch in batches),
        )


@dataclass(frozen=True)
class StepCost:
    """Cost of one step of a stage, estimated from the first packs of its plan; FLOPs are of forward and backward."""

    tokens: float
    supervised_tokens: float
    images: float
    packs: float
    flops: float


def dry_run(run: Run, console: Console) -> float | None:
    """Print the cost of every stage, then take two steps of the first stage and compare them with its estimate.

    Returns the mean seconds of these steps; None where they were skipped.
    The estimate needs only shapes: no weights are initialised or read. The two steps are skipped, and the reason is
    printed, where data or weights are missing or memory would not suffice.
    """
    starts = [name for name in (run.init.model, run.init.vision, run.init.language) if name]
    if run.has_sizes and (away := [name for name in starts if not is_here(name)]):
        say(console, f"note: {away[0]} is not here, so the recipe's sizes are not compared with it")
    else:
        check_fit(run)
    run = resolve(run)
    torch.set_num_threads(run.threads or torch.get_num_threads())
    say(console, run.name, style="bold", end="")
    say(console, f": {_start(run)}")
    seconds: float | None = None
    for number, stage in enumerate(run.stages):
        with torch.device("meta"):
            model = VLM(run.model)
            parts = prepare_parts(model, stage, seed=run.seed)
        glance = first_packs(run, number)
        memory = estimate(run, stage, model, glance.batches)
        _print_stage(console, run, stage, parts, memory, glance)
        packs = stage.pack.packs_per_step * stage.micro_batches
        if (at_once := min(packs, parallel_microbatches(run, stage, parallel.start_distributed(run.device)))) > 1:
            more = (at_once - 1) * sum(one.activations for one in memory.parts.values())
            say(
                console,
                f"Up to {at_once} packs are computed at once on the CPU (parallel_microbatches): their activations take"
                f" up to {mib(more)} MiB more.",
            )
        for sentence in doubts(stage, glance.steps) if glance.steps else ():
            say(console, sentence, style="yellow")
        if not number:
            seconds = _check(console, run, glance, memory.peak)
    return seconds


def first_packs(run: Run, number: int, steps: int = 1) -> Glance:
    """Packs of the first steps of a stage, or synthetic ones where data or weights are not here. run: resolved."""
    stage = run.stages[number]
    away = [one.path for one in stage.sources if isinstance(one, FilesConfig) and not _is_here(one.path)]
    if away:
        return Glance([_full_pack(run, stage)], stage.pack.packs_per_step, missing=f"{away[0]} is not here")
    try:
        processor = build_processor(run)
    except CheckpointError as error:
        return Glance([_full_pack(run, stage)], stage.pack.packs_per_step, missing=str(error))
    data = build_data(run, number, stage_processor(processor, run, stage))
    steps = min(steps, stage.steps)
    packs = [batch for step in range(steps) for batch in _packs(data, step)]
    return Glance(packs, data.parts / min(data.parts, MOST_PARTS) / steps, data)


def _packs(steps: BatchBuilder, step: int) -> list[TrainingBatch]:
    """The first packs of a step."""
    return [batch for part in range(min(steps.parts, MOST_PARTS)) for batch in steps.part(step, part)]


def _is_here(path: str) -> bool:
    return is_url(path) or path.startswith("builtin:") or Path(path).exists() or bool(glob(path, recursive=True))


def _full_pack(run: Run, stage: StageConfig) -> TrainingBatch:
    """Build a synthetic pack of full length: one document, up to half of it images of the largest size, the rest
    supervised text. Only its shapes matter.
    """
    images, tokens = run.stage_images(stage), stage.pack.tokens
    side = images.crop_side // images.patch // run.model.connector.multiple * run.model.connector.multiple
    slot = run.model.slots.visual_tokens(side, side) + 2
    count = min(stage.pack.patches // side**2, tokens // (2 * slot))
    targets_T = torch.zeros(tokens, dtype=torch.int64)
    targets_T[: count * slot] = IGNORE_INDEX
    firsts = torch.arange(count) * (tokens // max(count, 1))
    visual_positions_V = (firsts[:, None] + torch.arange(slot - 2)).flatten()
    patches_PC = torch.zeros(count * side**2, run.model.vision.patch_width, dtype=torch.uint8)
    positions_P, grids = torch.zeros(len(patches_PC), dtype=torch.int64), ((side, side),) * count
    tokens_T, positions_T = targets_T.clamp(min=0), torch.arange(tokens)
    return TrainingBatch(
        tokens_T, targets_T, positions_T, SequenceLengths((tokens,)), patches_PC, positions_P, grids, visual_positions_V
    )


def _start(run: Run) -> str:
    """Describe the initial weights in a phrase."""
    if run.init.model:
        return f"every weight is that of {run.init.model}"
    if not run.init.given:
        return f"every weight is drawn from seed {run.seed}"
    language, extra = run.model.language, run.model.extra_vocabulary
    table = f"after the {language.vocabulary:,} rows of its vocabulary {extra:,} are added, which always train"
    return (
        f"the vision encoder is that of {run.init.vision}, and the language model that of {run.init.language}; {table};"
        f" the connector is drawn from seed {run.seed}"
    )


def _print_stage(
    console: Console,
    run: Run,
    stage: StageConfig,
    parts: list[TrainablePart],
    memory: MemoryEstimate,
    glance: Glance,
) -> None:
    cost = glance.cost(run, stage)
    say(console, stage.name, style="bold", end="")
    say(
        console,
        f": {stage.steps:,} steps of about {cost.tokens:,.0f} tokens ({cost.supervised_tokens:,.0f} supervised),"
        f" {cost.images:,.0f} images and {cost.packs:,.0f} packs; {cost.flops:.2e} FLOPs a step,"
        f" {cost.flops * stage.steps:.2e} in all",
    )
    if glance.missing:
        say(
            console,
            f"{glance.missing}: figures are for full packs, up to half of whose tokens are images of the largest size",
        )
    table = Table(
        "part", "mode", title="parameters in millions; MiB of one process, float32", title_justify="left", box=SIMPLE
    )
    table.padding, table.pad_edge = (0, 1, 0, 0), False  # so that it fits in 80 columns
    for heading in ("params", "trained", *(_SHORT.get(kind, kind) for kind in _KINDS), "all"):
        table.add_column(heading, justify="right")
    counts = {part.part: part for part in parts}
    for name, bytes_ in memory.parts.items():
        part = counts.get(name)
        said = (part.mode, _millions(part.parameters), _millions(part.trainable)) if part else ("", "", "")
        table.add_row(
            name.replace("vocabulary", "vocab."),
            *said,
            *(mib(getattr(bytes_, kind)) for kind in _KINDS),
            mib(bytes_.total),
        )
    table.add_section()
    sums = [sum(getattr(one, kind) for one in memory.parts.values()) for kind in _KINDS]
    counted = (sum(p.parameters for p in parts), sum(p.trainable for p in parts))
    table.add_row("all", "", *map(_millions, counted), *map(mib, sums), mib(sum(sums)))
    console.print(table)
    say(console, f"peak: {mib(memory.peak)} MiB (gradients are allocated while activations are freed)")


def measure(run: Run, stage: StageConfig, model: VLM, steps: BatchBuilder) -> tuple[int, float, MemoryEstimate]:
    """Take two real steps of at most `MOST_PARTS` packs each.

    Returns the peak of tensor memory in bytes, the mean time of a step in seconds, and the estimate.
    """
    world = parallel.start_distributed(run.device)
    parallel.apply(model, run, stage, world)
    model.z_loss = stage.z_loss
    optimiser = build_optimiser(model, stage)
    set_lr(optimiser, schedule(stage, 0))
    model.train()
    made = [_packs(steps, 0), _packs(steps, min(1, stage.steps - 1))]
    estimates = estimate(run, stage, model, [batch for batches in made for batch in batches])
    parameters = list(model.parameters())
    counter = TensorBytes(sum(p.numel() * p.element_size() for p in parameters))
    counter.know(parameters)
    counter.know(value for one in made for b in one for value in vars(b).values() if isinstance(value, torch.Tensor))
    seconds = []
    for batches in made:
        before = time.perf_counter()
        with counter:
            train_step(model, batches, optimiser, stage.max_grad_norm, world)
        seconds.append(time.perf_counter() - before)
    on_gpu = world.device.type == "cuda"
    return torch.cuda.max_memory_allocated() if on_gpu else counter.peak, fmean(seconds), estimates


def _check(console: Console, run: Run, glance: Glance, estimated: int) -> float | None:
    """Take two steps of the first stage and print their time and memory, or the reason for skipping them.

    Returns the mean seconds of a step.
    """
    stage, free = run.stages[0], free_memory(run.device)
    if glance.steps is None or estimated > free:
        reason = glance.missing or f"the estimate is {mib(estimated)} MiB, and {mib(free)} MiB of memory are free"
        say(console, f"two real steps of {stage.name} are skipped: {reason}")
        return None
    model, _ = build(run)
    prepare_parts(model, stage, seed=run.seed)
    peak, seconds, memory = measure(run, stage, model, glance.steps)
    parts = glance.steps.parts
    some = f" with {MOST_PARTS} of their {parts:,} packs" if parts > MOST_PARTS else ""
    say(
        console,
        f"two steps of {stage.name}{some} took {seconds:.2f} s each; their peak of tensor memory was {mib(peak)} MiB,"
        f" where the estimate is {mib(memory.peak)} MiB ({memory.peak / peak - 1:+.0%})",
    )
    return seconds


def free_memory(device: str = AUTO) -> int:
    """Free memory in bytes: of the GPU that a run computes on, otherwise of the machine."""
    if choose_device(device).type == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux: all physical memory
        if not hasattr(os, "sysconf"):
            return sys.maxsize  # Windows does not say
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _millions(count: int) -> str:
    return f"{count / 1e6:,.{2 if count < 1e9 else 0}f}"


def mib(size: float) -> str:
    """Format bytes as MiB: one decimal below 1 GiB, none above."""
    return f"{size / 2**20:,.{1 if size < 2**30 else 0}f}"
