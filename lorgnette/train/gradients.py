"""Gradient accumulation over the packs of a step: one after another, or several at a time on the cores of a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

from lorgnette.data.loader.training_batch import TrainingBatch
from lorgnette.model.batch import IGNORE_INDEX, Batch
from lorgnette.model.flops import ModelCost
from lorgnette.model.ops.device import in_float64
from lorgnette.model.vlm import VLM
from lorgnette.run import Run, StageConfig
from lorgnette.train.adapters.fused_lora import weights_kept
from lorgnette.train.parallel import DistributedContext, empty_batch, is_sharded
from lorgnette.train.stages import drops

_T = TypeVar("_T")
UNEVEN = 1.15
"""Times the mean that the last thread may work. Sharing every operation costs more than that where packs are small."""


@dataclass
class Losses:
    """Summed losses of one rank's packs, and the names of samples whose loss is not finite."""

    total: float = 0.0
    sources: dict[str, tuple[float, int]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, batch: TrainingBatch, losses: Tensor) -> None:
        """The loss of each supervised token of a pack."""
        sums, counts = (values.tolist() for values in document_losses(batch, losses))
        self.total += math.fsum(sums)
        for place, (loss, count) in enumerate(zip(sums, counts, strict=True)):
            source = batch.source_of(place)
            before = self.sources.get(source, (0.0, 0))
            self.sources[source] = before[0] + loss, before[1] + count
            if not math.isfinite(loss):
                self.broken.append(batch.name_of(place))


def document_losses(batch: Batch, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss (float64) and supervised tokens of each document, from the loss of each supervised token."""
    lengths = batch.documents.lengths_on(losses.device)
    document_T = torch.repeat_interleave(torch.arange(len(lengths), device=losses.device), lengths)
    owner = document_T[batch.targets_T != IGNORE_INDEX]
    losses = in_float64(losses)
    sums = losses.new_zeros(len(lengths))
    return sums.index_add_(0, owner.to(sums.device), losses), torch.bincount(owner, minlength=len(lengths))


def parallel_microbatches(run: Run, stage: StageConfig, world: DistributedContext) -> int:
    """Most packs of a step that are computed at the same time.

    More than one only in one process on a CPU, and without dropout: threads share one generator, so the order of draws
    would be non-deterministic. NEFTune's noise has a generator for each pack.
    """
    if world.size > 1 or world.device.type != "cpu" or drops(stage) or run.compile:
        return 1
    return min(run.parallel_microbatches, torch.get_num_threads())


def add_gradients(
    model: VLM,
    batches: Sequence[TrainingBatch],
    packs: int,
    supervised_tokens: int,
    world: DistributedContext,
    at_once: int = 1,
    cost: Callable[[TrainingBatch], float] | None = None,
) -> Losses:
    """Add up the gradients of this rank's packs, and of empty ones up to the number of the longest rank.

    at_once: most packs to compute at the same time, each with its share of the threads; fewer where threads would wait
    for a heavy pack. Gradients are added in the order of the packs: as with the same share in turn, to the bit.
    cost: of a pack, in whatever unit; as if every part trained in full, if it is not given.
    """
    if at_once > 1:
        account = ModelCost(model.config)
        costs = [cost(b) if cost else account.step_flops(b.images, b.documents, b.supervised_tokens) for b in batches]
        at_once = threads_for(costs, at_once)
    if at_once > 1:
        return _together(model, batches, costs, supervised_tokens, at_once)
    losses = Losses()
    with nullcontext() if is_sharded(model) else weights_kept(model):  # gathered weights go and come
        for number in range(packs):
            batch = (batches[number] if number < len(batches) else empty_batch(model)).to(world.device)
            output = model(batch, output="loss")
            (output.loss_sum / supervised_tokens).backward()
            losses.add(batch, output.losses)
    return losses


def threads_for(costs: Sequence[float], most: int) -> int:
    """Largest number of threads among which packs of these costs, heaviest first, can be shared out evenly."""
    for threads in range(min(most, len(costs)), 1, -1):
        ends = [0.0] * threads
        for cost in sorted(costs, reverse=True):
            ends[ends.index(min(ends))] += cost
        if max(ends) * threads <= UNEVEN * sum(costs):
            return threads
    return 1


def _together(
    model: VLM, batches: Sequence[TrainingBatch], costs: Sequence[float], supervised_tokens: int, at_once: int
) -> Losses:
    """Compute packs in parallel: threads of one small pack would spend more time waiting for each other."""
    losses = Losses()

    def compute(batch: TrainingBatch) -> tuple[tuple[Tensor | None, ...], Tensor]:
        output = model(batch, output="loss")
        assert output.losses is not None and output.loss_sum is not None
        return torch.autograd.grad(output.loss_sum / supervised_tokens, trained, allow_unused=True), output.losses

    with _threads(torch.get_num_threads() // at_once) as each, weights_kept(model) as weights:
        trained = [*(p for p in model.parameters() if p.requires_grad), *weights]
        made = _in_order(_pool(at_once, each), compute, batches, costs)
        for batch, (gradients, loss) in zip(batches, made, strict=True):
            losses.add(batch, loss)
            for parameter, gradient in zip(trained, gradients, strict=True):
                if gradient is None:
                    continue
                if parameter.grad is None:  # laid out as the parameter, which fused optimisers take for granted
                    parameter.grad = torch.empty_like(parameter).copy_(gradient)
                else:
                    parameter.grad += gradient
    return losses


def _in_order(
    pool: ThreadPoolExecutor,
    compute: Callable[[TrainingBatch], _T],
    batches: Sequence[TrainingBatch],
    costs: Sequence[float],
) -> Iterator[_T]:
    """Results in the order of the batches, though the costliest start first. At its end none is running."""
    begun = {
        number: pool.submit(compute, batches[number]) for number in sorted(range(len(costs)), key=lambda n: -costs[n])
    }
    futures = [begun[number] for number in range(len(batches))]
    try:
        while futures:
            yield futures.pop(0).result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)


@contextmanager
def _threads(count: int) -> Iterator[int]:
    """Compute with so many threads in here."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=4)
def _pool(workers: int, each: int) -> ThreadPoolExecutor:
    """Threads that wait for packs; each computes with so many of torch's."""
    return ThreadPoolExecutor(workers, "packs", torch.set_num_threads, (each,))
