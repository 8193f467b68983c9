"""Batches made ready by worker processes while the model computes.

A worker is given a step and a part of it, and makes all of that part: samples by the plan, read, rendered, packed.
Workers share nothing, so their number changes nothing in what is trained on, and one that was killed is replaced. Each
has a pipe of its own: its death, even in the midst of sending, ends that pipe and no other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from itertools import cycle
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch

from lorgnette.data.config import LoaderConfig
from lorgnette.data.loader.batches import BatchBuilder
from lorgnette.data.loader.training_batch import TrainingBatch
from lorgnette.data.processes import begin_worker, portable, worker_context
from lorgnette.errors import LorgnetteError


class LoaderError(LorgnetteError):
    """The worker processes cannot do their work."""


def read_steps(steps: BatchBuilder, first: int, last: int, config: LoaderConfig) -> Iterator[list[TrainingBatch]]:
    """The batches of steps `first` to `last` (not included), in order, made ready ahead by workers.

    Raises: the LorgnetteError that a sample met; LoaderError if workers are killed again and again.
    """
    items = range(first * steps.parts, last * steps.parts)
    batches: list[TrainingBatch] = []
    for item, made in zip(items, _made(steps, items, config), strict=True):
        batches += made
        if (item + 1) % steps.parts == 0:
            yield batches
            batches = []


def _made(steps: BatchBuilder, items: range, config: LoaderConfig) -> Iterator[list[TrainingBatch]]:
    """Each item made, in order. Item n is part `n % steps.parts` of step `n // steps.parts`."""
    count = min(config.workers, len(items))
    workers = [_Worker(steps, items[first::count], 1 + config.prefetch) for first in range(count)]
    try:
        for item, worker in zip(items, cycle(workers or [None])):
            yield worker.next() if worker else steps.part(*divmod(item, steps.parts))
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process that makes the given items in order, at most `ahead` of them before they are asked for."""

    def __init__(self, steps: BatchBuilder, items: range, ahead: int) -> None:
        self._steps, self._items, self._ahead = steps, items, ahead
        self._lost: int | None = None
        self._start()

    def _start(self) -> None:
        context = worker_context()
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_work, args=(self._steps, end, os.getpid()), daemon=True)
        self._process.start()
        end.close()  # now the worker alone has it, and the pipe ends with the worker
        self._made: SimpleQueue[Any] = SimpleQueue()
        self._thread = threading.Thread(target=_receive, args=(self._pipe, self._made), daemon=True)
        self._thread.start()
        self._ask(self._items[: self._ahead])

    def _ask(self, items: range) -> None:
        with suppress(OSError):  # the worker was killed, as `next` will find
            for item in items:
                self._pipe.send(item)

    def next(self) -> list[TrainingBatch]:
        """Return the result of the next item. Raises: the worker's error; LoaderError if it was killed there twice."""
        while (made := self._made.get()) is None:
            if self._lost == self._items[0]:
                raise LoaderError(
                    f"worker processes were killed twice while they made step {self._lost // self._steps.parts}, likely"
                    " for their memory: set loader.workers or loader.prefetch lower"
                )
            self._lost = self._items[0]
            self.end()
            self._start()
        self._ask(self._items[self._ahead : self._ahead + 1])
        self._items = self._items[1:]
        if isinstance(made, Exception):
            raise made
        return _received(made)

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._thread.join()
        self._pipe.close()


def _receive(pipe: Connection, made: SimpleQueue[Any]) -> None:
    """Take what a worker sends as soon as it comes; at its end, in the midst of sending too, None."""
    try:
        while True:
            made.put(pipe.recv())
    except (EOFError, OSError):
        pass
    finally:
        made.put(None)


def _work(steps: BatchBuilder, pipe: Connection, master: int) -> None:
    """Make the items that come through the pipe, until the process is killed."""
    torch.set_num_threads(1)
    begin_worker(master)
    while True:
        item = pipe.recv()
        try:
            pipe.send(_sent(steps.part(*divmod(item, steps.parts))))
        except Exception as error:
            pipe.send(portable(error, LoaderError))


def _sent(batches: list[TrainingBatch]) -> list[TrainingBatch]:
    """Batches as arrays, which travel by value: tensors would be files of shared memory, and those run out."""
    return [_mapped(batch, torch.Tensor, torch.Tensor.numpy) for batch in batches]


def _received(batches: list[TrainingBatch]) -> list[TrainingBatch]:
    return [_mapped(batch, np.ndarray, torch.from_numpy) for batch in batches]


def _mapped(batch: TrainingBatch, kind: type, change: Callable[[Any], Any]) -> TrainingBatch:
    """The batch with every value of a kind changed."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: change(value) for name, value in values.items() if isinstance(value, kind)})
