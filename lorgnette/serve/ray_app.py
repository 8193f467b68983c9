"""Ray Serve: replicas of the same application, on one machine or a cluster (extra `ray`).

    serve run lorgnette.serve.ray_app:build model=runs/demo replicas=2

The application is the one that `lorgnette serve` runs, streams and aborts included; Ray's proxy stands before it.
"""

from __future__ import annotations

from typing import Any

from ray import serve
from starlette.types import ASGIApp

from lorgnette.hub.load_settings import LoadSettings
from lorgnette.infer.engine.config import EngineConfig
from lorgnette.serve.config import ServeConfig


class RaySettings(LoadSettings):
    """Settings of a deployment, as `serve run` takes them. Folders are those of every node."""

    name: str = "lorgnette"
    """Id of the model for clients."""
    replicas: int = 1
    cpus: float = 1.0
    """Of each replica."""
    serve: ServeConfig = ServeConfig()
    engine: EngineConfig = EngineConfig()


@serve.deployment
@serve.ingress()
class Replica:
    """One engine and its application, in a process of Ray's."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from lorgnette.infer.engine.engine import Engine
        from lorgnette.serve.app import ServerApp
        from lorgnette.serve.http.api_keys import read_keys

        given = RaySettings.parse(settings)
        limits = given.engine.model_copy(update={"weights": given.digest()})
        # Ray's proxy is what clients name
        config = given.serve.model_copy(update={"name": given.name, "allow_hosts": given.serve.allow_hosts or ("*",)})
        self.served = ServerApp(Engine(*given.open(), limits), config, read_keys(None))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application, made after the replica was."""
        return self.served.asgi

    def check_health(self) -> None:
        """Raises: RuntimeError for an engine that has failed, so that Ray replaces the replica."""
        if self.served.broken.is_set():
            raise RuntimeError(self.served.failure)


def build(arguments: dict[str, Any]) -> serve.Application:
    """The deployment of these settings. Raises: SettingsError naming the one that is wrong."""
    settings = RaySettings.parse(arguments, "serve run")
    options = {"num_replicas": settings.replicas, "ray_actor_options": {"num_cpus": settings.cpus}}
    options["max_ongoing_requests"] = settings.serve.max_open
    options["graceful_shutdown_timeout_s"] = settings.serve.drain_seconds
    deployment: Any = Replica  # what the decorator makes of the class
    return deployment.options(**options).bind(settings.model_dump())
