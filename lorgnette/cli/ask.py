"""The verbs `generate` (one question on the terminal, or many into a file) and `look` (where an answer came from)."""

from __future__ import annotations

import hashlib
import json
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
from lorgnette.errors import DataError, SettingsError


def generate(
    model: Annotated[str, typer.Option(help="Folder of a model (or of a run), or a hub id.")],
    prompt: Annotated[str | None, typer.Option(help="Text of the question.")] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="Image shown before the prompt; repeat it for several images.")
    ] = None,
    folder: Annotated[
        str | None, typer.Option(help="Ask the prompt about each image of this folder (or glob), into --out.")
    ] = None,
    rows: Annotated[
        str | None, typer.Option(help="Ask the prompt of each row of this file (JSONL, CSV, parquet ...), into --out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File of the answers, .jsonl or .parquet; the same command resumes it.")
    ] = None,
    max_running: Annotated[int, typer.Option(help="Answers that grow side by side, with --folder or --rows.")] = 16,
    split: Annotated[bool, typer.Option("--split", help="Show each image in crops, then whole.")] = False,
    max_tokens: Annotated[
        int | None, typer.Option(help="Most tokens in the answer; by default the model's setting, or 256.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Sampling temperature, 0 for greedy; by default the model's setting, or 0.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Sample from the most likely tokens with this total probability.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from this many most likely tokens.")] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Sample from tokens with at least this share of the largest probability.")
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End the answer before this string; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of sampling.")] = 0,
    adapter: AdapterOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = None,
    keep_adapter: KeepAdapterOption = False,
    compiled: CompileOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask one question about any number of images, or one about each image of a folder or row of a file."""
    values = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p}
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    given |= {"seed": seed, "stop": stop or []}
    opened = ModelOptions(model, adapter, device, dtype, quantize, keep_adapter, compiled)
    if folder is None and rows is None:
        if prompt is None:
            raise SettingsError("generate: give --prompt, or --rows for a file whose rows have prompts of their own")
        if out is not None:
            raise SettingsError("generate: --out is for --folder and --rows; one answer is printed")
        _ask(opened, prompt, image or [], given, split, as_json)
        return
    if folder is not None and rows is not None:
        raise SettingsError("generate: give --folder or --rows, not both")
    if out is None or image or as_json:
        raise SettingsError("generate: --folder and --rows take --out FILE, and neither --image nor --json")
    if folder is not None and prompt is None:
        raise SettingsError("generate: --folder needs --prompt, the question about each image")
    _answer_all(opened, (folder, rows, prompt), out, given, split, max_running)


def _ask(
    model: ModelOptions, prompt: str, images: list[Path], given: dict[str, Any], split: bool, as_json: bool
) -> None:
    """Print the answer to one question as it is generated."""
    from lorgnette.infer.generation_config import GenerationConfig
    from lorgnette.output import print_json
    from lorgnette.sample import Image, Sample, Text, Turn

    settings = GenerationConfig.parse(given, where="generate")
    model = model.found()
    from lorgnette.infer.generate import stream

    sample = Sample((Turn("user"), *(Image(path) for path in images), Text(prompt)), {"name": "the prompt"})
    answer = None
    for piece in stream(*model.load(), [sample], settings, split=split or None):
        if not as_json:
            print(piece.text, end="", flush=True)
        answer = piece.generation
    if answer is None or not as_json:
        print()
        return
    counts = {"prompt_tokens": answer.prompt_tokens, "tokens": len(answer.tokens)}
    print_json({"text": answer.text, "finish": answer.finish, **counts})


def _answer_all(
    model: ModelOptions,
    asked: tuple[str | None, str | None, str | None],
    out: Path,
    given: dict[str, Any],
    split: bool,
    max_running: int,
) -> None:
    """Answer every image or row into a file. What is asked is looked at before the weights are read."""
    model = model.found()
    from lorgnette.infer.engine.config import EngineConfig
    from lorgnette.infer.engine.request import SamplingParams
    from lorgnette.offline.prompt_rows import image_prompts, row_prompts

    folder, rows, prompt = asked
    params = SamplingParams.parse(given, where="generate")
    limits = EngineConfig.parse({"max_running": max_running}, "generate")
    found = row_prompts(rows, prompt) if rows is not None else image_prompts(str(folder), str(prompt))

    decides = {"model": model.digest(), **model.chosen_dtype, "prompt": prompt, "split": split, **params.plain()}
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]

    from lorgnette.offline.answer_file import AnswerFile

    file = AnswerFile(out, digest)
    try:
        _run(file, found, params, (model, limits, split))
    finally:
        file.close()


def _run(file: Any, found: Any, params: Any, opened: tuple[ModelOptions, Any, bool]) -> None:
    import time

    from lorgnette.infer.engine.engine import Engine
    from lorgnette.offline.offline_inference import run_job
    from lorgnette.output import new_console, progress_bar, say, shown_in

    model, limits, split = opened
    console = new_console(stderr=True)
    engine = Engine(*model.load(), limits)
    began = time.perf_counter()
    with progress_bar(console) as bar:
        report = run_job(engine, found, file, params, split=split or None, on_done=shown_in(bar, "answers"))
    seconds = time.perf_counter() - began
    if report.before:
        say(console, f"{report.before:,} were answered before")
    rate = f"{report.answered / seconds:.1f} answers/s, {report.tokens / seconds:,.0f} tokens/s"
    say(console, f"{report.answered:,} answered in {seconds:,.0f} s ({rate}): {file.path}")
    for row in report.failed[:3]:
        say(console, f"no answer to {row['id']}: {row['error']}")
    if report.failed:
        said = f"{len(report.failed):,} of {len(found.ids):,} have no answer; `error` in {file.path} says why"
        if not report.answered and not report.before:
            raise DataError(said)
        say(console, f"{said}; the same command tries them again")


def look(
    model: Annotated[str, typer.Option(help="Folder of a model (or of a run), or a hub id.")],
    image: Annotated[list[Path] | None, typer.Argument(help="Image to ask about, or several.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Text of the question.")] = None,
    answer: Annotated[
        str | None, typer.Option(help="Text to look up in the image, in place of the model's own answer.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Page to write (.html), or picture (.png).")] = Path("look.html"),
    max_tokens: Annotated[int, typer.Option(help="Most tokens of the model's own answer.", min=1)] = 64,
    adapter: AdapterOption = None,
    keep_adapter: KeepAdapterOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    check: Annotated[
        int | None, typer.Option(help="Check the maps on so many built-in scenes instead; print JSON.", min=2)
    ] = None,
) -> None:
    """Show where in the image an answer came from: a page of maps, each checked on its own picture."""
    if check is not None:
        if image or prompt or answer:
            raise SettingsError("look: --check asks about built-in scenes; leave out images, --prompt and --answer")
        _check_maps(ModelOptions(model, adapter, device, dtype, keep_adapter=keep_adapter), check)
        return
    if not image or not prompt:
        raise SettingsError("look: give an image and --prompt, or --check 100")
    opened = ModelOptions(model, adapter, device, dtype, keep_adapter=keep_adapter).found()
    from lorgnette.look.look import asked
    from lorgnette.look.look import look as find
    from lorgnette.look.look_page import sentences, write_look
    from lorgnette.look.scene_check import other_pictures
    from lorgnette.output import new_console, say
    from lorgnette.sample import Image

    sample = asked([Image(path) for path in image], prompt)
    found = find(*opened.load(), sample, answer=answer, others=other_pictures(), max_tokens=max_tokens)
    write_look(found, out, model, prompt)
    console = new_console()
    for line in (found.answer, *sentences(found), f"Wrote {out}"):
        say(console, line)


def _check_maps(model: ModelOptions, count: int) -> None:
    model = model.found()
    from lorgnette.look.scene_check import check_scenes
    from lorgnette.output import new_console, print_json, progress_bar, shown_in

    parts = model.load()
    with progress_bar(new_console(stderr=True)) as bar:
        found = check_scenes(*parts, count, shown_in(bar, "scenes"))
    print_json(found.plain())
