"""`lorgnette eval doctor`: a check of batch invariance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lorgnette.infer.batch_invariance import Diagnosis
    from lorgnette.sample import ImageSource


def doctor(
    model: Annotated[str, typer.Option(help="Folder of a model or run, or a hub id.")],
    image: Annotated[list[Path] | None, typer.Option(help="Image to test with; by default built-in drawings.")] = None,
    tolerance: Annotated[float, typer.Option(help="Largest relative difference that counts as rounding.")] = 1e-4,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check batch invariance: prompts alone, in batches, packed and from a cache; exit status 1 if they differ."""
    from lorgnette.cli.arguments import find_model

    folder = find_model(model)
    from lorgnette.data.builtin.questions import questions_for_evaluation
    from lorgnette.hub.load import load
    from lorgnette.infer.batch_invariance import examine
    from lorgnette.output import print_json

    images: Sequence[ImageSource] = image or ()
    if not images:
        images = [sample.images[0].source for sample in questions_for_evaluation(3)]
    opened, processor = load(folder)
    found = examine(opened.float(), processor, images, tolerance=tolerance)
    if as_json:
        print_json(found.plain())
    else:
        _print(found)
    if not found.passed:
        raise typer.Exit(1)


def _print(found: Diagnosis) -> None:
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
