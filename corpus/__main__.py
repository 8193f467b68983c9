"""The command line of the corpus, run from a checkout: `python -m corpus`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from corpus.parts import PARTS
from corpus.writing import WrittenFile
from lorgnette.data.builtin.drawings import SPLITS
from lorgnette.errors import LorgnetteError
from lorgnette.output import adapt_streams, new_console, say

app = typer.Typer(
    help="Make the built-in corpus of lorgnette: its drawings, scenes, pages, charts and their texts, as parquet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Parts = Annotated[list[str] | None, typer.Option("--part", "-p", help="Only this part; give it again for more.")]
Splits = Annotated[list[str] | None, typer.Option("--split", help="Only this split: train, validation or test.")]


@app.command(name="list")
def list_() -> None:
    """List the parts: kind, rows of each split, content."""
    console = new_console()
    table = Table("part", "kind", "rows to train, validate, test", "what it is", box=None)
    for part in PARTS.values():
        table.add_row(part.name, part.kind, " / ".join(f"{part.counts[split]:,}" for split in SPLITS), part.about)
    console.print(table)


@app.command()
def write(
    folder: Annotated[Path, typer.Argument(help="Where to write it.")],
    scale: Annotated[float, typer.Option(help="How many times the rows to train on; 1 is what the package has.")] = 1,
    part: Parts = None,
    split: Splits = None,
    seed: Annotated[int, typer.Option(help="Another seed makes other rows of the same drawings and texts.")] = 0,
    fresh: Annotated[bool, typer.Option(help="Make every row, those too that the package carries.")] = False,
) -> None:
    """Write the corpus, or more of it, to a folder, and say how to train on it."""
    from corpus.writing import write_corpus

    console = new_console()
    written = write_corpus(folder, scale, part or None, split or SPLITS, seed=seed, fresh=fresh)
    console.print(_table(written))
    total = sum(file.bytes for file in written) / 1e6
    kinds = sorted({PARTS[Path(file.file).stem].kind for file in written} - {"benchmark"})
    say(console, f"Wrote {sum(file.rows for file in written):,} rows, {total:.1f} MB, to {folder}.")
    for kind in kinds:
        say(console, f"  {{kind: {kind}, path: {folder / Path(written[0].file).parts[0] / kind}}}")


@app.command()
def build(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; compare with the manifest.")] = False,
    part: Parts = None,
    split: Splits = None,
) -> None:
    """Remake the files of the package and their manifest, to the same bytes with the versions of constraints.txt.

    With --check, make them elsewhere and compare every hash; --part and --split choose some.
    """
    from corpus import build as builder
    from corpus.writing import versions
    from lorgnette.data.builtin.shipped import manifest

    console = new_console()
    if not check:
        if part or split:
            raise typer.BadParameter("the files of the package are remade together; --part and --split need --check")
        written = builder.build()
        total = sum(file.bytes for file in written) / 1e6
        say(console, f"{len(written)} files, {sum(file.rows for file in written):,} rows, {total:.1f} MB")
        return
    if (made_with := manifest()["made_with"]) != versions():
        say(console, f"note: the manifest was made with {made_with}, and these are {versions()}")
    made, faults = builder.check(part or tuple(PARTS), split or SPLITS)
    for fault in faults:
        say(console, fault)
    say(console, f"{made} files made, {len(faults)} differences from the manifest")
    if faults:
        raise typer.Exit(1)


@app.command()
def draw(
    root: Annotated[Path, typer.Argument(help="The package's folder usr/share/openclipart/svg.")],
    work: Annotated[Path | None, typer.Option(help="Keep rendered pictures here, for a faster second run.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Make the drawings from the SVG files of Debian's package openclipart-svg; then run `build`.

    Get these with: apt-get download openclipart-svg && dpkg-deb -x openclipart-svg_*.deb openclipart
    """
    from corpus.clipart.build_drawings import remake

    print(remake(root, work, jobs))


@app.command()
def fetch(
    name: Annotated[str | None, typer.Argument(help="What to fetch; without it, what there is.")] = None,
    folder: Annotated[Path, typer.Argument(help="Where a folder of that name is written.")] = Path("material"),
) -> None:
    """Fetch real material from its public package: the GIMP manual, PDF manuals, OpenMoji, Tux Paint stamps."""
    from corpus.fetch import CITATION, MATERIALS
    from corpus.fetch import fetch as fetch_material

    console = new_console()
    if name is None:
        _list_material(console)
        return
    fetched = fetch_material(name, folder, console)
    target = folder / name
    if fetched is None:
        say(console, f"{target} is there already; delete it to fetch it again")
        return
    left_out = f", {len(fetched.left_out):,} left out ({CITATION} names them)" if fetched.left_out else ""
    say(console, f"Wrote {target}: {fetched.kept:,} files{left_out}.")
    advice = f"Licence and how to cite: {target / CITATION}. As a source: kind: {MATERIALS[name].kind}, path: {target}"
    say(console, advice)


@app.command()
def card() -> None:
    """Write the numbers, samples and pictures of docs/data-card.md."""
    from corpus.data_card import CARD, write_card

    write_card()
    print(f"Wrote {CARD}")


def _list_material(console: Console) -> None:
    from corpus.fetch import MATERIALS

    table = Table("name", "kind", "from", "what", box=None)
    for title, one in MATERIALS.items():
        table.add_row(title, one.kind, f"{one.client} {one.package}", f"{one.about} {one.licence}.")
    console.print(table)


def _table(written: Sequence[WrittenFile]) -> Table:
    table = Table("file", box=None)
    for name in ("rows", "KB"):
        table.add_column(name, justify="right")
    for file in written:
        table.add_row(file.file, f"{file.rows:,}", f"{file.bytes / 1e3:,.0f}")
    return table


def main() -> None:
    """Run the command line; a lorgnette error is one sentence on stderr and exit status 1."""
    adapt_streams()
    try:
        app(prog_name="python -m corpus")
    except LorgnetteError as error:
        typer.secho(f"corpus: {error}", fg=typer.colors.RED, err=True)
        sys.exit(error.status)


if __name__ == "__main__":
    main()
