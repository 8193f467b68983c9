"""One optimiser step with gradient accumulation: the loss of all packs divided by all supervised tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from lorgnette.data.loader.training_batch import TrainingBatch
from lorgnette.errors import LorgnetteError
from lorgnette.model.vlm import VLM
from lorgnette.train.gradients import Losses, add_gradients
from lorgnette.train.parallel import DistributedContext, whole


class NotFiniteError(LorgnetteError):
    """The loss or the gradient of a step is not a finite number; the parameters were not touched."""

    alike = True


@dataclass(frozen=True, slots=True)
class StepResult:
    """Loss, gradient norm and counts of a step, over all its packs on all ranks."""

    loss: float
    """Mean cross-entropy over the supervised tokens, in nats, without z-loss."""
    grad_norm: float
    """Before clipping."""
    tokens: int
    supervised_tokens: int
    images: int
    samples: int
    sources: Mapping[str, float] = field(default_factory=dict)
    """Loss of each source's supervised tokens."""


@dataclass
class _Tally:
    """Counts of one rank's packs."""

    packs: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    images: int = 0
    samples: int = 0
    names: list[str] = field(default_factory=list)


def train_step(
    model: VLM,
    batches: Sequence[TrainingBatch],
    optimiser: torch.optim.Optimizer,
    max_grad_norm: float,
    world: DistributedContext | None = None,
    accept: Callable[[StepResult], bool] = lambda result: True,
    at_once: int = 1,
    cost: Callable[[TrainingBatch], float] | None = None,
) -> StepResult:
    """Update the model once. The update is the same however the samples are cut in packs and shared among ranks.

    batches: this rank's packs, of which `at_once` are computed at the same time, shared out by `cost`. accept: called
    before the update with what was computed; False leaves the weights.
    Raises: NotFiniteError naming the samples, before any parameter changes.
    """
    world = world or DistributedContext()
    tallies = world.gather(_tally(batches))
    supervised_tokens = sum(tally.supervised_tokens for tally in tallies)
    if not supervised_tokens:
        names = [name for tally in tallies for name in tally.names]
        raise LorgnetteError(
            f"nothing is learned in a whole step, from {_some(names)}: give its answers a weight that is"
            " not 0 (`weight` of a message, `supervised=True` of a Text in Python), or leave these rows out"
        )
    optimiser.zero_grad(set_to_none=True)
    packs = max(tally.packs for tally in tallies)
    losses = world.gather(add_gradients(model, batches, packs, supervised_tokens, world, at_once, cost))
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    grad_norm = float(whole(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)))
    result = StepResult(
        loss=sum(rank.total for rank in losses) / supervised_tokens,
        grad_norm=grad_norm,
        tokens=sum(tally.tokens for tally in tallies),
        supervised_tokens=supervised_tokens,
        images=sum(tally.images for tally in tallies),
        samples=sum(tally.samples for tally in tallies),
        sources=_by_source(losses),
    )
    if not (math.isfinite(result.loss) and math.isfinite(grad_norm)):
        broken = [name for rank in losses for name in rank.broken]
        names = broken or [name for tally in tallies for name in tally.names]
        raise NotFiniteError(
            f"loss {result.loss}, gradient norm {grad_norm} from {_some(names)}; try a lower learning rate"
        )
    if not accept(result):
        optimiser.zero_grad(set_to_none=True)
        return result
    optimiser.step()
    return result


def _tally(batches: Sequence[TrainingBatch]) -> _Tally:
    return _Tally(
        packs=len(batches),
        tokens=sum(batch.documents.total for batch in batches),
        supervised_tokens=sum(batch.supervised_tokens for batch in batches),
        images=sum(len(batch.images) for batch in batches),
        samples=sum(len(batch.documents) for batch in batches),
        names=[batch.name_of(place) for batch in batches for place in range(len(batch.documents))],
    )


def _by_source(losses: Sequence[Losses]) -> dict[str, float]:
    names = sorted({name for rank in losses for name in rank.sources})
    sums = {name: [rank.sources.get(name, (0.0, 0)) for rank in losses] for name in names}
    counts = {name: sum(count for _, count in pairs) for name, pairs in sums.items()}
    return {name: sum(loss for loss, _ in sums[name]) / counts[name] for name in names if counts[name]}


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
