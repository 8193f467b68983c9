"""The command line. Each verb imports what it needs when it is called, so that `--help` is instant."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from lorgnette.cli.data_verbs import data
from lorgnette.cli.eval import evaluation
from lorgnette.cli.serve import serve

app = typer.Typer(
    help="Build vision-language models: join a vision encoder to a language model, train, measure and use the result.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(data, name="data")
app.add_typer(evaluation, name="eval")
app.command()(serve)
ModelOption = Annotated[
    str, typer.Option("--model", help="Folder of a model (or of a run), or a hub id (owner/name, owner/name@revision).")
]
SPINS = "3000"
"""Rounds that a thread of a computation (libgomp's) spins before it sleeps, where it waits for the others.

By default they spin so long that they take the cores from the loader and from one another: with other work on two cores
a step of the demo took 9 seconds so, and half a second with this; on a quiet machine it makes no difference.
"""


class Terminated(BaseException):
    """SIGTERM has come: what is open is closed on the way out, as on Ctrl-C."""


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def main() -> None:
    """Run the command line; a lorgnette error is one sentence on stderr and exit status 1 (75 if work was saved)."""
    from lorgnette.errors import LorgnetteError
    from lorgnette.output import adapt_streams
    from lorgnette.untrusted import on_one_line, quoted

    adapt_streams()
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    with contextlib.suppress(ValueError):  # in another thread than the main one signals are not ours
        signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except Terminated:
        typer.secho("lorgnette: terminated; the same command goes on where it was", fg=typer.colors.RED, err=True)
        sys.exit(128 + signal.SIGTERM)
    except LorgnetteError as error:
        if not error.alike or os.environ.get("RANK", "0") == "0":
            typer.secho(f"lorgnette: {on_one_line(str(error))}", fg=typer.colors.RED, err=True)
        sys.exit(error.status)
    except OSError as error:  # a file of the user's that cannot be used as it was meant, at whatever point
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF):
            error.filename = "standard output"  # files are written by doors that name them
        if error.filename is None or error.strerror is None:
            raise
        said = quoted(os.fsdecode(error.filename) if isinstance(error.filename, bytes) else str(error.filename))
        typer.secho(f"lorgnette: {said}: {error.strerror}", fg=typer.colors.RED, err=True)
        sys.exit(1)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the run is written.")] = Path("runs/demo"),
    recipe: Annotated[str, typer.Option(help="Recipe to run, by name or path.")] = "demo",
    override: Annotated[list[str] | None, typer.Argument(help="Settings to change, as stages.0.lr=1e-4.")] = None,
) -> None:
    """Build a small VLM from drawings and show that it sees: before, after, and blind."""
    from lorgnette.demo.demo import run_demo

    run_demo(folder, recipe, override or [])


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Recipe, by name or path; with --plot and --replay a folder.")],
    override: Annotated[list[str] | None, typer.Argument(help="Settings to change, as stages.0.lr=1e-4.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where the run is written; runs/NAME by default.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it will cost; check it with two steps.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the curves of a run's folder to curves.svg.")] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Compute a step again that a run kept.")] = False,
    hours: Annotated[float | None, typer.Option(help="Save and stop after this long, with status 75.", min=0)] = None,
    log: Annotated[list[str] | None, typer.Option(help="Send figures to tensorboard, wandb or trackio too.")] = None,
    changed_data: Annotated[bool, typer.Option("--changed-data", help="Go on though a source has changed.")] = False,
) -> None:
    """Train a recipe's stages, and export the model to FOLDER/model. The same command goes on after a stop.

    Ctrl-C, SIGTERM and --hours save first; the exit status is 75 then, and 1 after an error.
    """
    import lorgnette.cli.train as verb

    if plot:
        print(f"Wrote {verb.plot(Path(recipe))}")
    elif replay:
        verb.replay(Path(recipe))
    elif dry_run:
        verb.plan(verb.load_run(recipe, override or []))
    else:
        run = verb.load_run(recipe, override or [])
        verb.train(run, folder, hours, log or [], changed_data)


@app.command()
def generate(
    prompt: Annotated[str, typer.Option(help="What to say to the model.")],
    model: ModelOption,
    image: Annotated[
        list[Path] | None, typer.Option(help="An image to show before the prompt; as often as you like.")
    ] = None,
    split: Annotated[bool, typer.Option("--split", help="Show each image as four crops and the whole.")] = False,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens in the answer; 256 or the model's own.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 for the likeliest answer; 0 or the model's own.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw among the likeliest tokens that reach this probability.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw among this many likeliest tokens.")] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Draw among tokens of at least this share of the likeliest one's probability.")
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End the answer before this string.")] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds, equal draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask one question about any number of images."""
    from lorgnette.hub.load import load
    from lorgnette.infer.generate import stream
    from lorgnette.infer.sampling import GenerationConfig
    from lorgnette.output import print_json
    from lorgnette.sample import Image, Sample, Text, Turn

    values = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p}
    given = {name: value for name, value in values.items() if value is not None}
    settings = GenerationConfig.parse({**given, "seed": seed, "stop": stop or []}, where="generate")
    sample = Sample((Turn("user"), *(Image(path) for path in image or []), Text(prompt)), {"name": "the prompt"})
    for piece in stream(*load(model), [sample], settings, split=split or None):
        if not as_json:
            print(piece.text, end="", flush=True)
        answer = piece.generation
    if answer is None or not as_json:
        print()
        return
    counts = {"prompt_tokens": answer.prompt_tokens, "tokens": len(answer.tokens)}
    print_json({"text": answer.text, "finish": answer.finish, **counts})


@app.command()
def chat(
    model: ModelOption,
    split: Annotated[bool, typer.Option("--split", help="Show each image as four crops and the whole.")] = False,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens in an answer; 256 or the model's own.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 for the likeliest answer; 0 or the model's own.")] = None,
) -> None:
    """Talk to a model in the terminal; `/image PATH` shows it an image, `/help` lists the commands."""
    from lorgnette.hub.load import load
    from lorgnette.infer.chat import HELP, Chat, converse
    from lorgnette.infer.sampling import GenerationConfig

    values = {"max_tokens": max_tokens, "temperature": temperature}
    given = {name: value for name, value in values.items() if value is not None}
    settings = GenerationConfig.parse(given, where="chat")
    session = Chat(*load(model), settings, split=split or None)
    print(HELP)
    converse(session, _lines_typed(), lambda text: print(text, end="", flush=True))


def _lines_typed() -> Iterator[str]:
    """Yield the lines typed or piped in, until Ctrl-D."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            yield input(prompt)
        except EOFError:
            return


@app.command(name="import")
def import_(
    source: Annotated[str, typer.Argument(help="Folder or hub id of an Idefics2 checkpoint in transformers' format.")],
    folder: Annotated[Path, typer.Argument(help="Where to write it as lorgnette's own.")],
) -> None:
    """Check a checkpoint tensor by tensor and keep it in lorgnette's folder."""
    from lorgnette.hub.export import save
    from lorgnette.hub.load import load

    save(*load(source), folder)
    print(f"Wrote {folder}. See what it holds: lorgnette show {folder}")


@app.command(name="export")
def export_(
    model: ModelOption,
    folder: Annotated[Path, typer.Argument(help="Where to write it in transformers' format.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare with transformers' classes; write parity.json.")
    ] = False,
) -> None:
    """Write a folder that transformers opens with AutoModelForImageTextToText.

    Of a run that is not finished it is the model of the last checkpoint, adapters merged.
    """
    from lorgnette.cli.train import open_model
    from lorgnette.hub.export import export

    export(*open_model(model), folder, verify=verify)
    print(f"Wrote {folder}")
    if verify:
        parity = json.loads((folder / "parity.json").read_text(encoding="utf-8"))
        print(f"transformers' logits are within {parity['parts']['logits']['relative']:.1e} of ours (parity.json)")
        for name, value in parity["not_obeyed"].items():
            print(f"transformers has no setting for images.{name} = {value}: images that it changes look other there")


@app.command()
def presets() -> None:
    """Print the models that a recipe can name: `model: {preset: idefics2}`, or in model.vision and model.language."""
    from lorgnette.cli.preset_list import lines

    print(*lines(), sep="\n")


@app.command()
def show(model: Annotated[str, typer.Argument(help="Folder of a model, or a hub id.")]) -> None:
    """Say what a checkpoint is: parts, parameters, FLOPs per image and token, bytes, special tokens."""
    from lorgnette.hub.describe import describe, print_description

    print_description(describe(model))
