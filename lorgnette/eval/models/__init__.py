"""Models that are measured: one of ours, any model of transformers, or a server. One string names each."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from typing import Any, TypedDict, Unpack

from lorgnette.errors import SettingsError
from lorgnette.eval.models.base import Model, with_crops
from lorgnette.eval.models.http_client import ServerSettings
from lorgnette.eval.models.openai_api import OpenAIModel
from lorgnette.hub.source import check_transformers, find_folder

TRANSFORMERS = "transformers:"
MODEL_NAMES = "a folder or hub id of lorgnette's; transformers:FOLDER_OR_ID; http(s)://HOST:PORT/v1#MODEL"


class Opening(TypedDict, total=False):
    """Options with which a model is opened."""

    adapter: str | None
    device: str
    dtype: str
    quantize: str | None
    keep_adapter: bool
    compile: bool


def find_model(
    spec: str,
    *,
    split: bool | None = None,
    batch_size: int = 16,
    server: ServerSettings | None = None,
    **opening: Unpack[Opening],
) -> Callable[[], Model]:
    """Find the model that a string names, for `--model` and `--judge` alike. Returns a function that opens it.

    Names are checked and fetched here, and torch is imported when the model is opened.
    spec: a folder or hub id that `lorgnette.load` opens; `transformers:` and a folder or hub id, for any
    `AutoModelForImageTextToText`; or the address of a server of OpenAI's chat completions, `#` and the model's name.
    split: images in five crops or one; None as the model has it. batch_size: prompts answered together.
    server: pace, limits and key of requests to a server.
    adapter: of PEFT, merged into a model of lorgnette's, or beside its weights where `keep_adapter` says so.
    quantize, compile: of a model of lorgnette's, as of `lorgnette.load`.
    device, dtype: as of `lorgnette.load`; `auto` is a GPU where there is one, and the type that is stored (of a model
    of transformers, bfloat16 on a GPU of CUDA and float32 elsewhere).
    Raises: SettingsError for a string that reads otherwise, CheckpointError for a model that cannot be opened.
    """
    adapter, device, dtype = opening.get("adapter"), opening.get("device", "auto"), opening.get("dtype", "auto")
    _check_ours(spec, opening)
    if spec.startswith(TRANSFORMERS):
        if spec == TRANSFORMERS:
            raise SettingsError("transformers: names no model; write transformers:FOLDER_OR_ID")
        check_transformers(spec.removeprefix(TRANSFORMERS))

        def opened_by_transformers() -> Model:
            from lorgnette.eval.models.transformers_model import open_transformers

            name = spec.removeprefix(TRANSFORMERS)
            return open_transformers(name, split=split, batch_size=batch_size, device=device, dtype=dtype)

        return opened_by_transformers
    if "://" in spec:
        _check_server(device, dtype)
        if split is not None:
            raise SettingsError(f"{spec}: a server cuts images as it likes; leave out --split and --no-split")
        address, name = parse_server(spec)
        return lambda: OpenAIModel(address, name, server)
    if not spec:
        raise SettingsError(f"an empty name; give {MODEL_NAMES}")
    folder, words = str(find_folder(spec)), None if adapter is None else str(find_folder(adapter))

    def opened_here() -> Model:
        from lorgnette.eval.models.local import LorgnetteModel
        from lorgnette.hub.load_settings import LoadSettings

        chosen: dict[str, Any] = {**opening, "model": folder, "adapter": words}
        source = LoadSettings(**chosen)
        facts: dict[str, Any] = {"identity": with_crops(_identity(spec, opening), split), "weights": source.digest()}
        return LorgnetteModel(*source.open(), **facts, split=split, batch_size=batch_size)

    return opened_here


def _identity(spec: str, opening: Opening) -> str:
    """The name of a model that lorgnette opens, with what is changed in it."""
    adapter, numbers = opening.get("adapter"), opening.get("quantize") or opening.get("dtype", "auto")
    name = f"{spec} with {adapter}" if adapter else spec
    name += ", kept" if opening.get("keep_adapter") else ""
    return name if numbers == "auto" else f"{name} in {numbers}"


def _check_server(device: str, dtype: str) -> None:
    """Refuse options that a server chooses itself. Raises: SettingsError naming the option."""
    for option, value in (("--device", device), ("--dtype", dtype)):
        if value != "auto":
            raise SettingsError(f"{option} {value}: a server chooses that itself; leave it out")


def _check_ours(spec: str, opening: Opening) -> None:
    """Refuse options for a model that lorgnette does not open itself. Raises: SettingsError naming the option."""
    if spec.startswith(TRANSFORMERS) or "://" in spec:
        if (adapter := opening.get("adapter")) is not None:
            raise SettingsError(f"--adapter {adapter}: is merged into models that lorgnette opens, and {spec} is none")
        if opening.get("keep_adapter"):
            raise SettingsError(f"--keep-adapter: is for models that lorgnette opens, and {spec} is none")
        if opening.get("compile"):
            raise SettingsError(f"--compile: is for models that lorgnette opens, and {spec} is none")
        if (quantize := opening.get("quantize")) is not None:
            raise SettingsError(f"--quantize {quantize}: is for models that lorgnette opens, and {spec} is none")


def open_model(spec: str, **options: Any) -> Model:
    """Open the model that a string names; the options and errors are those of `find_model`."""
    return find_model(spec, **options)()


def parse_server(spec: str) -> tuple[str, str]:
    """The address of a server, up to `/v1`, and the model's name.

    Raises: SettingsError for what is no address, names no model, or holds a password or a query: it would be stored.
    """
    address, _, model = spec.partition("#")
    try:
        parts = urllib.parse.urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise SettingsError(f"{address}: is no address ({error}); write it as http(s)://HOST:PORT/v1#MODEL") from None
    if "@" in parts.netloc or parts.query:
        kind = f"{parts.scheme}://{host}"
        raise SettingsError(
            f"{kind}: a password or a query in an address would be stored; give a key by --key-variable"
        )
    if parts.scheme not in ("http", "https") or not host:
        raise SettingsError(f"{spec}: is no server's address; write it as http(s)://HOST:PORT/v1#MODEL")
    if not model:
        raise SettingsError(f"{spec}: names no model; write it after the address, as {address}#MODEL")
    return address.rstrip("/").removesuffix("/chat/completions"), model
