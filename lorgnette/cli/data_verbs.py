"""`lorgnette data`: prepare sources, inspect the samples of a run, and verify the samples of a finished one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lorgnette.cli.advice import AdvisedGroup

data = typer.Typer(
    cls=AdvisedGroup, help="Prepare sources; inspect, list and verify the samples of a run.", no_args_is_help=True
)
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Click settings of verbs whose arguments moved to another command: they are refused with its name."""


@data.command()
def inspect(
    recipe: Annotated[str, typer.Argument(help="Recipe by name or path, or a run's folder; with --kind, a path.")],
    override: Annotated[list[str] | None, typer.Argument(help="Settings to change, as stages.0.lr=1e-4.")] = None,
    stage: Annotated[str | None, typer.Option(help="Name of the stage; the first by default.")] = None,
    steps: Annotated[str, typer.Option(help="Steps of the stage, FIRST:END, without END.")] = "0:1",
    html: Annotated[Path | None, typer.Option(help="Write an HTML page with the images, too.")] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Documents to show; by default 4, and 64 in a page.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Inspect a single source of this kind: pairs, chat, ...")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="With --kind: folder of a tokenizer or a model.")] = None,
) -> None:
    """Show the documents of a step, token by token, with their images as the model gets them."""
    from lorgnette.cli.inspect import look_at_run, look_at_source, processor_of_run, processor_of_source
    from lorgnette.data.inspect import TokenDecoder, print_preview, write_page
    from lorgnette.output import new_console, say

    console, most = new_console(), samples or (64 if html else 4)
    if kind is None:
        run, processor = processor_of_run(recipe, override or [])
        look = look_at_run(console, processor, run, stage, steps, most)
    else:
        processor = processor_of_source(tokenizer)
        look = look_at_source(console, processor, kind, recipe, override or [], most)
    decoder = TokenDecoder(processor.tokenizer, processor.image_token)
    print_preview(console, look, decoder, samples or 4)
    if html is not None:
        say(console, f"Wrote {write_page(html, look, decoder)}")


@data.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="Recipe by name or path, or a run's folder.")],
    override: Annotated[list[str] | None, typer.Argument(help="Settings to change, as stages.0.lr=1e-4.")] = None,
    stage: Annotated[str | None, typer.Option(help="Name of the stage; the first by default.")] = None,
    steps: Annotated[str, typer.Option(help="Steps of the stage, FIRST:END, without END.")] = "0:10",
    names: Annotated[bool, typer.Option(help="List the samples, or digests of the steps only.")] = True,
    verify: Annotated[
        Path | None, typer.Option(help="Folder of a run: compare the samples it was trained on with the plan.")
    ] = None,
) -> None:
    """List the samples of each step, with digests, or verify the samples that a run was trained on."""
    from lorgnette.cli import plan as plans
    from lorgnette.cli.inspect import processor_of_run, range_of, stage_number
    from lorgnette.output import new_console
    from lorgnette.train.data import prepare_stages

    console = new_console()
    run, processor = processor_of_run(recipe, override or [])
    prepare_stages(run, processor, new_console(stderr=True))
    if verify is not None:
        plans.verify(console, run, processor, verify)
        return
    number = stage_number(run, stage)
    plans.list_steps(console, plans.steps_of(run, processor, number), *range_of(steps, run.stages[number]), names)


@data.command(context_settings=PASSED_ON)
def builtin(context: typer.Context) -> None:
    """List the parts of the built-in corpus: drawings, scenes, pages, charts, tables and their texts.

    `python -m corpus write`, in a checkout of lorgnette, generates more.
    """
    if context.args:
        _refuse("builtin", context.args)
    from rich.table import Table

    from lorgnette.data.builtin.drawings import SPLITS
    from lorgnette.data.builtin.shipped import shipped_parts
    from lorgnette.output import new_console, say

    console = new_console()
    table = Table("part", "kind", "rows to train, validate, test", "what it is", box=None)
    for part in shipped_parts().values():
        table.add_row(part.name, part.kind, " / ".join(f"{part.rows[split]:,}" for split in SPLITS), part.about)
    console.print(table)
    say(console, "A source reads them as path: builtin:SPLIT/KIND. In a checkout, python -m corpus write makes more.")


@data.command(hidden=True, context_settings=PASSED_ON)
def fetch(context: typer.Context) -> None:
    """Refused: run `python -m corpus fetch` in a checkout of lorgnette."""
    _refuse("fetch", context.args)


def _refuse(verb: str, arguments: Sequence[str]) -> None:
    """Refuse arguments that moved to `python -m corpus`. Raises: SettingsError naming both commands."""
    import shlex

    from lorgnette.errors import SettingsError
    from lorgnette.untrusted import quoted

    moved = {"builtin": "write", "fetch": "fetch"}[verb]
    given = shlex.join(arguments)
    command = f"python -m corpus {moved} {given}".strip()
    asked = f"lorgnette data {verb} {given}".strip()
    raise SettingsError(
        f"{quoted(asked)}: the corpus generator is not part of the package; in a checkout of lorgnette, run:"
        f" {quoted(command)}"
    )


@data.command()
def prepare(
    recipe: Annotated[str, typer.Argument(help="Recipe by name or path, or a run's folder; with --kind, a path.")],
    override: Annotated[list[str] | None, typer.Argument(help="Settings to change, as stages.0.lr=1e-4.")] = None,
    kind: Annotated[str | None, typer.Option(help="Prepare a single source of this kind: pairs, chat, ...")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="With --kind: folder of a tokenizer or a model.")] = None,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster to run on.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; by default one for each core.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Prepare again, as after a change in a filter.")] = False,
) -> None:
    """Index sources: count tokens and pixels, hash images, refuse unusable rows with a reason. Resumes if stopped."""
    from lorgnette.cli.prepare import Wanted, prepare_all
    from lorgnette.output import new_console

    wanted = Wanted(recipe, tuple(override or ()), kind, tokenizer)
    prepare_all(new_console(), wanted, ray=ray, workers=workers, fresh=fresh)
