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

from lorgnette.hub.load_settings import LoadSettings
from lorgnette.infer.engine.config import EngineConfig
from lorgnette.serve.config import ServeConfig
from lorgnette.serve.http.api_keys import ApiKeys

OWNER = "Owner "
"""Beginning of the Authorization header by which the router says who asks."""


class WorkerJob(LoadSettings):
    """Settings of one worker."""

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
    from lorgnette.infer.engine.engine import Engine
    from lorgnette.serve.app import ServerApp
    from lorgnette.serve.server import DrainingServer

    engine = Engine(*job.open(), job.engine.model_copy(update={"weights": job.digest()}))
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
