"""Worker processes: they end with the process that they work for, and their errors travel to it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from typing import Any

WATCH_SECONDS = 0.5
"""Time between two looks of a worker at the process that it works for."""


def worker_context() -> Any:
    """The way to start workers: forked, they start at once and share memory; where there is no fork, spawned."""
    forks = "fork" in multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("fork" if forks else "spawn")


def begin_worker(master: int) -> None:
    """Prepare a new worker. It ends with the process `master`, and leaves Ctrl-C, which reaches the group, to that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(master,), daemon=True).start()


def _end_with(master: int) -> None:
    """End this process when `master` has ended, even if that was killed."""
    while os.getppid() == master:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def portable(error: Exception, substitute: type[Exception]) -> Exception:
    """The error with its traceback as a note; a `substitute` with its words where it cannot be pickled."""
    error.add_note(f"In a worker process:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error's own constructor runs here, and may raise anything
        return substitute(f"{type(error).__name__}: {error}")
    return error
