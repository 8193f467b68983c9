"""A worker: a server of one engine on a Unix socket, for a router of the same user alone.

    python -m lorgnette.serve.fleet.worker_main < job

The job is one line of JSON. The worker ends when its standard input does: it does not outlive its router.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from typing import Any

from lorgnette.infer.engine.config import EngineConfig
from lorgnette.serve.config import ServeConfig
from lorgnette.serve.http.api_keys import ApiKeys
from lorgnette.settings import Settings

OWNER = "Owner "
"""Beginning of the Authorization header by which the router says who asks."""


class WorkerJob(Settings):
    """Settings of one worker."""

    model: str
    """Folder of the model."""
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None
    keep_adapter: bool = False
    compile: bool = False
    """As of `lorgnette.load`."""
    socket: str
    serve: ServeConfig
    engine: EngineConfig
    with_keys: bool = False
    """Router asks for keys."""


class ForwardedKeys(ApiKeys):
    """Owners as the router names them, who has checked their keys."""

    def __init__(self, with_keys: bool) -> None:
        super().__init__()
        self.with_keys = with_keys

    def __bool__(self) -> bool:
        return self.with_keys

    def owner(self, authorization: str) -> str | None:
        """The owner that the router names; the empty name where it asks for no keys."""
        return authorization[len(OWNER) :] if authorization.startswith(OWNER) else ""


def unix_listener(path: str) -> socket.socket:
    """A Unix socket that listens. What a killed worker left at its path is removed."""
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(1024)
    return listener


def serve_job(job: WorkerJob) -> None:
    """Load the model and serve it until SIGTERM, or until standard input ends."""
    from lorgnette.hub.checkpoint_hash import digest_with_adapter
    from lorgnette.hub.load import load
    from lorgnette.infer.engine.engine import Engine
    from lorgnette.model.ops.device import choose_device
    from lorgnette.serve.app import ServerApp
    from lorgnette.serve.server import DrainingServer

    weights = digest_with_adapter(job.model, job.adapter, job.quantize, merge=not job.keep_adapter)
    chosen: dict[str, Any] = {"dtype": job.dtype, "adapter": job.adapter, "quantize": job.quantize}
    chosen |= {"merge": not job.keep_adapter, "compile": job.compile}
    opened = load(job.model, device=choose_device(job.device), **chosen)
    engine = Engine(*opened, job.engine.model_copy(update={"weights": weights}))
    with unix_listener(job.socket) as listener:
        server = DrainingServer(ServerApp(engine, job.serve, ForwardedKeys(job.with_keys)), listener)

        def watch() -> None:
            sys.stdin.read()
            server.stop()

        threading.Thread(target=watch, daemon=True).start()
        server.run_here()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {os.getpid()} %(levelname)s %(message)s")
    for noisy in ("uvicorn", "httpx2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from lorgnette.errors import LorgnetteError

    try:
        serve_job(WorkerJob.model_validate_json(sys.stdin.readline()))
    except LorgnetteError as error:
        print(f"lorgnette: {error}", file=sys.stderr)
        sys.exit(getattr(error, "status", 1))


if __name__ == "__main__":
    main()
