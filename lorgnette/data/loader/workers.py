"""Worker processes of the data loader: they build batches ahead while the model computes.

A worker is sent the number of a pack and builds it: reads, renders and packs its samples. Workers share no state, so
their number does not change the data, and a worker that was killed is replaced. Each worker has its own pipe, so that
its death, even in the middle of a message, breaks no other worker's.
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
    """Worker processes were killed, or failed in a way that is no other error of lorgnette."""


def read_steps(steps: BatchBuilder, first: int, last: int, config: LoaderConfig) -> Iterator[list[TrainingBatch]]:
    """Yield the batches of each step from `first` to `last` (excluded), built ahead by workers.

    Raises: the worker's LorgnetteError; LoaderError if two workers in a row are killed at the same pack.
    """
    items = range(first * steps.parts, last * steps.parts)
    batches: list[TrainingBatch] = []
    for item, made in zip(items, _made(steps, items, config), strict=True):
        batches += made
        if (item + 1) % steps.parts == 0:
            yield batches
            batches = []


def _made(steps: BatchBuilder, items: range, config: LoaderConfig) -> Iterator[list[TrainingBatch]]:
    """Yield each item's batches in order. Item n is pack `n % steps.parts` of step `n // steps.parts`."""
    count = min(config.workers, len(items))
    workers = [_Worker(steps, items[first::count], 1 + config.prefetch) for first in range(count)]
    try:
        for item, worker in zip(items, cycle(workers or [None])):
            yield worker.next() if worker else steps.part(*divmod(item, steps.parts))
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A worker process that builds the given items in order, at most `ahead` of them in advance."""

    def __init__(self, steps: BatchBuilder, items: range, ahead: int) -> None:
        self._steps, self._items, self._ahead = steps, items, ahead
        self._lost: int | None = None
        self._start()

    def _start(self) -> None:
        context = worker_context()
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_work, args=(self._steps, end, os.getpid()), daemon=True)
        self._process.start()
        end.close()  # the worker has the only copy, so that the pipe closes when the worker dies
        self._made: SimpleQueue[Any] = SimpleQueue()
        self._thread = threading.Thread(target=_receive, args=(self._pipe, self._made), daemon=True)
        self._thread.start()
        self._ask(self._items[: self._ahead])

    def _ask(self, items: range) -> None:
        with suppress(OSError):  # the worker was killed; `next` finds out
            for item in items:
                self._pipe.send(item)

    def next(self) -> list[TrainingBatch]:
        """Return the result of the next item. Raises: the worker's error; LoaderError if it was killed there twice."""
        while (made := self._made.get()) is None:
            if self._lost == self._items[0]:
                raise LoaderError(
                    f"worker processes were killed twice while building step {self._lost // self._steps.parts},"
                    " probably for lack of memory: lower loader.workers or loader.prefetch"
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
    """Queue a worker's messages as they arrive, and None when its pipe ends, even in the middle of a message."""
    try:
        while True:
            made.put(pipe.recv())
    except (EOFError, OSError):
        pass
    finally:
        made.put(None)


def _work(steps: BatchBuilder, pipe: Connection, master: int) -> None:
    """Build the items received through the pipe, until the process is killed."""
    torch.set_num_threads(1)
    begin_worker(master)
    while True:
        item = pipe.recv()
        try:
            pipe.send(_sent(steps.part(*divmod(item, steps.parts))))
        except Exception as error:
            pipe.send(portable(error, LoaderError))


def _sent(batches: list[TrainingBatch]) -> list[TrainingBatch]:
    """Convert tensors to numpy arrays, which are sent by value: tensors would each take a shared-memory file."""
    return [_mapped(batch, torch.Tensor, torch.Tensor.numpy) for batch in batches]


def _received(batches: list[TrainingBatch]) -> list[TrainingBatch]:
    return [_mapped(batch, np.ndarray, torch.from_numpy) for batch in batches]


def _mapped(batch: TrainingBatch, kind: type, change: Callable[[Any], Any]) -> TrainingBatch:
    """Copy a batch with `change` applied to each value of type `kind`."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: change(value) for name, value in values.items() if isinstance(value, kind)})
