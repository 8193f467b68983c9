"""`lorgnette eval`: evaluate a model on benchmarks; list them; write their training splits; check batch invariance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorgnette.cli import results as stored
from lorgnette.cli.advice import AdvisedGroup
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

if TYPE_CHECKING:
    from lorgnette.eval.benchmark import Asking
    from lorgnette.eval.models.base import Model
    from lorgnette.eval.results.store import Result
    from lorgnette.eval.task import Task
    from lorgnette.infer.batch_invariance import Diagnosis
    from lorgnette.sample import ImageSource

WHO = (
    "Model to evaluate: folder of a model or run, or a hub id; transformers:FOLDER_OR_ID for any"
    " AutoModelForImageTextToText; http(s)://HOST:PORT/v1#MODEL for an OpenAI-compatible server."
)

BLIND = ("only", "both")
"""Values of --blind; the first is meant where none is given."""


class _WithBareBlind(AdvisedGroup):
    """Command group in which `--blind` needs no value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        bare = [one for one, following in pairwise([*args, ""]) if one == "--blind" and following not in BLIND]
        if bare:
            place = args.index("--blind")
            args = [*args[: place + 1], BLIND[0], *args[place + 1 :]]
        return list(super().parse_args(ctx, args))


evaluation = typer.Typer(cls=_WithBareBlind, help="Evaluate a model on benchmarks; compare and rescore results.")
for verb in (stored.rescore, stored.compare, stored.submission):
    evaluation.command()(verb)


@evaluation.callback(invoke_without_command=True)
def evaluate(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help=WHO)] = None,
    adapter: AdapterOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = None,
    keep_adapter: KeepAdapterOption = False,
    compiled: CompileOption = False,
    tasks: Annotated[
        str,
        typer.Option(help="Benchmarks, separated by commas: NAME, NAME:SPLIT, package.module:Name; or files of rows."),
    ] = "drawings",
    metric: Annotated[
        str | None, typer.Option(help="Metric, instead of the benchmark's or the one chosen for your file.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Kind of your files (chat, instruct, pairs, ...), if it is not clear from them.")
    ] = None,
    shots: Annotated[int, typer.Option(min=0, help="Few-shot examples before each question.")] = 0,
    choose: Annotated[
        str, typer.Option(help="Choice of the examples: random, rices (similar images) or text (without images).")
    ] = "random",
    pool: Annotated[int, typer.Option(min=1, help="Rows of the training split to choose examples from.")] = 2048,
    form: Annotated[
        str | None, typer.Option(help="Prompt form: chat or base; by default base with --shots, otherwise chat.")
    ] = None,
    variant: Annotated[str, typer.Option(help="Prompt templates: paper, lmms-eval or vlmevalkit.")] = "paper",
    choices: Annotated[str, typer.Option(help="Multiple choice by generation or by likelihood.")] = "generation",
    split: Annotated[
        bool | None, typer.Option("--split/--no-split", help="Images in five crops (320 visual tokens) or one (64).")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Place of a benchmark, NAME=PATH or NAME/SPLIT=PATH; a path or a hub id.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens in an answer, instead of the benchmark's limit.")
    ] = None,
    incomplete: Annotated[bool, typer.Option("--incomplete", help="Accept data with missing rows.")] = False,
    blind: Annotated[
        str | None,
        typer.Option(
            help="Image-shuffled baseline: each question with another sample's image; `both` compares the two."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Ask only this many questions, drawn by --seed.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the examples, of --limit and of --blind.")] = 0,
    judge: Annotated[
        str | None, typer.Option(help="Model that extracts the answers of MathVista that the rules cannot.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Questions in a batch; does not change scores.")] = 32,
    concurrency: Annotated[int, typer.Option(help="Server: most requests at the same time, up to a batch.")] = 8,
    per_minute: Annotated[float | None, typer.Option(help="Server: most requests a minute.")] = None,
    timeout: Annotated[float, typer.Option(help="Server: seconds to wait for a request.")] = 120.0,
    key_variable: Annotated[
        str | None, typer.Option(help="Server: environment variable with the API key; OPENAI_API_KEY by default.")
    ] = None,
    judge_key_variable: Annotated[
        str | None, typer.Option(help="Same as --key-variable, for the server of the judge.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder to store every answer in. The same command resumes; ranks of torchrun share it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Evaluate a model on benchmarks: scores with 95 % intervals, over all questions and by kind."""
    if context.invoked_subcommand is not None:
        return
    from lorgnette.errors import SettingsError
    from lorgnette.eval.benchmark import Asking
    from lorgnette.eval.models import find_model
    from lorgnette.eval.models.http_client import ServerSettings

    if model is None:
        raise SettingsError("no model to evaluate; give one as --model FOLDER")
    if blind not in (*BLIND, None):
        raise SettingsError(f"--blind {blind}: use one of {', '.join(BLIND)}")
    values = {"variant": variant, "form": form, "choose": choose, "choices": choices}
    asking = Asking(
        **_checked(values),
        shots=shots,
        pool=pool,
        seed=seed,
        data=_places(data or []),
        max_tokens=max_tokens,
        incomplete=incomplete,
    )
    asked = {"concurrency": concurrency, "per_minute": per_minute, "timeout": timeout}
    server, judging = (
        ServerSettings.parse(asked | {"key_variable": name}, "how a server is asked")
        for name in (key_variable, judge_key_variable)
    )
    check_words(device, dtype)
    chosen: dict[str, Any] = {"adapter": adapter, "device": device, "dtype": dtype, "quantize": quantize}
    chosen |= {"keep_adapter": keep_adapter, "compile": compiled}
    found = find_model(model, split=split, batch_size=batch_size, server=server, **chosen)
    judges = find_model(judge, batch_size=batch_size, server=judging) if judge else None
    opened, measured = _open(tasks, asking, found, kind, metric)
    reader = judges() if judges else None
    conditions = {"blind": blind == "only", "limit": limit, "seed": seed, "batch_size": batch_size}
    if blind != "both":
        _show(_run(opened, measured, reader, folder, conditions), as_json)
        return
    without, sighted = (
        _run(opened, measured, reader, folder and folder / side, conditions | {"blind": side == "blind"})
        for side in ("blind", "sighted")
    )
    _show_gain(without, sighted, as_json)


@evaluation.command(name="tasks")
def list_tasks() -> None:
    """List the benchmarks with their metrics, splits and licences."""
    from rich.table import Table

    from lorgnette.eval.tasks import BENCHMARKS, benchmark_named
    from lorgnette.output import new_console
    from lorgnette.plugins import installed

    table = Table("task", "about", "metric", "splits (rows)", "licence")
    for benchmark in map(benchmark_named, [*BENCHMARKS, *installed("benchmarks")]):
        sizes = {name: f"{split.size:,}" if split.size else "?" for name, split in benchmark.splits.items()}
        splits = ", ".join(f"{'*' * (name == benchmark.split)}{name} ({size})" for name, size in sizes.items())
        table.add_row(benchmark.name, benchmark.about, benchmark.metric, splits, benchmark.licence)
    new_console().print(table)


@evaluation.command()
def training(
    task: Annotated[str, typer.Argument(help="Benchmark: NAME or NAME:SPLIT.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write the rows to.")],
    variant: Annotated[str, typer.Option(help="Prompt templates: paper, lmms-eval or vlmevalkit.")] = "paper",
    data: Annotated[
        list[str] | None, typer.Option(help="Place of the benchmark, NAME=PATH or NAME/SPLIT=PATH.")
    ] = None,
    incomplete: Annotated[bool, typer.Option("--incomplete", help="Accept data with missing rows.")] = False,
) -> None:
    """Write a benchmark's training split as rows to fine-tune on: a source `{kind: instruct, path: FOLDER}`."""
    from lorgnette.eval.benchmark import Asking
    from lorgnette.eval.train_split import write_training

    values = _checked({"variant": variant})
    written = write_training(task, folder, Asking(**values, data=_places(data or []), incomplete=incomplete))
    typer.echo(f"Wrote {written.rows:,} rows to {folder}, and left out {sum(written.refused.values()):,}")
    for reason, count in written.refused.items():
        typer.echo(f"  {count:,}: {reason}")


def _checked(values: dict[str, str | None]) -> dict[str, Any]:
    """Check options that take one of a few words. Raises: SettingsError listing the words."""
    from typing import get_args

    from lorgnette.errors import SettingsError
    from lorgnette.eval.benchmark_prompts import VARIANTS, PromptForm
    from lorgnette.eval.fewshot import Choose

    words = {"variant": VARIANTS, "form": (*get_args(PromptForm), None), "choose": get_args(Choose)}
    words["choices"] = ("generation", "likelihood")
    for name, value in values.items():
        if value not in words[name]:
            raise SettingsError(f"--{name} is {value!r}; use one of {', '.join(filter(None, words[name]))}")
    return dict(values)


def _places(data: list[str]) -> dict[str, str]:
    """Parse the values of --data. Raises: SettingsError for one that is not NAME=PATH, or names no benchmark."""
    from lorgnette.errors import SettingsError
    from lorgnette.eval.tasks import benchmark_named

    places = {}
    for text in data:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise SettingsError(f"--data {text}: write it as NAME=PATH, for example vqav2=data/vqav2")
        benchmark, slash, split = name.partition("/")
        places[f"{benchmark_named(benchmark).name}{slash}{split}"] = path
    return places


def _open(
    tasks: str, asking: Asking, model: Callable[[], Model], kind: str | None, metric: str | None
) -> tuple[dict[str, Task], Model]:
    """Each task by its name, benchmarks and files of rows, and the model, which is opened last: its weights are not
    read for questions that cannot be. Raises: SettingsError or DataError.
    """
    from dataclasses import replace

    from lorgnette.errors import SettingsError
    from lorgnette.eval.metrics import metric_named
    from lorgnette.eval.own_rows import is_path, names_of, task_of_path
    from lorgnette.eval.tasks import check_name, names_in, task_named

    if metric is not None:
        metric_named(metric)
    names = names_in(tasks)
    short = names_of([name for name in names if is_path(name)])
    if kind is not None and not short:
        raise SettingsError(f"--kind {kind} is of files of rows, and --tasks names none; leave it out")
    for name in names:
        if name not in short:
            check_name(name)
    measured = model() if asking.choose == "rices" else None  # whose vision features retrieve shots
    found = {}
    for name in names:
        if name in short:
            found[short[name]] = task_of_path(name, short[name], asking, kind, metric)
        else:
            task = task_named(name, asking, measured)
            found[name] = replace(task, metric=metric) if metric else task
    return found, model() if measured is None else measured


def _run(
    opened: dict[str, Task],
    measured: Model,
    judge: Model | None,
    folder: Path | None,
    conditions: dict[str, Any],
) -> dict[str, Result]:
    """Each task's result, by name."""
    from lorgnette.errors import SettingsError
    from lorgnette.eval.judge import judged
    from lorgnette.eval.results.rank_files import Rank
    from lorgnette.eval.results.store import ResultsFolder
    from lorgnette.eval.runner import evaluate as run_task
    from lorgnette.output import progress_bar, shown_in

    rank = Rank.of_torchrun()
    if rank.of > 1 and folder is None:
        raise SettingsError("several processes share an evaluation through a folder; give it as --folder RESULTS")

    results = {}
    places = {name: ResultsFolder(folder / name.replace(":", "-"), rank) if folder else None for name in opened}
    for path in [place.path for place in places.values() if place]:
        rank.claim(path)
    bar = progress_bar()
    bar.disable = rank.number > 0
    with bar:
        for name, task in opened.items():
            place, progress = places[name], shown_in(bar, name)
            results[name] = run_task(task, measured, folder=place, progress=progress, **conditions)
            if judge is not None and task.metric == "mathvista_accuracy" and not results[name].missing:
                results[name] = judged(results[name], judge, place.path if place else None)
    return {name: place.result() if place and rank.of > 1 else results[name] for name, place in places.items()}


def _is_whole(results: Iterable[Result]) -> bool:
    """Return whether all questions are answered; say it if not."""
    if missing := sum(result.missing for result in results):
        sentence = (
            f"lorgnette: {missing:,} questions are still with other processes; the last one to finish prints the scores"
        )
        typer.echo(sentence, err=True)
    return not missing


def _show_gain(blind: dict[str, Result], sighted: dict[str, Result], as_json: bool) -> None:
    """Print both scores of each task, and what looking is worth, with its paired interval."""
    from lorgnette.eval.results.compare import compare
    from lorgnette.eval.results.summary import print_comparison
    from lorgnette.output import print_json

    if not _is_whole([*blind.values(), *sighted.values()]):
        return
    found = {name: compare(blind[name], sighted[name], ("blind", "sighted")) for name in sighted}
    if as_json:
        print_json({name: one.plain() for name, one in found.items()})
        return
    for name, one in found.items():
        print_comparison(name, one)


def _show(results: dict[str, Result], as_json: bool) -> None:
    import dataclasses

    from lorgnette.eval.results.summary import means, print_results
    from lorgnette.eval.tasks import BENCHMARK_GROUPS
    from lorgnette.output import print_json

    if not _is_whole(results.values()):
        return
    if not as_json:
        print_results(results, groups=BENCHMARK_GROUPS)
        return
    summaries = {name: result.summary() for name, result in results.items()}
    found = {f"mean of {group}": dataclasses.asdict(mean) for group, mean in means(results, BENCHMARK_GROUPS).items()}
    print_json({**summaries, **found})


@evaluation.command()
def doctor(
    model: Annotated[str, typer.Option(help="Folder of a model or run, or a hub id.")],
    image: Annotated[list[Path] | None, typer.Option(help="Image to test with; by default built-in drawings.")] = None,
    tolerance: Annotated[float, typer.Option(help="Largest relative difference that counts as rounding.")] = 1e-4,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: DeviceOption = "cpu",
) -> None:
    """Check batch invariance: prompts alone, in batches, packed and from a cache; exit status 1 if they differ."""
    found_model = ModelOptions(model, device=device, dtype="float32").found()
    from lorgnette.data.builtin.questions import questions_for_evaluation
    from lorgnette.infer.batch_invariance import examine
    from lorgnette.output import print_json

    images: Sequence[ImageSource] = image or ()
    if not images:
        images = [sample.images[0].source for sample in questions_for_evaluation(3)]
    found = examine(*found_model.load(), images, tolerance=tolerance)
    if as_json:
        print_json(found.plain())
    else:
        _print_diagnosis(found)
    if not found.passed:
        raise typer.Exit(1)


def _print_diagnosis(found: Diagnosis) -> None:
    from rich.table import Table
    from rich.text import Text

    from lorgnette.infer.batch_invariance import CHECKED_PARTS
    from lorgnette.output import new_console, say

    console = new_console()
    table = Table("computed", "images in", *CHECKED_PARTS)
    for way, crops in dict.fromkeys((one.way, one.crops) for one in found.findings):
        largest = dict.fromkeys(CHECKED_PARTS, Text())
        for one in found.findings:
            if (one.way, one.crops) == (way, crops):
                largest[one.part] = Text(f"{one.largest:.1e}", style="" if one.passed else "bold red")
        table.add_row(way, crops, *largest.values())
    console.print("Largest differences from computing each prompt alone:")
    console.print(table)
    say(console, found.verdict())
