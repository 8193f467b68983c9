"""The router: one address before several workers. It checks keys once, places requests, and passes answers on.

Workers listen on Unix sockets in a folder of this user's alone, so that nobody else can name an owner to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence

import httpx2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from lorgnette.errors import LorgnetteError
from lorgnette.serve.api.api_errors import ApiError, on_api_error, on_http_error, stopping
from lorgnette.serve.api.replies import HealthReply
from lorgnette.serve.config import ServeConfig
from lorgnette.serve.fleet.forwarding import ForwardedStream, given_headers, is_stream, worker_lost
from lorgnette.serve.fleet.merged_metrics import merge, router_families
from lorgnette.serve.fleet.placement import Demand, Ring, demand_of
from lorgnette.serve.fleet.worker_main import OWNER, WorkerJob
from lorgnette.serve.fleet.worker_process import MOST_FAILED_STARTS, WorkerProcess
from lorgnette.serve.http.api_keys import ApiKeys
from lorgnette.serve.http.event_stream import ClientGone, unless_gone
from lorgnette.serve.http.guard import Guard, ServerState
from lorgnette.serve.http.request_body import BodyReader

log = logging.getLogger("lorgnette.serve")

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
WORKER_HEADERS = ("content-type", "accept", "host")
"""Headers of a request that its worker gets."""
MOST_TRIES = 2
"""Workers that a request is sent to: one that ends its worker must not end all of them."""
ELSEWHERE = (429, 503)
"""Statuses after which another worker is asked."""
WORKER_DRAIN_SECONDS = 1.0
"""Time that a worker's answers get to end, once the router has waited for them."""


def worker_jobs(job: WorkerJob, folder: str, workers: int) -> list[WorkerJob]:
    """The jobs of workers whose sockets are in a folder. The router has checked names and keys, and waits itself."""
    settings = {"allow_hosts": ("*",), "drain_seconds": WORKER_DRAIN_SECONDS, "workers": 1}
    serve = job.serve.model_copy(update=settings)
    return [
        job.model_copy(update={"serve": serve, "socket": os.path.join(folder, f"{number}.sock")})
        for number in range(workers)
    ]


class RouterApp:
    """Several workers of one model behind HTTP."""

    failure = f"a worker did not start {MOST_FAILED_STARTS} times in a row; its log above says why"

    def __init__(
        self,
        jobs: Sequence[WorkerJob],
        config: ServeConfig,
        keys: ApiKeys | None = None,
        started: Callable[[], None] | None = None,
    ) -> None:
        """started: called once, when all workers take requests."""
        self.config, self.state, self.broken = config, ServerState(), asyncio.Event()
        threads = max(1, (os.cpu_count() or 1) // len(jobs))
        self.workers = [WorkerProcess(number, job, threads) for number, job in enumerate(jobs)]
        self.ring, self.bodies, self.repeats = Ring(len(jobs)), BodyReader(config), 0
        self._on_ready, self._tasks = started, list[asyncio.Task[None]]()
        routes = [
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/metrics", self._metrics),
            Route("/{path:path}", self._forward, methods=list(METHODS)),
        ]
        handlers = {HTTPException: on_http_error, LorgnetteError: on_api_error, Exception: on_api_error}
        app = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)
        app.router.redirect_slashes = False
        self.asgi: ASGIApp = Guard(app, config, keys or ApiKeys(), self.state)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._tasks = [asyncio.create_task(self._supervise(worker)) for worker in self.workers]
        self._tasks.append(asyncio.create_task(self._greet()))
        with contextlib.suppress(ValueError, RuntimeError, AttributeError):  # no main thread, or no such signal
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.recycle_soon)
        try:
            yield
        finally:
            await self._stop_workers()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _supervise(self, worker: WorkerProcess) -> None:
        await worker.supervise()
        if worker.failed_starts >= MOST_FAILED_STARTS:
            self.broken.set()

    async def _greet(self) -> None:
        while not all(worker.is_ready for worker in self.workers):
            await asyncio.sleep(0.05)
        if self._on_ready is not None:
            self._on_ready()

    def recycle_soon(self) -> None:
        """Restart all workers, one after the other, while the others take the requests (SIGHUP)."""
        self._tasks.append(asyncio.create_task(self.recycle()))

    async def recycle(self) -> None:
        """Restart all workers, one after the other; each ends its answers first."""
        for worker in self.workers:
            await worker.recycle(self.config.drain_seconds)

    async def drain(self) -> None:
        """Refuse new requests, wait for those that run, then end the workers one after the other."""
        self.state.draining = True
        end = time.monotonic() + self.config.drain_seconds
        while any(worker.open for worker in self.workers) and time.monotonic() < end:
            await asyncio.sleep(0.05)
        await self._stop_workers()

    async def _stop_workers(self) -> None:
        for worker in self.workers:
            await worker.stop()

    async def _health(self, _: Request) -> Response:
        if self.broken.is_set():
            raise ApiError(503, "no worker is running; try again later", code="engine_down")
        return JSONResponse(HealthReply(status="ok").model_dump())

    async def _ready(self, request: Request) -> Response:
        if self.state.draining:
            raise stopping()
        if not any(worker.takes_requests for worker in self.workers):
            raise no_worker()
        return await self._health(request)

    async def _metrics(self, _: Request) -> Response:
        ready = [worker for worker in self.workers if worker.is_ready]
        pages = await asyncio.gather(*(worker.get("/metrics") for worker in ready))
        found = {worker.number: page.decode() for worker, page in zip(ready, pages, strict=True) if page}
        own = router_families(self.workers, self.repeats, self.state.refusals)
        return Response(merge(found, own), media_type="text/plain; version=0.0.4")

    async def _forward(self, request: Request) -> Response:
        """Pass a request on to a worker, and to a second one if the first is lost before it has answered."""
        try:
            if request.method != "POST":
                return await self._answer(request, b"", Demand(None, 1), lambda: None)
            body = await self.bodies.read(request)
            content = body.take()
            demand = demand_of(content, request.state.key)
            return await self._answer(request, content, demand, body.release)
        except ClientGone:
            return Response(status_code=499)  # which nobody reads

    async def _answer(self, request: Request, content: bytes, demand: Demand, release: Callable[[], None]) -> Response:
        """release: called when the answer has ended, or will not come."""
        tried: set[int] = set()
        seat: Seat | None = None
        try:
            while True:
                seat = self._seat(demand, tried)
                reply = await self._ask(request, content, seat.worker)
                others = [worker for worker in self.workers if worker.takes_requests and worker.number not in tried]
                if reply is None and len(tried) >= MOST_TRIES:
                    raise worker_lost()
                if reply is not None and not (reply.status_code in ELSEWHERE and others and len(tried) < MOST_TRIES):
                    break
                seat.leave()
                self.repeats += 1
                if reply is not None:
                    await reply.aclose()
            if not is_stream(reply):
                return _whole(reply)
            seat.at_end, kept, seat = release, seat, None
            release = _nothing
            return ForwardedStream(reply, kept.leave, self.config.unread_seconds)
        finally:
            if seat is not None:
                seat.leave()
            release()

    def _seat(self, demand: Demand, tried: set[int]) -> Seat:
        ready = [worker for worker in self.workers if worker.takes_requests and worker.number not in tried]
        worker = self.ring.choose(demand, ready)
        if worker is None:
            raise no_worker()
        tried.add(worker.number)
        return Seat(worker, demand.tokens)

    async def _ask(self, request: Request, content: bytes, worker: WorkerProcess) -> httpx2.Response | None:
        """The answer of a worker, whole unless it is a stream; None if the worker is lost. Raises: ClientGone."""
        headers = {name: request.headers[name] for name in WORKER_HEADERS if name in request.headers}
        headers |= {"x-request-id": request.state.request_id, "accept-encoding": "identity"}
        if request.state.key:
            headers["authorization"] = OWNER + request.state.key
        query = request.scope.get("query_string", b"")
        path = request.scope["raw_path"] + (b"?" + query if query else b"")
        try:
            return await unless_gone(request.receive, _sent(worker, request.method, path, headers, content))
        except httpx2.HTTPError as error:
            log.error("worker %d did not answer: %s", worker.number, type(error).__name__)
            worker.lost()
            return None


async def _sent(
    worker: WorkerProcess, method: str, path: bytes, headers: dict[str, str], content: bytes
) -> httpx2.Response:
    reply = await worker.send(method, path, headers, content)
    if not is_stream(reply):
        try:
            await reply.aread()
        finally:
            await reply.aclose()
    return reply


def _whole(reply: httpx2.Response) -> Response:
    response = Response(reply.content, reply.status_code)
    response.raw_headers = given_headers(reply)
    return response


def _nothing() -> None:
    """Do nothing."""


def no_worker() -> ApiError:
    """The refusal of a router whose workers are starting, or restarting."""
    return ApiError(503, "no worker is ready; try again later", code="no_worker")


class Seat:
    """Place of one request among those of its worker."""

    def __init__(self, worker: WorkerProcess, tokens: int) -> None:
        self.worker, self.at_end = worker, _nothing
        self._tokens: int | None = tokens
        worker.open += 1
        worker.tokens += tokens

    def leave(self) -> None:
        """Give the place back, once."""
        if self._tokens is not None:
            self.worker.open -= 1
            self.worker.tokens -= self._tokens
            self._tokens = None
            self.at_end()
