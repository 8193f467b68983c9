"""One optimiser step: the loss summed over all packs and divided by all learned tokens, checked finite, clipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lorgnette.errors import LorgnetteError
from lorgnette.model.batch import IGNORED, Batch
from lorgnette.model.vlm import VLM


class NotFiniteError(LorgnetteError):
    """The loss or the gradient of a step is not a finite number; the parameters were not touched."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step computed. Counts are over all its packs."""

    loss: float
    """Mean over the learned tokens, in nats."""
    grad_norm: float
    """Before clipping."""
    tokens: int
    learned: int
    images: int
    samples: int


def train_step(model: VLM, batches: Sequence[Batch], optimiser: torch.optim.Optimizer, clip: float) -> StepResult:
    """Update the model once. The update is the same however the samples are cut in packs.

    Raises: NotFiniteError naming the samples, before any parameter changes.
    """
    learned = sum(int((batch.targets_T != IGNORED).sum()) for batch in batches)
    if not learned:
        raise LorgnetteError(f"nothing is learned in a whole step, from {_names(batches)}: mark text with learn=True")
    optimiser.zero_grad(set_to_none=True)
    loss = 0.0
    for batch in batches:
        output = model(batch, want="loss")
        mean = output.loss_sum / learned
        mean.backward()
        loss += float(mean.detach())
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, clip))
    if not (torch.isfinite(torch.tensor(loss)) and torch.isfinite(torch.tensor(grad_norm))):
        raise NotFiniteError(
            f"loss {loss}, gradient norm {grad_norm} from {_names(batches)}; try a lower learning rate"
        )
    optimiser.step()
    return StepResult(
        loss=loss,
        grad_norm=grad_norm,
        tokens=sum(batch.documents.total for batch in batches),
        learned=learned,
        images=sum(len(batch.images) for batch in batches),
        samples=sum(len(batch.documents) for batch in batches),
    )


def _names(batches: Sequence[Batch], most: int = 8) -> str:
    names = [name for batch in batches for name in batch.names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
