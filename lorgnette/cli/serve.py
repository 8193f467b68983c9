"""The verb `lorgnette serve`."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from lorgnette.cli.model_options import (
    AdapterOption,
    CompileOption,
    DeviceOption,
    DtypeOption,
    KeepAdapterOption,
    ModelOptions,
    QuantizeOption,
)

NEEDED = ("starlette", "uvicorn", "httptools", "prometheus_client", "llguidance")
"""Packages of the extra `serve`, without which there is no server."""


def serve(
    model: Annotated[str, typer.Argument(help="Folder of a model (or of a run), or a hub id.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every interface.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.")] = 8000,
    adapter: AdapterOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = None,
    keep_adapter: KeepAdapterOption = False,
    compiled: CompileOption = False,
    name: Annotated[
        str | None, typer.Option(help="Id of the model for clients; the folder's name if not given.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with one API key a line; LORGNETTE_API_KEYS may hold some too.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that the Host header may have; * for any.")
    ] = None,
    allow_image_urls: Annotated[
        bool, typer.Option("--allow-image-urls", help="Fetch images from public addresses.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse keys of a request that are not known.")] = False,
    max_running: Annotated[int, typer.Option(help="Answers that grow side by side.")] = 16,
    max_waiting: Annotated[int, typer.Option(help="Requests that may wait for a place.")] = 64,
    queue_seconds: Annotated[float, typer.Option(help="Time for which a request waits for a place at most.")] = 60.0,
    workers: Annotated[int, typer.Option(help="Processes with an engine each, behind one address.")] = 1,
    max_images: Annotated[int, typer.Option(help="Images of one request.")] = 16,
    kv_mib: Annotated[int, typer.Option(help="Memory of the KV cache in MiB.")] = 1024,
    image_kv_mib: Annotated[
        int | None, typer.Option(help="Memory in MiB for what cross-attention keeps of images; else a quarter of that.")
    ] = None,
    image_cache_mib: Annotated[
        int, typer.Option(help="Memory in MiB of the visual tokens of images seen before.")
    ] = 256,
    drain_seconds: Annotated[float, typer.Option(help="Time that answers get to end after SIGTERM.")] = 30.0,
    log_content: Annotated[bool, typer.Option("--log-content", help="Write prompts and answers to the log.")] = False,
) -> None:
    """Answer OpenAI's chat completions over HTTP, many at a time, until Ctrl-C or SIGTERM."""
    from lorgnette.errors import SettingsError

    if missing := [package for package in NEEDED if importlib.util.find_spec(package) is None]:
        raise SettingsError(f"a server needs {missing[0]}; run: pip install 'lorgnette[serve]'")
    from lorgnette.infer.engine.config import EngineConfig
    from lorgnette.serve.config import ServeConfig

    values: dict[str, Any] = {
        "host": host,
        "port": port,
        "name": name or _short_name(model),
        "allow_hosts": tuple(allow_host or ()),
        "allow_image_urls": allow_image_urls,
        "strict": strict,
        "max_images": max_images,
        "workers": workers,
        "drain_seconds": drain_seconds,
        "log_content": log_content,
    }
    limits: dict[str, float] = {"max_running": max_running, "max_waiting": max_waiting, "queue_seconds": queue_seconds}
    limits |= {"kv_bytes": kv_mib * 2**20, "image_bytes": image_cache_mib * 2**20}
    if image_kv_mib is not None:
        limits["image_kv_bytes"] = image_kv_mib * 2**20
    opened = ModelOptions(model, adapter, device, dtype, quantize, keep_adapter, compiled)
    _serve(opened, ServeConfig.parse(values, "serve"), EngineConfig.parse(limits, "serve"), api_key_file)


def _short_name(model: str) -> str:
    """The last part of a path or hub id that says something."""
    parts = [part for part in model.replace("\\", "/").split("/") if part not in ("", ".", "..", "model")]
    return parts[-1] if parts else "lorgnette"


def _serve(model: ModelOptions, config: Any, limits: Any, api_key_file: Path | None) -> None:
    """Load the model and serve it. The socket is taken first: a port in use is said before the weights are read."""
    import logging

    found = model.found()
    from lorgnette.serve.http.api_keys import read_keys
    from lorgnette.serve.server import DrainingServer, address_of, listen
    from lorgnette.serve.start_page import curl_line, python_snippet

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("uvicorn", "httpx2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    keys = read_keys(api_key_file)
    with listen(config.host, config.port) as listener:
        address, open_keys = address_of(listener), bool(keys)

        def greet() -> None:
            print(f"Serving {model.model} as {config.name} at {address}\n", flush=True)
            print(curl_line(address, config.name, open_keys), end="\n\n")
            print(python_snippet(address, config.name, open_keys), flush=True)
            if not open_keys and not config.is_loopback:
                typer.secho(
                    f"\nAnyone who reaches {config.host} may ask: there is no key. Give --api-key-file.",
                    fg=typer.colors.YELLOW,
                    err=True,
                )

        if config.workers > 1:
            with _router(found, config, limits, keys, greet) as app:
                DrainingServer(app, listener).run_here()
            return
        from lorgnette.infer.engine.engine import Engine
        from lorgnette.serve.app import ServerApp

        engine = Engine(*found.load(), limits.model_copy(update={"weights": found.digest()}))
        DrainingServer(ServerApp(engine, config, keys), listener, greet).run_here()


@contextlib.contextmanager
def _router(found: ModelOptions, config: Any, limits: Any, keys: Any, greet: Callable[[], None]) -> Iterator[Any]:
    """The application before several workers, whose sockets are in a folder of this user's alone."""
    from lorgnette.serve.fleet.router import RouterApp, worker_jobs
    from lorgnette.serve.fleet.worker_main import WorkerJob

    with tempfile.TemporaryDirectory(prefix="lorgnette-") as sockets:
        job = WorkerJob(
            **found.settings().model_dump(),
            socket="",
            serve=config,
            engine=limits,
            with_keys=bool(keys),
        )
        yield RouterApp(worker_jobs(job, sockets, config.workers), config, keys, greet)
