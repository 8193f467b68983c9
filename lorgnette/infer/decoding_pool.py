"""Threads that decode images beside the steps of an engine, so that a large image delays nobody's next token.

Pillow, and torch where it resizes, free Python's lock while they work; processes would copy every pixel.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from lorgnette.errors import ImageError
from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.memory.decoded_images import Pixels
from lorgnette.infer.image_cache import ImageRef
from lorgnette.untrusted import reason_of

DECODING_THREADS = 2
"""Images decoded at the same time."""


class DecodingPool:
    """Decodes the images that an engine asks for. Its methods are for the thread that drives the engine."""

    def __init__(
        self, engine: Engine, on_done: Callable[[], None] | None = None, threads: int = DECODING_THREADS
    ) -> None:
        """on_done: called in a thread of the pool whenever an image has been decoded."""
        self._engine, self._on_done = engine, on_done
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._futures: dict[str, Future[None]] = {}
        self._done: deque[tuple[str, Pixels | ImageError]] = deque()
        self._news = threading.Event()
        engine.decoded.given = True

    def exchange(self) -> None:
        """Give the engine what has been decoded, start on what it needs next, and drop what it needs no longer."""
        self._news.clear()
        while self._done:
            key, pixels = self._done.popleft()
            self._futures.pop(key, None)
            self._engine.decoded.give(key, pixels)
        for key in [one for one in self._futures if not self._engine.decoded.is_used(one)]:
            if self._futures[key].cancel():
                del self._futures[key]
        for image in self._engine.decoded.ask(_undecoded(self._engine)):
            if image.key not in self._futures:
                self._futures[image.key] = self._pool.submit(self._decode, image)

    def wait(self, seconds: float = 1.0) -> None:
        """Wait until another image has been decoded."""
        self._news.wait(seconds)

    def close(self) -> None:
        """Stop after the images that are being decoded now; the engine decodes in its steps again."""
        self._engine.decoded.given = False
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _decode(self, image: ImageRef) -> None:
        found: Pixels | ImageError
        try:
            found = self._engine.image_cache.decode(image)
        except ImageError as error:
            found = error
        except Exception as error:  # of a decoder: the request is told, and the thread goes on
            found = ImageError(f"{image.name}: cannot be read as an image ({reason_of(error)})")
        self._done.append((image.key, found))
        self._news.set()
        if self._on_done is not None:
            self._on_done()


def _undecoded(engine: Engine) -> Iterator[list[ImageRef]]:
    """Images of each request whose pixels are missing, in the order in which requests will be read."""
    scheduler = engine.scheduler
    for answer in (*scheduler.running, *scheduler.preempted):
        if answer.owner.prompt.images and not answer.grows:
            yield engine.images.undecoded(answer.images.missing(answer.computed))
    for state in sorted(scheduler.waiting, key=lambda one: one.arrival):
        yield engine.images.undecoded(state.prompt.images)
