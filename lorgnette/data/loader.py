"""Batches made ready by worker processes while the model computes.

A worker is given a step number and makes everything of that step: samples by the plan, rendered, packed. Workers share
no state, so their number changes nothing in what is trained on.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.utils.data import DataLoader, Dataset

from lorgnette.data.config import LoaderConfig
from lorgnette.data.plan import Plan
from lorgnette.data.sources import Source
from lorgnette.errors import LorgnetteError
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.render import Rendered
from lorgnette.model.batch import Batch


@dataclass(frozen=True)
class Steps(Dataset[list[Batch] | LorgnetteError]):
    """All steps of a stage: `steps[n]` is the list of batches that step n is computed in."""

    plan: Plan
    sources: Sequence[Source]
    processor: Processor
    micro_batches: int = 1

    def batches(self, step: int) -> list[Batch]:
        """Read, render and pack the samples of one step.

        Documents are packed by image size and length, so that equal ones lie side by side and are attended to in one
        call.
        """
        rendered = [self.processor.render(self.sources[ref.source][ref.index]) for ref in self.plan.step(step)]
        rendered.sort(key=_shape)
        return [self.processor.pack(part) for part in split_evenly(rendered, self.micro_batches)]

    def __getitem__(self, step: int) -> list[Batch] | LorgnetteError:
        try:
            return self.batches(step)
        except LorgnetteError as error:  # raised by the reader: crossing a process would bury it in a traceback
            return error


def split_evenly(items: list[Rendered], parts: int) -> list[list[Rendered]]:
    """Cut a list in `parts` runs whose lengths differ by at most one."""
    bounds = [len(items) * part // parts for part in range(parts + 1)]
    return [items[start:end] for start, end in pairwise(bounds)]


def _shape(rendered: Rendered) -> tuple[int, int]:
    return sum(len(image.positions_P) for image in rendered.images), len(rendered.tokens_T)


def read_steps(steps: Steps, first: int, last: int, config: LoaderConfig) -> Iterator[list[Batch]]:
    """The batches of steps `first` to `last` (not included), in order, made ready ahead by workers.

    Raises: the LorgnetteError that a sample of the step met.
    """
    loader: DataLoader[list[Batch] | LorgnetteError] = DataLoader(
        steps,
        batch_size=None,
        sampler=range(first, last),
        num_workers=config.workers,
        prefetch_factor=config.prefetch if config.workers else None,
        worker_init_fn=_start_worker,
    )
    for batches in loader:
        if isinstance(batches, LorgnetteError):
            raise batches
        yield batches


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C reaches the whole group: the trainer decides when to stop, and a worker ends with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
