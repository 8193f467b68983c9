"""A worker as the router sees it: a process that is started again when it ends, and requests to its socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping

import httpx2

from lorgnette.serve.fleet.worker_main import WorkerJob

log = logging.getLogger("lorgnette.serve")

POLL_SECONDS, START_POLL_SECONDS = 1.0, 0.1
"""Time between two looks at a worker's health, and while it starts."""
HEALTH_TIMEOUT = 5.0
MOST_LATE = 3
"""Looks in a row without an answer, after which a worker is killed."""
MOST_FAILED_STARTS = 3
"""Starts in a row that come to nothing, after which the router gives up."""
PAUSES = (0.2, 1.0, 5.0, 20.0)
"""Seconds before a worker is started again, by how often it has ended without having been ready."""


class WorkerProcess:
    """One worker, its state and its outstanding requests. For one event loop."""

    def __init__(self, number: int, job: WorkerJob, threads: int) -> None:
        """threads: of the worker's matrix products, unless OMP_NUM_THREADS says otherwise."""
        self.number, self.job, self.threads = number, job, threads
        self.tokens = self.open = self.restarts = self.failed_starts = 0
        self.is_ready = self.is_draining = False
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=5.0)
        self._client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=job.socket, limits=limits, trust_env=False),
            timeout=httpx2.Timeout(None, connect=HEALTH_TIMEOUT),
            base_url="http://worker",
        )

    @property
    def takes_requests(self) -> bool:
        return self.is_ready and not self.is_draining

    @property
    def pid(self) -> int | None:
        """Id of its process; None between two."""
        return self._process.pid if self._process is not None else None

    async def send(self, method: str, path: bytes, headers: Mapping[str, str], content: bytes) -> httpx2.Response:
        """Send a request; return as soon as the headers of its answer are here. Raises: httpx2.TransportError."""
        request = self._client.build_request(
            method, httpx2.URL("http://worker", raw_path=path), headers=dict(headers), content=content or None
        )
        return await self._client.send(request, stream=True)

    async def get(self, path: str) -> bytes | None:
        """Body of a GET that succeeds within seconds; None otherwise."""
        try:
            reply = await self._client.get(path, headers={"host": "localhost"}, timeout=HEALTH_TIMEOUT)
        except httpx2.HTTPError:
            return None
        return reply.content if reply.status_code == 200 else None

    async def supervise(self) -> None:
        """Keep the worker running until `stop`, or until it fails to start several times in a row."""
        while not self._stopping and self.failed_starts < MOST_FAILED_STARTS:
            await self._start()
            await self._watch()
            was_ready, self.is_ready = self.is_ready, False
            status = await self._end()
            if self._stopping:
                return
            self.failed_starts = 0 if was_ready else self.failed_starts + 1
            self.restarts += 1
            log.error("worker %d has ended with status %s, and is started again", self.number, status)
            await asyncio.sleep(PAUSES[min(self.failed_starts, len(PAUSES) - 1)])

    async def _start(self) -> None:
        environment = {"OMP_NUM_THREADS": str(self.threads)} | os.environ
        command = (sys.executable, "-m", "lorgnette.serve.fleet.worker_main")
        # a session of its own: Ctrl-C is for the router, which lets answers end first
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, env=environment, start_new_session=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self.job.model_dump_json().encode() + b"\n")
        with contextlib.suppress(OSError):
            await self._process.stdin.drain()

    async def _watch(self) -> None:
        """Look at the worker's health until its process has ended, or does not answer any more."""
        late = 0
        while self._process is not None and self._process.returncode is None and late < MOST_LATE:
            answered = await self.get("/ready") is not None
            late = late + 1 if self.is_ready and not answered and not self._stopping else 0
            if answered and not self.is_ready:
                log.info("worker %d is ready", self.number)
            self.is_ready = answered or (self.is_ready and late < MOST_LATE and not self._stopping)
            await self._pause(POLL_SECONDS if self.is_ready else START_POLL_SECONDS)

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until the process ends."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), seconds)

    def lost(self) -> None:
        """Take note that the worker did not answer a request: none is given to it until its health says otherwise."""
        self.is_ready = False

    async def recycle(self, seconds: float) -> None:
        """Give the worker no more requests, wait for those that it has, end it, and wait until it is ready again."""
        self.is_draining = True
        try:
            await self._until(lambda: self.open == 0, seconds)
            before, process = self.restarts, self._process
            if process is not None and process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await self._until(lambda: self.restarts > before and self.is_ready, 600.0)
        finally:
            self.is_draining = False

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """End the worker for good."""
        self._stopping = True
        await self._end()
        await self._client.aclose()

    async def _end(self) -> int | None:
        """End the process, by force after some seconds; its status."""
        process = self._process
        if process is None:
            return None
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), self.job.serve.drain_seconds + HEALTH_TIMEOUT)
            except TimeoutError:
                process.kill()
                await process.wait()
        return process.returncode
