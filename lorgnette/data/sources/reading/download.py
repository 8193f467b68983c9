"""Images behind links, fetched while a source is prepared: never while a model is trained.

A link is asked for `TRIES` times where the server is busy or silent, once where it says that there is nothing. A fetch
that takes longer than `_SECONDS` in all, or gives more than `_MOST_BYTES`, is given up. Images that are not fetched are
refused by name, and counted.
"""

from __future__ import annotations

import contextvars
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lorgnette.data.record import Refused
from lorgnette.data.sources.reading.boundary import boundary
from lorgnette.inputs.access import AccessError, ByteBudget
from lorgnette.inputs.downloader import fetch
from lorgnette.untrusted import quoted

_SECONDS = 30.0
"""For a link, with all tries."""
_MOST_BYTES = 64 * 2**20
TRIES = 3
PAUSE = 0.5
"""Seconds before the second try; twice as long before each one behind it."""
THREADS = 32
"""Links that are waited for at the same time."""

FETCHING = ByteBudget(256 * 2**20)
"""Bytes of large images that are being fetched."""
MOST_READY = 256 * 2**20
"""Bytes of results that wait for their turn, beyond which nothing new is begun."""

Item = TypeVar("Item")
Made = TypeVar("Made")


def download(link: str) -> bytes:
    """The bytes behind an http(s) link. Raises: Refused ("not fetched") saying why there are none."""
    access, end = boundary().access, time.monotonic() + _SECONDS
    for number in range(TRIES):
        try:
            return fetch(link, access, end - time.monotonic(), _MOST_BYTES, FETCHING)
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
        waiting: deque[Future[tuple[Made, int]]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(contextvars.copy_context().run, _weighed, work, item))
                while len(waiting) >= 2 * threads or (waiting and _ready(waiting) > MOST_READY):
                    yield waiting.popleft().result()[0]
            while waiting:
                yield waiting.popleft().result()[0]
        finally:
            for future in waiting:
                future.cancel()


def _weighed(work: Callable[[Item], Made], item: Item) -> tuple[Made, int]:
    made = work(item)
    return made, bytes_in(made)


def _ready(waiting: Iterable[Future[tuple[Made, int]]]) -> int:
    return sum(one.result()[1] for one in waiting if one.done() and one.exception() is None)


def bytes_in(value: object) -> int:
    """Bytes of the images and texts in a row, nearly."""
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(bytes_in, value.values()))
    return sum(map(bytes_in, value)) if isinstance(value, list | tuple) else 8
