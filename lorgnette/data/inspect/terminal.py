"""The same look in a terminal: totals, packs, and a few documents with their tokens and pictures."""

from __future__ import annotations

import PIL.Image
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lorgnette.data.inspect.preview import Document, Pack, Preview
from lorgnette.data.inspect.token_text import Chip, TokenDecoder, runs
from lorgnette.data.inspect.unpatchify import Unpatchified
from lorgnette.output import say
from lorgnette.report.visible import visible

_COLOURS = ("blue", "yellow", "green", "magenta", "bright_blue", "red", "cyan", "bright_black")
MOST_PACKS = 24
"""Packs that the terminal lists."""
_MOST_TOKENS = 600
"""Tokens of one document that the terminal spells."""
COLUMNS, LINES = 40, 14
"""Most characters that a picture is drawn with; each is two pixels, one above the other."""


def print_preview(console: Console, look: Preview, decoder: TokenDecoder, most: int) -> None:
    """Print all totals and, in colours, the first `most` documents of those chosen."""
    total = look.total
    console.print(Text(visible(look.title), style="bold"))
    line = Text(f"{total.documents:,} documents, {total.tokens:,} tokens, ")
    line.append(f"{total.supervised_tokens:,} supervised ({100 * total.supervised_share:.1f} %)", style="bold green")
    line.append(f", {total.images:,} images, {total.patches:,} patches")
    console.print(line)
    console.print(_sources(look))
    console.print(_packs(look))
    _print_faults(console, look)
    chosen = [(pack, place) for pack in look.packs for place in sorted(pack.chosen)][:most]
    for pack, place in chosen:
        _print_document(console, look, pack, place, decoder)
    if left := total.documents - len(chosen):
        say(console, f"{left:,} of {total.documents:,} documents are counted and not shown.", style="dim")


def _sources(look: Preview) -> Table:
    table = Table(title="Sources", title_justify="left")
    table.add_column("source")
    for heading in (f"share of {look.measure}", "samples", "tokens", "supervised", "", "images", "patches"):
        table.add_column(heading, justify="right")
    for number, (share, total) in enumerate(zip(look.sources, look.totals, strict=True)):
        name = Text("● ", style=_COLOURS[number % 8]).append(visible(share.title), style="default")
        counts = [f"{count:,}" for count in (total.documents, total.tokens, total.supervised_tokens)]
        supervised = f"{100 * total.supervised_share:.1f} %"
        table.add_row(
            name, f"{100 * share.share:.1f} %", *counts, supervised, f"{total.images:,}", f"{total.patches:,}"
        )
    return table


def _packs(look: Preview) -> Table:
    title = f"Packs (the first {MOST_PACKS} of {len(look.packs):,})" if len(look.packs) > MOST_PACKS else "Packs"
    table = Table(title=title, title_justify="left")
    for heading in ("step", "pack", "documents", "tokens"):
        table.add_column(heading, justify="right")
    table.add_column("", min_width=20)
    table.add_column("patches", justify="right")
    table.add_column("supervised", justify="right")
    longest = look.most_tokens or max((pack.total.tokens for pack in look.packs), default=1) or 1
    for pack in look.packs[:MOST_PACKS]:
        total = pack.total
        tokens = f"{total.tokens:,}" + (f" of {look.most_tokens:,}" if look.most_tokens else "")
        patches = f"{total.patches:,}" + (f" of {look.most_patches:,}" if look.most_patches else "")
        supervised = f"{100 * total.supervised_share:.1f} %"
        table.add_row(
            f"{pack.step:,}",
            f"{pack.number}",
            f"{total.documents:,}",
            tokens,
            _bar(pack, longest),
            patches,
            supervised,
        )
    return table


def _bar(pack: Pack, longest: int, width: int = 20) -> Text:
    """Draw the fill of a pack as a bar, each document in the colour of its source."""
    bar, drawn = Text(), 0
    for one, start in zip(pack.documents, pack.starts, strict=False):
        end = min(width, round((start + one.tokens) / longest * width))
        bar.append("█" * (end - drawn), style=_COLOURS[one.source % 8])
        drawn = max(drawn, end)
    return bar.append("░" * (width - drawn), style="bright_black")


def _print_faults(console: Console, look: Preview) -> None:
    reasons = [f"{one.name}: {one.fault}" for one in look.faults] + list(look.refused)
    if not reasons:
        return
    say(console, f"{len(reasons):,} samples cannot be trained on:", style="bold red")
    for reason in reasons[:10]:
        console.print(Text(f"  {visible(reason)}"))
    if len(reasons) > 10:
        say(console, f"  and {len(reasons) - 10:,} more", style="dim")


def _print_document(console: Console, look: Preview, pack: Pack, place: int, decoder: TokenDecoder) -> None:
    one = pack.documents[place]
    title = Text(f"step {pack.step}, pack {pack.number}, #{place}  ", style="dim")
    title.append(visible(one.name), style="bold not dim")
    console.rule(title, align="left", style="bright_black")
    line = Text("● ", style=_COLOURS[one.source % 8])
    line.append(visible(look.sources[one.source].title), style="default")
    line.append(
        f" · {one.tokens:,} tokens · {one.supervised_tokens:,} supervised · {one.patches:,} patches", style="default"
    )
    console.print(line)
    if one.fault:
        console.print(Text(f"cannot be trained on: {visible(one.fault)}", style="bold red"))
    _print_pictures(console, one)
    console.print(_tokens(one, decoder))


def _print_pictures(console: Console, document: Document) -> None:
    for number, one in enumerate(document.pictures):
        image, part = document.parts[number]
        part = f", {part}" if part else ""
        size = document.originals[image] if document.originals else None
        origin = f", from {size[0]} × {size[1]}" if size else ""
        words = f"image {image + 1}{part}: {one.rows} × {one.columns} patches, {one.size[0]} × {one.size[1]} px{origin}"
        console.print(Text(f"▦ {words}", style="magenta"))
        if console.is_terminal and console.color_system in ("256", "truecolor"):
            console.print(Padding(_drawn(one), (0, 0, 0, 2)))


def _drawn(picture: Unpatchified) -> Text:
    """The picture in characters whose upper and lower halves are two pixels."""
    if picture.pixels is None:
        return Text()
    width, height = picture.size
    zoom = min(COLUMNS / width, 2 * LINES / height)
    columns, lines = max(1, round(width * zoom)), max(1, round(height * zoom / 2))
    small = picture.pixels.resize((columns, 2 * lines), PIL.Image.Resampling.BOX)
    text = Text()
    for line in range(lines):
        for column in range(columns):
            upper, lower = (_colour(small, column, 2 * line + half) for half in (0, 1))
            text.append("▀", style=f"{upper} on {lower}")
        text.append("\n" if line + 1 < lines else "")
    return text


def _colour(image: PIL.Image.Image, x: int, y: int) -> str:
    pixel = image.getpixel((x, y))
    return "#{:02x}{:02x}{:02x}".format(*pixel) if isinstance(pixel, tuple) else "default"


def _tokens(document: Document, decoder: TokenDecoder) -> Text:
    text = Text()
    for supervised, chips in runs(
        decoder.chips(document.tokens_T, document.loss_mask_T, document.visual_tokens, _MOST_TOKENS)
    ):
        for chip in chips:
            text.append(_words(chip), style=_style(chip, supervised))
    if document.tokens > _MOST_TOKENS:
        text.append(f" … and {document.tokens - _MOST_TOKENS:,} more tokens", style="dim")
    return text


def _words(chip: Chip) -> str:
    if chip.kind == "image":
        return f"[image {chip.image + 1}: {chip.text}]"
    return visible(chip.text)


def _style(chip: Chip, supervised: bool) -> str:
    if chip.kind == "image":
        return "magenta"
    if chip.kind == "special":
        return "green" if supervised else "bright_black"
    return "bold green underline" if supervised else "default"
