"""`lorgnette eval doctor`: whether a model's answers depend on how it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lorgnette.infer.batch_invariance import Diagnosis
    from lorgnette.sample import ImageSource


def doctor(
    model: Annotated[str, typer.Option(help="Folder of a model (or of a run), or a hub id.")],
    image: Annotated[list[Path] | None, typer.Option(help="An image to show; built-in drawings if none.")] = None,
    tolerance: Annotated[float, typer.Option(help="Largest difference that is rounding.")] = 1e-4,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compute prompts alone, in batches, packed, from a cache, in one crop and in five; exit with 1 if they differ."""
    from lorgnette.data.builtin.questions import questions_for_evaluation
    from lorgnette.hub.load import load
    from lorgnette.infer.batch_invariance import examine
    from lorgnette.output import print_json

    images: Sequence[ImageSource] = image or ()
    if not images:
        images = [sample.images[0].source for sample in questions_for_evaluation(3)]
    opened, processor = load(model)
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
    console.print("Largest differences from the same prompts computed one by one:")
    console.print(table)
    say(console, found.verdict())
