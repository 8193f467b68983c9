"""Batches made ready by worker processes while the model computes.

A worker is given a step and a part of it, and makes all of that part: samples by the plan, read, rendered, packed.
Workers share nothing, so their number changes nothing in what is trained on, and one that was killed is replaced.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from lorgnette.data.config import LoaderConfig
from lorgnette.data.steps import PackedSteps, Steps
from lorgnette.errors import LorgnetteError
from lorgnette.model.batch import Batch

__all__ = ["PackedSteps", "Steps", "read_steps"]

WATCH_SECONDS = 1.0
"""How often a worker looks whether the process that it works for is still there."""
GRACE_SECONDS = 5.0
"""How long the pool has to notice the death of a worker by itself."""


class LoaderError(LorgnetteError):
    """The worker processes cannot do their work."""


def read_steps(steps: Steps | PackedSteps, first: int, last: int, config: LoaderConfig) -> Iterator[list[Batch]]:
    """The batches of steps `first` to `last` (not included), in order, made ready ahead by workers.

    Raises: the LorgnetteError that a sample met; LoaderError if workers are killed again and again.
    """
    items = range(first * steps.parts, last * steps.parts)
    batches: list[Batch] = []
    for item, made in zip(items, _made(steps, items, config), strict=True):
        batches += made
        if (item + 1) % steps.parts == 0:
            yield batches
            batches = []


def _made(steps: Steps | PackedSteps, items: range, config: LoaderConfig) -> Iterator[list[Batch]]:
    """Each item made, in order. Item n is part `n % steps.parts` of step `n // steps.parts`.

    Where a worker was killed, others go on from the first item that was not handed out.
    """
    if not config.workers:
        yield from (steps.part(*divmod(item, steps.parts)) for item in items)
        return
    lost = None
    while items:
        try:
            for made in _made_by_workers(steps, items, config):
                yield made
                items = items[1:]
        except BrokenProcessPool:
            if lost == items[0]:
                raise LoaderError(
                    f"worker processes were killed twice while they made step {lost // steps.parts}, likely for their"
                    " memory: set loader.workers or loader.prefetch lower"
                ) from None
            lost = items[0]


def _made_by_workers(steps: Steps | PackedSteps, items: range, config: LoaderConfig) -> Iterator[list[Batch]]:
    """Raises: BrokenProcessPool if a worker was killed."""
    pool = ProcessPoolExecutor(config.workers, _context(), _start_worker, (steps, os.getpid()))
    waiting: deque[Future[list[Batch]]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_make, item))
            if len(waiting) >= config.workers * (1 + config.prefetch):
                yield _received(_result(pool, waiting.popleft()))
        while waiting:
            yield _received(_result(pool, waiting.popleft()))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _result(pool: ProcessPoolExecutor, future: Future[list[Batch]]) -> list[Batch]:
    """What a worker made. Raises: BrokenProcessPool if one was killed.

    The pool does not see that a worker died in the midst of sending: it waits for the rest, and the others wait to
    send. So nothing may come for a while after a death before all are ended, and with them what it waits for.
    """
    while True:
        alive = all(worker.exitcode is None for worker in _workers(pool))
        if wait([future], timeout=WATCH_SECONDS if alive else GRACE_SECONDS).done:
            return future.result()
        if not alive:
            for worker in _workers(pool):
                worker.kill()
            pool._result_queue._writer.close()  # type: ignore[attr-defined]  # else the pipe has no end


def _workers(pool: ProcessPoolExecutor) -> list[Any]:
    return list((pool._processes or {}).values())


def _context() -> multiprocessing.context.BaseContext:
    """Forked workers start at once and share the memory of the indexes; where there is no fork, they are spawned."""
    return multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")


def _start_worker(steps: Steps | PackedSteps, master: int) -> None:
    global _steps
    _steps = steps
    torch.set_num_threads(1)
    # Ctrl-C reaches the whole group: the trainer decides when to stop, and its workers end with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(master,), daemon=True).start()


_steps: Steps | PackedSteps
"""What a worker makes parts of: set once, when it starts."""


def _end_with(master: int) -> None:
    """End this process when its master has, even if that was killed and could tell nobody."""
    while os.getppid() == master:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def _make(item: int) -> list[Batch]:
    return _sent(_steps.part(*divmod(item, _steps.parts)))


def _sent(batches: list[Batch]) -> list[Batch]:
    """Batches as arrays, which travel by value: tensors would be files of shared memory, and those run out."""
    return [_mapped(batch, torch.Tensor, torch.Tensor.numpy) for batch in batches]


def _received(batches: list[Batch]) -> list[Batch]:
    return [_mapped(batch, np.ndarray, torch.from_numpy) for batch in batches]


def _mapped(batch: Batch, kind: type, change: Callable[[Any], Any]) -> Batch:
    """The batch with every value of a kind changed."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return Batch(**{name: change(value) if isinstance(value, kind) else value for name, value in values.items()})
