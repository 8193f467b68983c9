"""`lorgnette eval rescore`, `compare` and `submission`: commands on stored answers. None of them opens a model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="Folder of an evaluation, of one task or several.")]


def rescore(
    folder: Folder,
    metric: Annotated[
        str | None,
        typer.Option(help="Metric instead of the task's: a name, or package.module:Name, which runs that module."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Recompute the scores from the stored answers."""
    from lorgnette.eval.results.rescore import rescore as score
    from lorgnette.eval.results.store import folders_in
    from lorgnette.eval.results.summary import print_results
    from lorgnette.output import print_json

    places = folders_in(folder)
    _say_what_is_old(places.values())
    results = {name: score(place, metric) for name, place in places.items()}
    if as_json:
        print_json({name: result.summary() for name, result in results.items()})
    else:
        print_results(results)


def compare(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of evaluations, of one task or several; the first is the baseline.")
    ],
    page: Annotated[
        Path | None, typer.Option(help="Two folders: write an HTML page with the answers that changed.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Most answers on the page that improved, and that got worse.")] = 100,
    table: Annotated[
        Path | None, typer.Option(help="Write the scores to a file: its ending is .csv, .tex or .md.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare evaluations of the same questions with the first: differences with paired 95 % intervals."""
    from lorgnette.errors import SettingsError
    from lorgnette.eval.results.score_table import compare_all, page_of, print_scores, rows_of, write_scores
    from lorgnette.eval.results.store import folders_in
    from lorgnette.eval.results.summary import print_comparison
    from lorgnette.output import new_console, print_json, say

    if len(folders) < 2:
        raise SettingsError(f"{folders[0]} is compared with nothing; give two folders or more")
    if page and len(folders) > 2:
        raise SettingsError(f"--page shows two evaluations, and {len(folders)} are given; leave it out, or give two")
    found = compare_all(folders, page, most)
    if table:
        write_scores(table, rows_of(found))
    _say_what_is_old(place for folder in folders for place in folders_in(folder).values())
    if as_json:
        plain = {name: [one.plain() for one in each] for name, each in found.items()}
        print_json({name: each[0] if len(each) == 1 else each for name, each in plain.items()})
        return
    console = new_console()
    if len(folders) == 2:
        for name, (comparison,) in found.items():
            print_comparison(name, comparison)
    else:
        print_scores(console, rows_of(found))
        for one in (one for each in found.values() for one in each):
            say(console, one.sentence())
    for path in filter(None, [*(page_of(page, task, found) for task in found), table]):
        print(f"Wrote {path}")


def submission(
    folder: Annotated[Path, typer.Argument(help="Results folder of one task: vqav2, docvqa or mmmu.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    incomplete: Annotated[bool, typer.Option("--incomplete", help="Write it although answers are missing.")] = False,
) -> None:
    """Write the answers in the format of the benchmark's evaluation server."""
    from lorgnette.eval.results.submission import write_submission

    for lacking in write_submission(folder, out, incomplete=incomplete):
        typer.echo(f"lorgnette: {lacking}", err=True)
    print(f"Wrote {out}")


def _say_what_is_old(places: Iterable[Path]) -> None:
    from lorgnette.eval.results.store import ResultsFolder

    for place in places:
        store = ResultsFolder(place)
        for sentence in filter(None, (store.lacks(), store.outdated())):
            typer.echo(f"lorgnette: {sentence}", err=True)
