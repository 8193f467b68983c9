"""Images behind links, fetched while a source is prepared: never while a model is trained.

A link is asked for `TRIES` times where the server is busy or silent, once where it says that there is nothing. A fetch
that takes longer than `SECONDS` in all, or gives more than `MOST_BYTES`, is given up. What is not fetched is refused by
name, and the ledger counts it.
"""

from __future__ import annotations

import contextvars
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lorgnette.data.record import Refused
from lorgnette.data.sources.boundary import boundary
from lorgnette.inputs.access import AccessError
from lorgnette.inputs.downloader import fetch
from lorgnette.untrusted import quoted

SECONDS = 30.0
"""For a link, with all tries."""
MOST_BYTES = 64 * 2**20
TRIES = 3
PAUSE = 0.5
"""Seconds before the second try; twice as long before each one behind it."""
THREADS = 32
"""Links that are waited for at the same time."""

Item = TypeVar("Item")
Made = TypeVar("Made")


def download(link: str) -> bytes:
    """The bytes behind an http(s) link. Raises: Refused ("not fetched") saying why there are none."""
    access, end = boundary().access, time.monotonic() + SECONDS
    for number in range(TRIES):
        try:
            return fetch(link, access, end - time.monotonic(), MOST_BYTES)
        except AccessError as error:
            reason = str(error)
            pause = PAUSE * 2**number
            if not error.passing or number + 1 == TRIES or time.monotonic() + pause >= end:
                break
        time.sleep(pause)
    raise Refused("not fetched", f"{quoted(link)} ({reason})")


def in_order(work: Callable[[Item], Made], items: Iterable[Item], threads: int = THREADS) -> Iterator[Made]:
    """`work` done on items by several threads at a time, in the order of the items, with few of them in memory.

    An error comes where its item stands, and ends it.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="fetch") as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(contextvars.copy_context().run, work, item))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
