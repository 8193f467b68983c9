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
    before: Folder,
    after: Folder,
    page: Annotated[Path | None, typer.Option(help="Write an HTML page with the answers that changed.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Most answers on the page that improved, and that got worse.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare two evaluations of the same questions: differences with paired 95 % intervals, and changed answers."""
    from lorgnette.eval.results.compare import compare_folders, pairs_in
    from lorgnette.eval.results.summary import print_comparison
    from lorgnette.output import print_json

    pairs = pairs_in(before, after)
    pages = {name: page and (page if len(pairs) == 1 else page.with_stem(f"{page.stem}-{name}")) for name in pairs}
    found = {name: compare_folders(*pair, pages[name], most) for name, pair in pairs.items()}
    _say_what_is_old(place for pair in pairs.values() for place in pair)
    if as_json:
        print_json({name: comparison.plain() for name, comparison in found.items()})
        return
    for name, comparison in found.items():
        print_comparison(name, comparison)
        if pages[name]:
            print(f"Wrote {pages[name]}")


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
