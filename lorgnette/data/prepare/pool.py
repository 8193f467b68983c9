"""Processes that prepare: a pool on this machine, or a Ray cluster by Daft, with the same code.

Tasks are passed, not rows: a worker reads the row groups of its task itself and gives back a few bytes for each row. So
nothing large passes between processes, memory is that of one batch of rows for each worker whatever the size of the
source, and each chunk is written down, by us alone, as soon as it is done.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from lorgnette.data.prepare.scan import Scanner, ScanTask
from lorgnette.data.processes import begin_worker, portable, worker_context
from lorgnette.errors import DataError, LorgnetteError, SettingsError
from lorgnette.untrusted import quoted


class Work:
    """Work of a Daft worker: made once in each, called for each batch of tasks."""

    def __init__(self, scanner: bytes) -> None:
        self.scanner: Scanner = pickle.loads(scanner)

    def __call__(self, tasks: Any) -> list[bytes]:
        return [self.scanner(pickle.loads(task)).dumps() for task in tasks.to_pylist()]


def run(
    scanner: Scanner, tasks: Sequence[ScanTask], *, ray: str | None = None, workers: int | None = None
) -> Iterator[tuple[ScanTask, bytes]]:
    """Each task with its chunk as bytes, in the order in which they are done.

    ray: address of a cluster; None for this machine. workers: processes; None for one for each core. All of them have
    ended when the iterator is closed, and end if this process is killed.
    Raises: SettingsError if a package is missing, and what a worker raised.
    """
    if not tasks:
        return
    daft = None if ray is None else _daft(ray)  # refuses first
    many = min(len(tasks), workers or _cores(ray))
    if daft is not None:
        yield from _by_daft(daft, scanner, tasks, many)
    elif many > 1:
        yield from _by_processes(scanner, tasks, many)
    else:  # this process itself: it starts at once, and can be interrupted at any time
        yield from ((task, scanner(task).dumps()) for task in tasks)


_scanner: Scanner
"""That of a worker, given to it when it began."""


def _begin(scanner: Scanner, master: int) -> None:
    global _scanner
    _scanner = scanner
    begin_worker(master)


def _scan(task: ScanTask) -> bytes | Exception:
    """A task's chunk, or the error that it met, in a form that travels."""
    try:
        return _scanner(task).dumps()
    except Exception as error:
        return portable(error, DataError)


def _by_processes(scanner: Scanner, tasks: Sequence[ScanTask], many: int) -> Iterator[tuple[ScanTask, bytes]]:
    before, left = set(multiprocessing.active_children()), iter(tasks)
    pool = ProcessPoolExecutor(many, worker_context(), _begin, (scanner, os.getpid()))
    running: dict[Future[bytes | Exception], ScanTask] = {}
    try:
        while True:
            running |= {pool.submit(_scan, task): task for task in islice(left, 2 * many - len(running))}
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                chunk = future.result()
                if isinstance(chunk, Exception):
                    raise chunk
                yield running.pop(future), chunk
    except BrokenProcessPool:
        raise DataError("worker processes were killed, probably for lack of memory: lower --workers") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in set(multiprocessing.active_children()) - before:
            worker.kill()  # a task may take minutes
            worker.join()


def _by_daft(daft: Any, scanner: Scanner, tasks: Sequence[ScanTask], many: int) -> Iterator[tuple[ScanTask, bytes]]:
    work = daft.udf(return_dtype=daft.DataType.binary(), batch_size=1, concurrency=many, use_process=True)(Work)
    table = daft.from_pydict({"number": list(range(len(tasks))), "task": [pickle.dumps(task) for task in tasks]})
    made = work.with_init_args(pickle.dumps(scanner))(daft.col("task")).alias("chunk")
    chunks = table.into_partitions(many).select(daft.col("number"), made)
    try:
        with contextlib.closing(chunks.iter_rows(results_buffer_size=2)) as rows:
            for row in rows:
                yield tasks[row["number"]], row["chunk"]
    except LorgnetteError:
        raise
    except Exception as error:  # Daft wraps what a worker raised in errors of its own
        raise _cause(error) from error


def _cause(error: BaseException) -> LorgnetteError:
    """The error of ours behind one of Daft's."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, LorgnetteError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return DataError(f"preparing failed in a worker: {' '.join(str(error).split())[:500]}")


def _daft(ray: str) -> Any:
    """Daft on a cluster. It counts its users over the network unless told not to, before it is imported."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    try:
        import daft
    except ImportError:
        raise SettingsError(f"--ray {ray}: a cluster needs Daft: `pip install 'lorgnette[data]'`") from None
    if importlib.util.find_spec("ray") is None:
        raise SettingsError(f"--ray {ray}: the package ray is not installed here: `pip install 'daft[ray]'`")
    try:
        daft.set_runner_ray(ray, noop_if_initialized=True)
        importlib.import_module("ray").cluster_resources()
    except Exception as error:  # Ray raises errors of many kinds where nothing answers at the address
        said = quoted(" ".join(str(error).split()) or type(error).__name__)
        raise SettingsError(
            f"--ray {ray}: no cluster answers there ({said}); start one by `ray start --head`, or leave the option out"
        ) from error
    return daft


def _cores(ray: str | None) -> int:
    if ray is not None:
        cluster = importlib.import_module("ray").cluster_resources()
        return max(1, int(cluster.get("CPU", 1)))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
