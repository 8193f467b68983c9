"""Runner of tasks: Daft, in processes of this machine or on a Ray cluster with the same code.

The table that Daft works on holds tasks, not rows: a worker reads the row groups of its task itself and gives back a
few bytes for each row. So nothing large passes between processes, memory is that of one batch of rows for each worker
whatever the size of the source, and each chunk is written down, by us alone, as soon as it is done.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from lorgnette.data.prepare.scan import Scanner, Task
from lorgnette.errors import DataError, LorgnetteError, SettingsError

WATCH_SECONDS = 0.5
"""How often the host of workers looks whether the process that it works for is still there."""


class Work:
    """Worker of a task pool: made once in each process, called for each task."""

    def __init__(self, scanner: bytes) -> None:
        self.scanner: Scanner = pickle.loads(scanner)

    def __call__(self, tasks: Any) -> list[bytes]:
        return [self.scanner(pickle.loads(task)).dumps() for task in tasks.to_pylist()]


def run(
    scanner: Scanner, tasks: Sequence[Task], *, ray: str | None = None, workers: int | None = None
) -> Iterator[tuple[Task, bytes]]:
    """Each task with its chunk as bytes, in the order in which they are done.

    ray: address of a cluster; None for this machine. workers: processes; None for one for each core. All of them have
    ended when the iterator is closed, and end if this process is killed.
    Raises: SettingsError if a package is missing, and what a worker raised.
    """
    if not tasks:
        return
    if ray is not None:
        _daft(ray)  # refuses first
    many = min(len(tasks), workers or _cores(ray))
    try:
        if ray is not None:
            yield from _by_daft(scanner, tasks, many, ray)
        elif many > 1:
            yield from _hosted(scanner, tasks, many)
        else:  # this process itself: it starts at once, and can be interrupted at any time
            yield from ((task, scanner(task).dumps()) for task in tasks)
    except LorgnetteError:
        raise
    except Exception as error:  # Daft wraps what a worker raised in errors of its own
        raise _cause(error) from error


def _by_daft(scanner: Scanner, tasks: Sequence[Task], many: int, ray: str | None) -> Iterator[tuple[Task, bytes]]:
    daft = _daft(ray)
    work = daft.udf(return_dtype=daft.DataType.binary(), batch_size=1, concurrency=many, use_process=True)(Work)
    table = daft.from_pydict({"number": list(range(len(tasks))), "task": [pickle.dumps(task) for task in tasks]})
    if ray is not None:
        table = table.into_partitions(many)
    made = work.with_init_args(pickle.dumps(scanner))(daft.col("task")).alias("chunk")
    with contextlib.closing(table.select(daft.col("number"), made).iter_rows(results_buffer_size=2)) as rows:
        for row in rows:
            yield tasks[row["number"]], row["chunk"]


HOST = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from lorgnette.data.prepare.pool import host
host(int(sys.argv[2]), int(sys.argv[3]))
"""
"""The program of the process in which Daft runs. Given the path of modules, its pipe, and the process it works for."""


def _hosted(scanner: Scanner, tasks: Sequence[Task], many: int) -> Iterator[tuple[Task, bytes]]:
    """As `_by_daft`, with Daft in a process of its own, which is killed with all its workers when this ends.

    Daft itself cannot be interrupted: the interpreter aborts, and workers and their sockets stay.
    """
    place = tempfile.mkdtemp(prefix="lorgnette-")  # of their sockets
    here, there = multiprocessing.Pipe()
    arguments = [json.dumps(sys.path), str(there.fileno()), str(os.getpid())]
    environment = {**os.environ, "TMPDIR": place}
    process = subprocess.Popen(
        [sys.executable, "-c", HOST, *arguments], pass_fds=[there.fileno()], env=environment, start_new_session=True
    )
    try:
        there.close()
        here.send((scanner, tasks, many))
        while (found := here.recv()) is not None:
            if isinstance(found, LorgnetteError):
                raise found
            yield tasks[found[0]], found[1]
    except (EOFError, OSError):
        raise DataError(
            "the processes that prepare were killed, likely for their memory: set --workers lower"
        ) from None
    finally:
        here.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(place, ignore_errors=True)


def host(number: int, master: int) -> None:
    """Run tasks that come through a pipe by Daft, and send back what is made, then None; an error instead of it.

    number: the pipe's file descriptor. master: the process at its other end; without it, this group of processes ends.
    """
    threading.Thread(target=_end_with, args=(master,), daemon=True).start()
    pipe = Connection(number)
    try:
        scanner, tasks, many = pipe.recv()
        numbers = {(task.path, task.first): number for number, task in enumerate(tasks)}
        for task, chunk in _by_daft(scanner, tasks, many, None):
            pipe.send((numbers[task.path, task.first], chunk))
        pipe.send(None)
    except Exception as error:
        with contextlib.suppress(OSError):  # nobody is there any more
            pipe.send(_cause(error))
    finally:
        _end_group()


def _end_with(master: int) -> None:
    """End the host and its workers when the process that they work for has, even if that was killed."""
    while os.getppid() == master:
        time.sleep(WATCH_SECONDS)
    _end_group()


def _end_group() -> None:
    """Kill every process of this group: Daft's own ways to end leave workers behind."""
    shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def _cause(error: BaseException) -> LorgnetteError:
    """The error of ours behind one of Daft's."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, LorgnetteError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return DataError(f"preparing failed in a worker: {' '.join(str(error).split())[:500]}")


def _daft(ray: str | None) -> Any:
    """Daft with its runner chosen. It counts its users over the network unless told not to, before it is imported."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    try:
        import daft
    except ImportError:
        raise SettingsError("preparing needs Daft: `pip install 'lorgnette[data]'`") from None
    if ray is None:
        return daft
    if importlib.util.find_spec("ray") is None:
        raise SettingsError(f"--ray {ray}: the package ray is not installed here: `pip install 'daft[ray]'`")
    daft.set_runner_ray(ray, noop_if_initialized=True)
    return daft


def _cores(ray: str | None) -> int:
    if ray is not None:
        cluster = importlib.import_module("ray").cluster_resources()
        return max(1, int(cluster.get("CPU", 1)))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
