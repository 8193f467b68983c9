"""Where tasks run: by Daft, in processes of this machine, or on a Ray cluster with the same code.

The table that Daft works on holds tasks, not rows: a worker reads the row groups of its task itself and gives back a
few bytes for each row. So nothing large passes between processes, memory is that of one batch of rows for each worker
whatever the size of the source, and each chunk is written down, by us alone, as soon as it is done.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from lorgnette.data.prepare.scan import Scanner, Task
from lorgnette.errors import DataError, LorgnetteError, SettingsError


class Work:
    """What a worker holds and does: made once in each, called for each task."""

    def __init__(self, scanner: bytes) -> None:
        self.scanner: Scanner = pickle.loads(scanner)

    def __call__(self, tasks: Any) -> list[bytes]:
        return [self.scanner(pickle.loads(task)).dumps() for task in tasks.to_pylist()]


def run(
    scanner: Scanner, tasks: Sequence[Task], *, ray: str | None = None, workers: int | None = None
) -> Iterator[tuple[Task, bytes]]:
    """Each task with its chunk as bytes, in the order in which they are done.

    ray: address of a cluster; None for this machine. workers: processes; None for one for each core.
    Raises: SettingsError if a package is missing, and what a worker raised.
    """
    if not tasks:
        return
    daft = _daft(ray)
    many = min(len(tasks), workers or _cores(ray))
    # One worker is this process itself: it starts at once, and Daft's own pool of one aborts now and then at exit.
    pool = {"concurrency": many, "use_process": True} if many > 1 or ray is not None else {"use_process": False}
    work = daft.udf(return_dtype=daft.DataType.binary(), batch_size=1, **pool)(Work)
    table = daft.from_pydict({"number": list(range(len(tasks))), "task": [pickle.dumps(task) for task in tasks]})
    if ray is not None:
        table = table.into_partitions(many)
    made = work.with_init_args(pickle.dumps(scanner))(daft.col("task")).alias("chunk")
    try:
        for row in table.select(daft.col("number"), made).iter_rows(results_buffer_size=2):
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
