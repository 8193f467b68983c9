"""Drawing of a food web: plants at one side, and each eater further along than all that it eats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from corpus.rendered.fonts import Print
from corpus.rendered.lot import Lot
from corpus.rendered.paper import LONGEST, Paper
from corpus.rendered.street import RGB, Box

if TYPE_CHECKING:
    from corpus.rendered.food_chains import Web

GROUNDS: tuple[RGB, ...] = ((255, 255, 255), (246, 250, 240), (252, 248, 236))
FILLS: tuple[RGB, ...] = ((214, 236, 200), (250, 236, 190), (246, 214, 190), (226, 210, 236))
"""Of plants, and of those above them by level."""
TRIES = 40
LEGEND = "Arrows point from what is eaten to what eats it."


def drawn(lot: Lot, facts: Web) -> Paper | None:
    """The diagram; None if some arrow would run through a box, or if it is too wide."""
    face, size = lot.one(("sans", "roboto", "slab", "serif")), lot.between(15, 18)
    writing, small = Print(face, size), Print(face, 13)
    heading = Print(face, round(size * 1.2), bold=True)
    levels: dict[int, list[str]] = {}
    for name in facts.names:
        levels.setdefault(facts.level(name), []).append(name)
    upwards = lot.chance(60)
    wide = max(map(writing.length, facts.names)) + 24
    title = f"Life in the {facts.place}"
    for _ in range(TRIES):
        boxes = _placed(lot, levels, wide, size, upwards)
        if not any(_runs_through(boxes, *pair) for pair in facts.arrows):
            break
    else:
        return None
    right, bottom = max(box[2] for box in boxes.values()), max(box[3] for box in boxes.values())
    width = max(right, small.length(LEGEND), heading.length(title)) + 40
    if width > LONGEST:
        return None
    paper = Paper(width, bottom + 130, margin=20, ground=lot.one(GROUNDS))
    paper.line(title, heading)
    down, aside = paper.y + 8, (width - right) // 2
    moved = {name: (box[0] + aside, box[1] + down, box[2] + aside, box[3] + down) for name, box in boxes.items()}
    for food, eater in facts.arrows:
        _arrow(paper, moved[food], moved[eater], upwards)
    for name, box in sorted(moved.items(), key=lambda pair: (pair[1][1], pair[1][0])):
        fill = FILLS[min(facts.level(name), len(FILLS) - 1)]
        paper.pen.rounded_rectangle(box, 8, fill=fill, outline=(60, 60, 60), width=2)
        paper.put((box[0] + box[2]) // 2, (box[1] + box[3]) // 2 + size // 3, name, writing, side="middle")
        paper.note(name)
    paper.y = bottom + down + 14
    paper.line(LEGEND, small)
    paper.cut()
    return paper


def _placed(lot: Lot, levels: dict[int, list[str]], wide: int, size: int, upwards: bool) -> dict[str, Box]:
    """A box for each name, from (0, 0)."""
    tall, top = size + 20, max(levels)
    broadest = max(map(len, levels.values()))
    boxes = {}
    for level, names in levels.items():
        free = broadest - len(names)
        along = lot.between(0, 2 * free) / 2
        for name in lot.some(names, len(names)):
            if upwards:
                x, y = round(along * (wide + 34)), (top - level) * (tall + 58)
            else:
                x, y = level * (wide + 70), round(along * (tall + 34))
            boxes[name] = (x, y, x + wide, y + tall)
            along += 1 + lot.between(0, 1) * (free > 0) / 4
    return boxes


def _ends(food: Box, eater: Box, upwards: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    """Start and end of an arrow, in pixels."""
    if upwards:
        return ((food[0] + food[2]) / 2, food[1]), ((eater[0] + eater[2]) / 2, eater[3])
    return (food[2], (food[1] + food[3]) / 2), (eater[0], (eater[1] + eater[3]) / 2)


def _runs_through(boxes: dict[str, Box], food: str, eater: str) -> bool:
    """Return whether the straight line between two boxes touches a third."""
    upwards = boxes[food][1] > boxes[eater][3]
    (x0, y0), (x1, y1) = _ends(boxes[food], boxes[eater], upwards)
    steps = 60
    for name, (left, top, right, bottom) in boxes.items():
        if name in (food, eater):
            continue
        for step in range(steps + 1):
            x, y = x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps
            if left - 6 <= x <= right + 6 and top - 6 <= y <= bottom + 6:
                return True
    return False


def _arrow(paper: Paper, food: Box, eater: Box, upwards: bool) -> None:
    (x0, y0), (x1, y1) = _ends(food, eater, upwards)
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    ink = (70, 70, 70)
    paper.pen.line((round(x0), round(y0), round(x1 - 8 * dx), round(y1 - 8 * dy)), fill=ink, width=2)
    base = (x1 - 12 * dx, y1 - 12 * dy)
    corners = [(x1, y1), (base[0] - 5 * dy, base[1] + 5 * dx), (base[0] + 5 * dy, base[1] - 5 * dx)]
    paper.pen.polygon([(round(x), round(y)) for x, y in corners], fill=ink)
