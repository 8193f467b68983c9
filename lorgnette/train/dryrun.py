"""What a run will cost, said before it costs it, and checked with two real steps."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from lorgnette.data.loader import PackedSteps, Steps
from lorgnette.model.account import Account
from lorgnette.model.batch import IGNORED, Batch
from lorgnette.model.loss import logits_held
from lorgnette.model.vlm import VLM
from lorgnette.run import Run, StageConfig
from lorgnette.train import parallel
from lorgnette.train.activations import kept
from lorgnette.train.build import build, resolve, stage_processor
from lorgnette.train.feed import open_steps
from lorgnette.train.optim import build_optimiser, schedule, set_lr
from lorgnette.train.stages import TrainablePart, named_parts, prepare_parts
from lorgnette.train.step import train_step

KINDS = ("weights", "gradients", "optimiser", "activations")
SHORT = {"gradients": "grads", "optimiser": "optim.", "activations": "activ."}


@dataclass(frozen=True)
class Memory:
    """Bytes of one part, by kind."""

    weights: int = 0
    gradients: int = 0
    optimiser: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.activations


def dry_run(run: Run, console: Console) -> None:
    """Print the plan of every stage, then take two steps of the first and hold the estimate against them."""
    run = resolve(run)
    torch.set_num_threads(run.threads or torch.get_num_threads())
    model, processor = build(run)
    console.print(f"[bold]{run.name}[/bold]: {_start(run)}", highlight=False, soft_wrap=True)
    for number, stage in enumerate(run.stages):
        if number:
            model = VLM(run.model)
        parts = prepare_parts(model, stage, seed=run.seed)
        steps = open_steps(run, number, stage_processor(processor, run, stage))
        first = steps.batches(0)
        _print_stage(console, run, stage, parts, estimate(run, stage, model, first), first)
        if not number:
            _check(console, run, stage, model, steps)


def _start(run: Run) -> str:
    """Where the weights come from, as a sentence."""
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


def estimate(run: Run, stage: StageConfig, model: VLM, batches: list[Batch]) -> dict[str, Memory]:
    """Memory of each part while it trains, from sizes alone, for one process in float32.

    Activations are those of the largest pack: what each layer keeps for its backward pass, or its input alone where the
    part is checkpointed. `head` is what the loss holds: a chunk of logits, the gradients made in passing, and the
    adapted output table with its own.
    """
    found = {}
    momenta = 2 if stage.optimiser == "adamw" else 1.5  # muon's matrices have one
    for part in ("vision", "connector", "language", "extra_vocabulary"):
        parameters = [p for name, _, p in named_parts(model) if name == part]
        weights = sum(4 * p.numel() for p in parameters)
        trained = sum(4 * p.numel() for p in parameters if p.requires_grad)
        activations = max((_activations(run, stage, part, batch) for batch in batches), default=0)
        found[part] = Memory(weights, trained, int(momenta * trained), activations)
    learned = max(int((batch.targets_T != IGNORED).sum()) for batch in batches)
    chunk, width = 4 * logits_held(learned, run.model.vocabulary, "cpu"), run.model.language.width
    adapted = stage.language.mode in ("lora", "dora") and "head" in stage.lora.targets
    table = 4 * run.model.language.vocabulary * width if adapted else 0
    found["head"] = Memory(activations=chunk + 8 * learned * width + 2 * table)
    return found


def _activations(run: Run, stage: StageConfig, part: str, batch: Batch) -> int:
    """Bytes that a part keeps of one pack; see `estimate`."""
    model, patches, tokens = run.model, batch.images.total, batch.documents.total
    width, vision = model.language.width, model.vision
    if part == "connector":
        return _connector_activations(run, stage, batch)
    if part == "vision":
        mode, rows, input_, layers = stage.vision.mode, patches, vision.width, vision.layers
    elif part == "language":
        mode, rows, input_, layers = stage.language.mode, tokens, width, model.language.layers
    else:
        return 0
    layer = kept(model, part, mode, stage.lora)
    one = 4 * (layer.by_row * rows + layer.at_all)
    return one + input_ * rows * layers * 4 if part in stage.checkpointing else one * layers


def _connector_activations(run: Run, stage: StageConfig, batch: Batch) -> int:
    c, width, vision = run.model.connector, run.model.language.width, run.model.vision
    patches, visual = batch.images.total, len(batch.images) * c.latents
    if "connector" in stage.checkpointing:
        return 4 * (visual * width * c.depth + patches * (vision.width + width))
    layer = (2 * c.heads + 2 * c.kv_heads) * c.head_width + 3 * c.mlp_ratio * width + 5 * width
    keys = c.depth * patches * (width + 2 * c.kv_heads * c.head_width)
    projection = patches * (3 * c.projection_width + vision.width + width)
    return 4 * (visual * layer * c.depth + keys + projection)


def _print_stage(
    console: Console,
    run: Run,
    stage: StageConfig,
    parts: list[TrainablePart],
    memory: dict[str, Memory],
    batches: list[Batch],
) -> None:
    flops = step_flops(run, stage, batches)
    tokens = sum(batch.documents.total for batch in batches)
    learned = sum(int((batch.targets_T != IGNORED).sum()) for batch in batches)
    images = sum(len(batch.images) for batch in batches)
    console.print(
        f"[bold]{stage.name}[/bold]: {stage.steps:,} steps of about {tokens:,} tokens ({learned:,} learned), {images:,}"
        f" images and {len(batches):,} packs; {flops:.2e} FLOPs a step, {flops * stage.steps:.2e} in all",
        highlight=False,
        soft_wrap=True,
    )
    table = Table("part", "mode", title="parameters in millions, memory in MiB", title_justify="left", box=SIMPLE)
    table.padding, table.pad_edge = (0, 1, 0, 0), False  # so that it fits in 80 columns
    for heading in ("params", "trained", *(SHORT.get(kind, kind) for kind in KINDS), "all"):
        table.add_column(heading, justify="right")
    counts = {part.part: part for part in parts}
    for name, bytes_ in memory.items():
        part = counts.get(name)
        said = (part.mode, _millions(part.parameters), _millions(part.trainable)) if part else ("", "", "")
        table.add_row(name, *said, *(mib(getattr(bytes_, kind)) for kind in KINDS), mib(bytes_.total))
    table.add_section()
    sums = [sum(getattr(one, kind) for one in memory.values()) for kind in KINDS]
    counted = (sum(p.parameters for p in parts), sum(p.trainable for p in parts))
    table.add_row("all", "", *map(_millions, counted), *map(mib, sums), mib(sum(sums)))
    console.print(table)


def step_flops(run: Run, stage: StageConfig, batches: list[Batch]) -> int:
    account, modes = Account(run.model), {p: getattr(stage, p).mode for p in ("vision", "connector", "language")}
    return sum(
        account.step_flops(b.images, b.documents, int((b.targets_T != IGNORED).sum()), modes, stage.lora.rank)
        for b in batches
    )


class Bytes(TorchDispatchMode):
    """Counts the bytes of tensors that are alive while it is entered, and the most that there were at once."""

    def __init__(self, alive: int) -> None:
        """alive: bytes of tensors that are there already."""
        super().__init__()
        self.now = self.peak = alive
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                self._count(tensor.untyped_storage())
        return out

    def know(self, tensors: Iterable[torch.Tensor]) -> None:
        """Tensors that were counted before."""
        for tensor in tensors:
            self._known[tensor.untyped_storage()] = True

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            self._known[storage] = True
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self.now -= size


def measure(
    run: Run, stage: StageConfig, model: VLM, steps: Steps | PackedSteps
) -> tuple[int, float, dict[str, Memory]]:
    """Take two real steps. Returns the bytes of tensors at the peak, seconds of a step, and the estimate."""
    world = parallel.start_world()
    parallel.apply(model, run, stage, world)
    model.z_loss = stage.z_loss
    optimiser = build_optimiser(model, stage)
    set_lr(optimiser, schedule(stage, 0))
    model.train()
    made = [steps.batches(0), steps.batches(min(1, stage.steps - 1))]
    estimates = estimate(run, stage, model, [batch for batches in made for batch in batches])
    parameters = list(model.parameters())
    counter = Bytes(sum(p.numel() * p.element_size() for p in parameters))
    counter.know(parameters)
    counter.know(value for one in made for b in one for value in vars(b).values() if isinstance(value, torch.Tensor))
    seconds = []
    for batches in made:
        before = time.perf_counter()
        with counter:
            train_step(model, batches, optimiser, stage.clip, world)
        seconds.append(time.perf_counter() - before)
    on_gpu = world.device.type == "cuda"
    return torch.cuda.max_memory_allocated() if on_gpu else counter.peak, fmean(seconds), estimates


def _check(console: Console, run: Run, stage: StageConfig, model: VLM, steps: Steps | PackedSteps) -> None:
    peak, seconds, estimates = measure(run, stage, model, steps)
    total = sum(one.total for one in estimates.values())
    console.print(
        f"two steps of {stage.name} took {seconds:.2f} s each and held {mib(peak)} MiB of tensors at their peak, where"
        f" the estimate is {mib(total)} MiB ({total / peak - 1:+.0%})",
        highlight=False,
        soft_wrap=True,
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f}"


def mib(size: float) -> str:
    return f"{size / 2**20:,.1f}"
