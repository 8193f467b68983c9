"""Images behind links, fetched while a source is prepared: never while a model is trained.

A link is asked for `TRIES` times where the server is busy or silent, once where it says that there is nothing. A fetch
that takes longer than `SECONDS` in all, or gives more than `MOST_BYTES`, is given up. What is not fetched is refused by
name, and the ledger counts it.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lorgnette.data.record import Refused

SECONDS = 30.0
"""For a link, with all tries."""
MOST_BYTES = 64 * 2**20
TRIES = 3
PAUSE = 0.5
"""Seconds before the second try; twice as long before each one behind it."""
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same question may be answered."""
THREADS = 32
"""Links that are waited for at the same time."""

Item = TypeVar("Item")
Made = TypeVar("Made")


def is_link(path: str) -> bool:
    return path.lower().startswith(("http://", "https://"))


def download(link: str) -> bytes:
    """The bytes behind an http(s) link. Raises: Refused ("not fetched") saying why there are none."""
    end = time.monotonic() + SECONDS
    for number in range(TRIES):
        try:
            return _download(link, end)
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            if error.code not in BUSY:
                break
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        except (ValueError, UnicodeError) as error:  # no link at all
            reason = str(error)
            break
        pause = PAUSE * 2**number
        if number + 1 == TRIES or time.monotonic() + pause >= end:
            break
        time.sleep(pause)
    raise Refused("not fetched", f"{link} ({reason})")


def _download(link: str, end: float) -> bytes:
    request = urllib.request.Request(link, headers={"User-Agent": "lorgnette"})
    content = bytearray()
    with urllib.request.urlopen(request, timeout=max(0.1, end - time.monotonic())) as response:
        expected = response.headers.get("Content-Length") or ""
        if expected.isascii() and expected.isdigit() and int(expected) > MOST_BYTES:
            raise Refused("not fetched", f"{link} (more than {MOST_BYTES >> 20} MiB)")
        while chunk := response.read1(65536):
            content += chunk
            if len(content) > MOST_BYTES:
                raise Refused("not fetched", f"{link} (more than {MOST_BYTES >> 20} MiB)")
            if time.monotonic() > end:
                raise Refused("not fetched", f"{link} (takes longer than {SECONDS:.0f} seconds)")
    if expected.isascii() and expected.isdigit() and len(content) < int(expected):
        raise http.client.IncompleteRead(bytes(content), int(expected) - len(content))
    return bytes(content)


def in_order(work: Callable[[Item], Made], items: Iterable[Item], threads: int = THREADS) -> Iterator[Made]:
    """`work` done on items by several threads at a time, in the order of the items, with few of them in memory.

    An error comes where its item stands, and ends it.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="fetch") as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
