"""One optimiser step: the loss summed over all packs and divided by all learned tokens, checked finite, clipped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lorgnette.errors import LorgnetteError
from lorgnette.model.batch import IGNORED, Batch
from lorgnette.model.vlm import VLM
from lorgnette.train.lora import weights_kept
from lorgnette.train.parallel import World, empty_batch, is_sharded, whole


class NotFiniteError(LorgnetteError):
    """The loss or the gradient of a step is not a finite number; the parameters were not touched."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step computed. Counts are over all its packs, on all ranks."""

    loss: float
    """Mean cross-entropy over the learned tokens, in nats, without z-loss."""
    grad_norm: float
    """Before clipping."""
    tokens: int
    learned: int
    images: int
    samples: int
    sources: Mapping[str, float] = field(default_factory=dict)
    """The loss of each source's learned tokens."""


@dataclass
class _Tally:
    """What one rank's packs add up to."""

    packs: int = 0
    tokens: int = 0
    learned: int = 0
    images: int = 0
    samples: int = 0
    names: list[str] = field(default_factory=list)


@dataclass
class _Losses:
    """Summed losses of one rank's packs, and the names of samples whose loss is not finite."""

    total: float = 0.0
    sources: dict[str, tuple[float, int]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, batch: Batch, losses: Tensor) -> None:
        sums, counts = (values.tolist() for values in document_losses(batch, losses))
        self.total += math.fsum(sums)
        for place, (loss, count) in enumerate(zip(sums, counts, strict=True)):
            source = batch.sources[place] if batch.sources else ""
            before = self.sources.get(source, (0.0, 0))
            self.sources[source] = before[0] + loss, before[1] + count
            if not math.isfinite(loss):
                self.broken.append(batch.names[place] if batch.names else f"document {place}")


def train_step(
    model: VLM,
    batches: Sequence[Batch],
    optimiser: torch.optim.Optimizer,
    clip: float,
    world: World | None = None,
    accept: Callable[[StepResult], bool] = lambda result: True,
) -> StepResult:
    """Update the model once. The update is the same however the samples are cut in packs and shared among ranks.

    batches: this rank's packs. accept: called before the update with what was computed; False leaves the weights.
    Raises: NotFiniteError naming the samples, before any parameter changes.
    """
    world = world or World()
    tallies = world.gather(_tally(batches))
    learned = sum(tally.learned for tally in tallies)
    if not learned:
        names = [name for tally in tallies for name in tally.names]
        raise LorgnetteError(f"nothing is learned in a whole step, from {_some(names)}: mark text with learn=True")
    optimiser.zero_grad(set_to_none=True)
    packs = max(tally.packs for tally in tallies)
    losses = world.gather(_backward(model, batches, packs, learned, world))
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    grad_norm = float(whole(torch.nn.utils.clip_grad_norm_(parameters, clip)))
    result = StepResult(
        loss=sum(rank.total for rank in losses) / learned,
        grad_norm=grad_norm,
        tokens=sum(tally.tokens for tally in tallies),
        learned=learned,
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


def document_losses(batch: Batch, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss (float64) and learned tokens of each document, from the loss of each learned token."""
    lengths = batch.documents.lengths_on(losses.device)
    document_T = torch.repeat_interleave(torch.arange(len(lengths), device=losses.device), lengths)
    learned = document_T[batch.targets_T != IGNORED]
    sums = torch.zeros(len(lengths), dtype=torch.float64, device=losses.device)
    return sums.index_add_(0, learned, losses.double()), torch.bincount(learned, minlength=len(lengths))


def _backward(model: VLM, batches: Sequence[Batch], packs: int, learned: int, world: World) -> _Losses:
    """Add up the gradients of this rank's packs, and of empty ones up to the number of the longest rank."""
    losses = _Losses()
    with nullcontext() if is_sharded(model) else weights_kept(model):  # gathered weights go and come
        for number in range(packs):
            batch = (batches[number] if number < len(batches) else empty_batch(model)).to(world.device)
            output = model(batch, want="loss")
            (output.loss_sum / learned).backward()
            losses.add(batch, output.losses)
    return losses


def _tally(batches: Sequence[Batch]) -> _Tally:
    return _Tally(
        packs=len(batches),
        tokens=sum(batch.documents.total for batch in batches),
        learned=sum(int((batch.targets_T != IGNORED).sum()) for batch in batches),
        images=sum(len(batch.images) for batch in batches),
        samples=sum(len(batch.documents) for batch in batches),
        names=[name for batch in batches for name in batch.names],
    )


def _by_source(losses: Sequence[_Losses]) -> dict[str, float]:
    names = sorted({name for rank in losses for name in rank.sources})
    sums = {name: [rank.sources.get(name, (0.0, 0)) for rank in losses] for name in names}
    counts = {name: sum(count for _, count in pairs) for name, pairs in sums.items()}
    return {name: sum(loss for loss, _ in sums[name]) / counts[name] for name in names if counts[name]}


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
