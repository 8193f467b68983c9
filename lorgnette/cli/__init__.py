"""The command line. Each verb imports what it needs when it is called, so that `--help` is instant."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lorgnette.cli.advice import AdvisedGroup
from lorgnette.cli.ask import generate, look
from lorgnette.cli.data_verbs import data
from lorgnette.cli.eval import evaluation
from lorgnette.cli.model_options import (
    AdapterOption,
    CompileOption,
    DeviceOption,
    DtypeOption,
    KeepAdapterOption,
    ModelOptions,
    QuantizeOption,
    check_words,
)
from lorgnette.cli.serve import serve
from lorgnette.cli.study import study
from lorgnette.cli.tune import tune

app = typer.Typer(
    cls=AdvisedGroup,
    help="Build vision-language models: join a vision encoder to a language model, train, measure and use the result.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from lorgnette.version import code

        print(" ".join(f"{name} {value}" for name, value in code().items() if value))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Build vision-language models: join a vision encoder to a language model, train, measure and use the result."""


app.add_typer(data, name="data")
app.add_typer(evaluation, name="eval")
app.add_typer(study, name="study")
app.command()(generate)
app.command()(look)
app.command()(serve)
app.command()(tune)
ModelOption = Annotated[
    str, typer.Option("--model", help="Folder of a model or run, or a hub id: owner/name, owner/name@revision.")
]
SPINS = "3000"
"""Value of GOMP_SPINCOUNT: rounds that an idle OpenMP thread spins before it sleeps.

By default threads spin so long that they take the cores from the data loader and from one another: with other work on
two cores, a step of the demo took 9 seconds, and half a second with this value. On an idle machine it has no effect.
"""


class Terminated(BaseException):
    """SIGTERM was received. Raised so that files and processes are closed as after Ctrl-C."""


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def main() -> None:
    """Run the command line. A lorgnette error is one sentence on stderr and exit status 1, or 75 if work was saved."""
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
        typer.secho("lorgnette: terminated; the same command resumes", fg=typer.colors.RED, err=True)
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
    folder: Annotated[Path, typer.Option(help="Folder to write the run to.")] = Path("runs/demo"),
    recipe: Annotated[str, typer.Option(help="Recipe, by name or path.")] = "demo",
    override: Annotated[list[str] | None, typer.Argument(help="Settings to change, as stages.0.lr=1e-4.")] = None,
) -> None:
    """Train a small VLM on drawings, and report its accuracy before and after, and with the wrong images."""
    from lorgnette.cli.arguments import check_run
    from lorgnette.run import open_run

    check_run(open_run(recipe, override or []))
    from lorgnette.demo.demo import run_demo

    run_demo(folder, recipe, override or [])


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="Recipe, by name or path; a run's folder with --plot, a kept step's with --replay.")
    ],
    override: Annotated[list[str] | None, typer.Argument(help="Settings to change, as stages.0.lr=1e-4.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder to write the run to; runs/NAME by default.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate memory and FLOPs, and measure two steps; do not train.")
    ] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw loss, rate and speed of a run to curves.svg.")] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Recompute a step whose loss was not finite, and name the samples.")
    ] = False,
    hours: Annotated[
        float | None, typer.Option(help="Save a checkpoint and stop after this time, with exit status 75.", min=0)
    ] = None,
    log: Annotated[list[str] | None, typer.Option(help="Log to tensorboard, wandb or trackio too.")] = None,
    changed_data: Annotated[
        bool, typer.Option("--changed-data", help="Resume although the data of a source have changed.")
    ] = False,
) -> None:
    """Train the stages of a recipe and write the model to FOLDER/model. The same command resumes a stopped run.

    Ctrl-C, SIGTERM and --hours save a checkpoint; the exit status is then 75, and 1 after an error.
    """
    import lorgnette.cli.train as verb
    from lorgnette.cli.arguments import check_recipe
    from lorgnette.run import open_run

    check_recipe(recipe)
    if plot:
        print(f"Wrote {verb.plot(Path(recipe))}")
    elif replay:
        verb.replay(Path(recipe))
    elif dry_run:
        verb.plan(open_run(recipe, override or []))
    else:
        run = open_run(recipe, override or [])
        verb.train(run, folder, hours, log or [], changed_data)


@app.command()
def chat(
    model: ModelOption,
    split: Annotated[bool, typer.Option("--split", help="Show each image in crops, then whole.")] = False,
    max_tokens: Annotated[
        int | None, typer.Option(help="Most tokens in an answer; by default the model's setting, or 256.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Sampling temperature, 0 for greedy; by default the model's setting, or 0.")
    ] = None,
    adapter: AdapterOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = None,
    keep_adapter: KeepAdapterOption = False,
    compiled: CompileOption = False,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Name pictures by their size alone, also where the terminal shows them.")
    ] = False,
) -> None:
    """Chat with a model in the terminal; `/image PATH` adds an image, `/help` lists the commands."""
    from lorgnette.infer.generation_config import GenerationConfig

    values = {"max_tokens": max_tokens, "temperature": temperature}
    given = {name: value for name, value in values.items() if value is not None}
    settings = GenerationConfig.parse(given, where="chat")
    opened = ModelOptions(model, adapter, device, dtype, quantize, keep_adapter, compiled).found()
    from lorgnette.infer.chat import HELP, Chat, converse
    from lorgnette.report.terminal_images import picture_writer

    session = Chat(*opened.load(), settings, split=split or None)
    print(HELP)
    converse(session, _lines_typed(), lambda text: print(text, end="", flush=True), picture_writer(no_images))


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
    source: Annotated[
        str, typer.Argument(help="Folder or hub id of an Idefics1, 2 or 3, SmolVLM or LLaVA in transformers' format.")
    ],
    folder: Annotated[Path, typer.Argument(help="Folder to write it to, in lorgnette's format.")],
) -> None:
    """Check a checkpoint tensor by tensor and write it in lorgnette's format."""
    from lorgnette.cli.arguments import find_model

    found = find_model(source)
    from lorgnette.hub.export import save
    from lorgnette.hub.load import load

    save(*load(found), folder)
    print(f"Wrote {folder}. See what it holds: lorgnette show {folder}")


@app.command(name="export")
def export_(
    model: ModelOption,
    folder: Annotated[Path, typer.Argument(help="Folder to write it to, in transformers' format.")],
    format: Annotated[
        str, typer.Option(help="Model of transformers to write: idefics2, idefics1, idefics3, smolvlm, llava.")
    ] = "idefics2",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare its logits with transformers' classes; write parity.json.")
    ] = False,
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = None,
    push: Annotated[str | None, typer.Option(help="Upload the folder to owner/name on the hub, too.")] = None,
    private: Annotated[
        bool, typer.Option("--private", help="With --push: a repository that is made is private.")
    ] = False,
    license: Annotated[str | None, typer.Option(help="Licence of the weights for the card, as apache-2.0.")] = None,
) -> None:
    """Write a folder that transformers opens with AutoModelForImageTextToText.

    An unfinished run is exported from its last checkpoint. Adapters are merged. The card says what a run was trained
    on, from which models, and its scores. --dtype is that of the weights written, --quantize int8 stores the decoder's
    as integers, which are opened so;
    --verify compares both in float32 on the CPU, where nothing but a mistake makes them differ.
    """
    from lorgnette.cli.arguments import find_model, is_unfinished
    from lorgnette.cli.train import open_model
    from lorgnette.errors import SettingsError

    check_words("cpu", dtype)
    if push is None and private:
        raise SettingsError("export: --private is of the repository that --push makes; give --push owner/name")
    if push is not None:
        from lorgnette.hub.export import check_push

        check_push(push)
    if not is_unfinished(model):
        model = find_model(model)
    from lorgnette.hub.card import CardFacts
    from lorgnette.hub.checkpoint_hash import checkpoint_digest
    from lorgnette.hub.export import export
    from lorgnette.hub.formats.format import format_named
    from lorgnette.train.logging.run_card import facts_of_folder

    format_named(format)  # before weights are read
    facts = replace(facts_of_folder(Path(model)) or CardFacts(), license=license or "")
    if quantize is not None and not is_unfinished(model):
        facts = replace(facts, rounded_from=checkpoint_digest(model))
    export(*open_model(model, dtype), folder, format=format, verify=verify, quantize=quantize, facts=facts)
    print(f"Wrote {folder}")
    if verify:
        parity = json.loads((folder / "parity.json").read_text(encoding="utf-8"))
        print(f"transformers' logits are within {parity['parts']['logits']['relative']:.1e} of ours (parity.json)")
        for name, value in parity["not_obeyed"].items():
            print(f"transformers has no setting for images.{name} = {value}: it resizes such images differently")
    if push is not None:
        from lorgnette.hub.export import push as upload

        print(f"Pushed to {upload(folder, push, private=private)}")


@app.command()
def presets() -> None:
    """List the presets of models and backbones that a recipe can name, as in `model: {preset: idefics2}`."""
    from lorgnette.train.planner.preset_list import lines

    print(*lines(), sep="\n")


@app.command()
def settings(
    path: Annotated[str, typer.Argument(help="Dotted path of a group or setting, as stages.lora; all if empty.")] = "",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of recipes, for editors.")] = False,
) -> None:
    """List the settings of a recipe with their types, defaults and meanings."""
    from lorgnette.cli import settings_reference
    from lorgnette.output import print_json

    if schema:
        print_json(settings_reference.schema())
    else:
        print(*settings_reference.lines(path), sep="\n")


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="Folder of a model, a hub id, or a recipe.")],
    compare: Annotated[
        list[str] | None, typer.Option("--compare", help="Model or recipe to put beside it; may be repeated.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Memory of a server: weights, a token, an image, requests side by side.")
    ] = False,
    kv_mib: Annotated[int, typer.Option(help="Memory of the KV cache in MiB, as of `serve`; with --serve.")] = 1024,
) -> None:
    """Describe a checkpoint or recipe: parts, parameters, FLOPs per image, token and sample, bytes, special tokens."""
    from lorgnette.cli.arguments import check_shown
    from lorgnette.errors import SettingsError
    from lorgnette.output import new_console
    from lorgnette.train.planner.recipe_names import recipe_of

    for one in (model, *(compare or [])):
        check_shown(one)
    if serve:
        if compare or recipe_of(model):
            raise SettingsError("show: --serve is about one checkpoint; leave out --compare, and name no recipe")
        from lorgnette.cli.inspect import print_serving

        print_serving(model, kv_mib)
        return
    from lorgnette.hub.describe import describe, print_description
    from lorgnette.train.planner.cost_table import CostedModel, print_costs

    if compare or recipe_of(model):
        print_costs(new_console(), [CostedModel.open(one) for one in (model, *(compare or []))])
    else:
        print_description(describe(model))
