"""The ASGI application: routes, and what runs beside them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

import lorgnette
from lorgnette.errors import LorgnetteError
from lorgnette.infer.engine.engine import Engine
from lorgnette.serve.api.api_errors import ApiError, engine_down, on_api_error, on_http_error, stopping
from lorgnette.serve.api.openapi import openapi
from lorgnette.serve.api.replies import HealthReply, ModelList, ModelRow
from lorgnette.serve.chat_route import ChatRoutes
from lorgnette.serve.config import ServeConfig
from lorgnette.serve.engine_thread import EngineThread
from lorgnette.serve.http.api_keys import ApiKeys
from lorgnette.serve.http.guard import Guard, ServerState
from lorgnette.serve.look_route import LookRoute
from lorgnette.serve.metrics import ServerMetrics
from lorgnette.serve.page_files import PAGE_FILES, page_file

LAG_SECONDS = 0.25
"""Time between two looks at how late the event loop is."""


class ServerApp:
    """One model behind HTTP."""

    failure = "the engine has failed three times, and cannot go on; start the server again"

    def __init__(self, engine: Engine, config: ServeConfig, keys: ApiKeys | None = None) -> None:
        self.config, self.keys, self.state = config, keys or ApiKeys(), ServerState()
        self.metrics = ServerMetrics(self.state)
        self.thread = EngineThread(engine, self.metrics)
        self.broken = self.thread.broken
        self.longest = engine.model.config.language.context_length
        self.created = int(time.time())
        self.chat = ChatRoutes(config, engine, self.thread, self.metrics, _fingerprint(engine))
        routes = [
            Route("/v1/chat/completions", self.chat.chat, methods=["POST"]),
            Route("/tokenize", self.chat.tokenize, methods=["POST"]),
            Route("/v1/look", LookRoute(self.chat, engine).look, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/v1/models/{id:path}", self._model),
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._openapi),
            *(Route(path, page_file) for path in PAGE_FILES),
        ]
        handlers = {HTTPException: on_http_error, LorgnetteError: on_api_error, Exception: on_api_error}
        app = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)
        app.router.redirect_slashes = False
        self.asgi: ASGIApp = Guard(app, config, self.keys, self.state)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.thread.start()
        lag = asyncio.create_task(self._watch_lag())
        try:
            yield
        finally:
            lag.cancel()
            self.thread.fail_all(stopping())
            await self.thread.close()
            self.chat.pool.shutdown(wait=False, cancel_futures=True)

    async def _watch_lag(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(LAG_SECONDS)
            self.metrics.lag.observe(time.monotonic() - began - LAG_SECONDS)

    async def drain(self) -> None:
        """Refuse new requests, wait for those that run, and end the rest once `drain_seconds` have passed."""
        self.state.draining = True
        end = time.monotonic() + self.config.drain_seconds
        while self.thread.open_requests and time.monotonic() < end:
            await asyncio.sleep(0.05)
        self.thread.fail_all(stopping())

    def _row(self) -> ModelRow:
        return ModelRow(
            id=self.config.name,
            object="model",
            created=self.created,
            owned_by="lorgnette",
            root=self.config.name,
            max_model_len=self.longest,
        )

    async def _models(self, _: Request) -> Response:
        return JSONResponse(ModelList(object="list", data=[self._row()]).model_dump())

    async def _model(self, request: Request) -> Response:
        if request.path_params["id"] != self.config.name:
            said = f"there is no such model; this server has {self.config.name} alone"
            raise ApiError(404, said, param="model", code="model_not_found")
        return JSONResponse(self._row().model_dump())

    async def _health(self, _: Request) -> Response:
        if not self.thread.is_healthy:
            raise engine_down()
        return JSONResponse(HealthReply(status="ok").model_dump())

    async def _ready(self, _: Request) -> Response:
        if self.state.draining:
            raise stopping()
        return await self._health(_)

    async def _metrics(self, _: Request) -> Response:
        stats = await self.thread.call(lambda engine: engine.stats())
        return Response(self.metrics.render(stats), media_type="text/plain; version=0.0.4")

    async def _openapi(self, _: Request) -> Response:
        return JSONResponse(openapi())


def _fingerprint(engine: Engine) -> str:
    """Names what decides on equal answers: weights, version, type of numbers and device."""
    model = engine.model
    parts = (engine.config.weights, lorgnette.__version__, str(model.dtype), model.device.type)
    return "fp_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
