"""Ctrl-C and SIGTERM end training after the step in flight; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol


class Stoppable(Protocol):
    _stop: bool


@contextmanager
def stop_on_signals(trainer: Stoppable) -> Iterator[None]:
    """Set the trainer's `_stop` on a signal. Signals reach the main thread alone: elsewhere nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if trainer._stop:
            raise KeyboardInterrupt
        trainer._stop = True

    kept = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
