"""Draw docs/images/architecture.svg: the path from a sample to an answer, and the rooms that it passes through.

usage: python scripts/architecture.py
"""

from __future__ import annotations

from pathlib import Path

from lorgnette.report.svg import drawing, element, standalone, text

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "architecture.svg"
WIDTH, HEIGHT = 1020, 372
CELL = 18
"""Pixels of a patch, and of a token."""


def box(x: float, y: float, width: float, height: float, hue: str, filled: bool = False) -> str:
    """A rounded box with an outline in a hue."""
    place = {"x": x, "y": y, "width": width, "height": height, "rx": 10}
    ground = element("rect", class_="band" if filled else "face", **place)
    return ground + element("rect", class_=f"line {hue}", style="stroke-width: 1.5", **place)


def part(x: float, y: float, words: str, below: str, hue: str) -> str:
    """A part of the model, with its name and the shape that it makes."""
    middle = x + 65
    return (
        box(x, y, 130, 52, hue)
        + text(words, middle, y + 23, f"value mid {hue}")
        + text(below, middle, y + 41, "label mid")
    )


def arrow(points: list[tuple[float, float]], words: str = "") -> str:
    """A line with a head at its end, and what it does above its beginning."""
    (x, y), (before_x, before_y) = points[-1], points[-2]
    way_x, way_y = (x > before_x) - (x < before_x), (y > before_y) - (y < before_y)
    head = [
        (x - 8 * way_x - 5 * way_y, y - 8 * way_y - 5 * way_x),
        (x, y),
        (x - 8 * way_x + 5 * way_y, y - 8 * way_y + 5 * way_x),
    ]
    lines = [
        element("polyline", class_="line soft", style="stroke-width: 1.5", points=_places(line))
        for line in (points, head)
    ]
    (left, top), (right, _) = points[0], points[1]
    return "".join(lines) + (text(words, (left + right) / 2, top - 9, "mid") if words else "")


def cells(x: float, y: float, hues: str) -> str:
    """A row of patches or tokens: v and w of two images, t of text, s of text that is supervised."""
    names = {"v": "area eye", "w": "area h1", "t": "band", "s": "area see"}
    parts = []
    for place, hue in enumerate(hues):
        at = {"x": x + place * CELL, "y": y, "width": CELL - 2, "height": CELL - 2, "rx": 3}
        parts.append(element("rect", class_=names[hue], **at))
        if hue == "t":
            parts.append(element("rect", class_="line soft", style="stroke-width: 1", **at))
    return "".join(parts)


def image(x: float, y: float, rows: int, columns: int, hue: str) -> str:
    """An image, cut in patches."""
    return "".join(cells(x, y + row * CELL, hue * columns) for row in range(rows))


def draw() -> str:
    """The whole picture."""
    sample = [
        box(14, 66, 176, 212, "soft"),
        text("Sample", 28, 90, "value ink"),
        image(28, 104, 3, 4, "v") + image(128, 104, 2, 2, "w"),
        text("Which of the two", 28, 184, ""),
        text("shows a dog?", 28, 202, ""),
        text("The first.", 28, 234, "value see"),
        text("images, text, turns", 28, 264),
    ]
    batch = [
        box(276, 66, 250, 212, "soft"),
        text("Batch", 290, 90, "value ink"),
        text("patches of all images", 290, 116) + cells(290, 124, "vvvvvvvvvvvv") + cells(290, 142, "wwww"),
        text("tokens of all samples", 290, 188) + cells(290, 196, "tvvwwttttttss") + cells(290, 214, "tvvtttss"),
        text("end to end, nothing padded", 290, 264),
    ]
    model = [
        box(606, 24, 304, 296, "soft", filled=True),
        text("VLM", 620, 48, "value ink"),
        part(622, 66, "vision encoder", "patches_PD", "eye"),
        part(766, 66, "connector", "visual_VD", "eye"),
        part(622, 178, "embedding", "tokens_TD", "see"),
        part(766, 178, "merge", "hidden_TD", "see"),
        part(766, 256, "decoder", "attention, MLP", "see"),
        arrow([(752, 92), (764, 92)]),
        arrow([(831, 118), (831, 176)]),
        text("visual tokens", 822, 152, "label end"),
        arrow([(752, 204), (764, 204)]),
        arrow([(831, 230), (831, 254)]),
    ]
    ways = [
        arrow([(190, 172), (274, 172)], "render, pack"),
        arrow([(526, 134), (566, 134), (566, 92), (620, 92)]),
        arrow([(526, 204), (620, 204)]),
        arrow([(896, 282), (930, 282)]),
        text("logits", 940, 262) + text("loss", 940, 286) + text("answer", 940, 310),
    ]
    rooms = [(102, "data/"), (233, "inputs/"), (401, "model/batch.py"), (758, "model/, hub/"), (962, "infer/, train/")]
    named = [text(words, x, 350, "value mid soft") for x, words in rooms]
    label = (
        "Samples of images and text are rendered and packed into a batch, from which the model makes logits or a loss"
    )
    chart = drawing([*sample, *batch, *model, *ways, *named], label, HEIGHT, WIDTH)
    return standalone(chart, WIDTH)


def _places(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
