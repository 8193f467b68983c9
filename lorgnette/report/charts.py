"""Histograms, bubbles and intervals as inline SVG. All take plain numbers; hues are classes of `palette.HUES`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorgnette.report.palette import GROUPS
from lorgnette.report.svg import Svg, drawing, element, log_ticks, round_up, short, text, titled

WIDTH, HEIGHT = 420, 230
"""Of histograms and bubble charts, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 22, 40
"""Margins for labels, in pixels."""
ROW = 38
"""Height of a row of an interval chart, in pixels."""

Bars = list[tuple[str, list[int]]]
"""Each bar's label, and the count of each group in it."""


def bins(values: Sequence[tuple[int, int]], groups: int, most: int = 16) -> Bars:
    """Bars of equal breadth over (value, group) pairs, with round bounds; about `most` of them."""
    if not values:
        return []
    low, high = min(value for value, _ in values), max(value for value, _ in values)
    step = round_up((high - low + 1) / most)
    first = low // step * step
    bars: Bars = []
    for start in range(first, high + 1, step):
        counts = Counter(group for value, group in values if start <= value < start + step)
        label = f"{start:,}" if step == 1 else f"{start:,}–{start + step - 1:,}"
        bars.append((label, [counts[group] for group in range(groups)]))
    return bars


def tenths(values: Sequence[tuple[float, int]], groups: int) -> Bars:
    """Ten bars over (share of one, group) pairs."""
    bars: Bars = []
    for ten in range(10):
        counts = Counter(group for value, group in values if min(9, int(value * 10)) == ten)
        bars.append((f"{10 * ten}–{10 * ten + 10} %", [counts[group] for group in range(groups)]))
    return bars


def histogram(bars: Bars, of: str, unit: str) -> Svg:
    """Stacked bars. of: what is counted, in the plural; unit: of the horizontal axis."""
    if not bars:
        return Svg()
    most = max(sum(counts) for _, counts in bars) or 1
    breadth, floor = (WIDTH - LEFT - RIGHT) / len(bars), HEIGHT - BOTTOM
    parts = []
    for tick in sorted({0, -(-most // 2), most}):
        y = floor - tick / most * (floor - TOP)
        parts += [_rule(LEFT, WIDTH - RIGHT, y, y), text(f"{tick:,}", LEFT - 6, y + 4, "label end")]
    every = -(-len(bars) // 6)
    for place, (label, counts) in enumerate(bars):
        left = LEFT + place * breadth
        if stack := _stack(counts, left + 1, max(1.0, breadth - 2), floor, (floor - TOP) / most):
            parts.append(titled(f"{sum(counts):,} {of}: {label} {unit}", stack))
        if place % every == 0:
            parts.append(text(label.split("–")[0], left + breadth / 2, floor + 16, "label mid"))
    parts.append(text(f"{unit} →", WIDTH - RIGHT, HEIGHT - 6, "label end"))
    parts.append(text(of, 4, 12))
    total = sum(sum(counts) for _, counts in bars)
    label = f"Histogram of {total:,} {of} over {unit}, from {bars[0][0]} to {bars[-1][0]}"
    return drawing(parts, label, HEIGHT, WIDTH)


def _stack(counts: Sequence[int], x: float, width: float, floor: float, scale: float) -> list[str]:
    """The rectangles of one bar, the first group at the bottom."""
    parts, top = [], floor
    for group, count in enumerate(counts):
        top -= count * scale
        if count:
            hue = f"area h{group % GROUPS}"
            parts.append(element("rect", class_=hue, x=x, y=top, width=width, height=count * scale))
    return parts


def bubble_chart(points: Sequence[tuple[int, int]], axes: tuple[str, str], of: str, hue: str = "eye") -> Svg:
    """Each (x, y) as a circle whose area is its count, on one scale for both axes.

    axes: words of the horizontal and the vertical axis; of: what is counted, in the plural.
    """
    if not points:
        return Svg()
    counts = Counter(points)
    most, reach = max(counts.values()), max(max(point) for point in counts) + 1
    scale = min(WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM) / reach
    left, floor = (WIDTH + LEFT - RIGHT - reach * scale) / 2, float(HEIGHT - BOTTOM)
    step = round_up(reach / 5)
    parts = []
    for tick in range(step, reach + 1, step):
        x, y = left + tick * scale, floor - tick * scale
        parts += [_rule(left, left + reach * scale, y, y), text(f"{tick}", left - 6, y + 4, "label end")]
        parts += [_rule(x, x, floor, floor - reach * scale), text(f"{tick}", x, floor + 16, "label mid")]
    for (across, up), count in counts.most_common():
        radius = max(2.5, 13 * math.sqrt(count / most))
        circle = element("circle", class_=f"bubble {hue}", cx=left + across * scale, cy=floor - up * scale, r=radius)
        parts.append(titled(f"{count:,} {of} of {up} {axes[1]} × {across} {axes[0]}", [circle]))
    parts += [text(f"{axes[0]} →", WIDTH - RIGHT, HEIGHT - 6, "label end"), text(axes[1], 4, 12)]
    (across, up), count = counts.most_common(1)[0]
    commonest = f"the commonest has {up} {axes[1]} and {across} {axes[0]} ({count:,} {of})"
    return drawing(parts, f"{len(points):,} {of} of {len(counts):,} shapes; {commonest}", HEIGHT, WIDTH)


def scatter_chart(points: Sequence[tuple[str, float, float, str]], axes: tuple[str, str]) -> Svg:
    """Named points of two quantities, the horizontal one positive and on a logarithmic scale.

    points: name, horizontal and vertical value, hue. axes: words of the two.
    """
    if not points:
        return Svg()
    low, high, ticks = log_ticks([across for _, across, _, _ in points])
    heights = [up for _, _, up, _ in points]
    bottom, top = min(heights), max(heights)
    floor, margin = HEIGHT - BOTTOM, 0.1 * ((top - bottom) or 1.0)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(value / low) / math.log(high / low)

    def y(value: float) -> float:
        return floor - (floor - TOP) * (value - bottom + margin) / (top - bottom + 2 * margin)

    parts = []
    for tick in sorted({bottom, top}):
        parts += [_rule(LEFT, WIDTH - RIGHT, y(tick), y(tick)), text(short(tick), LEFT - 6, y(tick) + 4, "label end")]
    for tick in ticks:
        parts += [_rule(x(tick), x(tick), floor, TOP), text(short(tick), x(tick), floor + 16, "label mid")]
    for name, across, up, hue in points:
        circle = element("circle", class_=f"mark {hue}", cx=x(across), cy=y(up), r=6)
        parts.append(titled(f"{name}: {short(up)} {axes[1]} at {short(across)} {axes[0]}", [circle]))
        parts.append(text(name, x(across), y(up) - 9, "over mid"))
    parts += [text(f"{axes[0]} →", WIDTH - RIGHT, HEIGHT - 6, "label end"), text(axes[1], 4, 12)]
    return drawing(parts, f"{axes[1]} against {axes[0]} of {len(points)} points", HEIGHT, WIDTH)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval, named and coloured by what was measured."""

    name: str
    value: float
    low: float
    high: float
    hue: str = "see"


def interval_chart(
    rows: Sequence[tuple[str, Sequence[Interval]]], unit: str, bounds: tuple[float, float] | None = None
) -> Svg:
    """A row of dots with their intervals for each label, as wide as its place.

    unit: of all values, written after them; bounds: of the axis, which else holds all intervals and zero.
    """
    marks = [mark for _, each in rows for mark in each]
    if not marks:
        return Svg()
    low, high = bounds or (min(0.0, *(mark.low for mark in marks)), max(0.0, *(mark.high for mark in marks)))

    def x(value: float) -> float:
        return 2 + 96 * (min(max(value, low), high) - low) / ((high - low) or 1)

    foot = ROW * len(rows)
    ticks = sorted({low, *([0.0] if low < 0 < high else []), (low + high) / 2, high})
    parts = [_rule(f"{x(tick):.2f}%", f"{x(tick):.2f}%", 18, foot + 4) for tick in ticks]
    for place, (label, each) in enumerate(rows):
        y = place * ROW + 28
        parts.append(text(label, 0, y - 14, "over"))
        for mark in each:
            words = f"{label}, {mark.name}: {mark.value:.1f}{unit} [{mark.low:.1f}, {mark.high:.1f}]"
            parts.append(titled(words, _mark(mark, x, y)))
    parts += [text(f"{tick:g}{unit}", f"{x(tick):.2f}%", foot + 18, _anchor(x(tick))) for tick in ticks]
    names = ", ".join(dict.fromkeys(mark.name for mark in marks))
    label = f"{names} of {len(rows)} rows, with intervals, from {low:g}{unit} to {high:g}{unit}"
    return drawing(parts, label, foot + 24)


def _mark(mark: Interval, x: Callable[[float], float], y: float) -> list[str]:
    left, right = x(mark.low), x(mark.high)
    width = f"{right - left:.2f}%"
    return [
        element("rect", class_=f"ci {mark.hue}", x=f"{left:.2f}%", y=y - 4, width=width, height=8, rx=4),
        element("circle", class_=f"mark {mark.hue}", cx=f"{x(mark.value):.2f}%", cy=y, r=7),
    ]


def _anchor(percent: float) -> str:
    """The class of a label that stays within the drawing."""
    return "label" if percent < 10 else "label end" if percent > 90 else "label mid"


def _rule(x1: object, x2: object, y1: float, y2: float) -> str:
    return element("line", class_="grid", x1=x1, x2=x2, y1=y1, y2=y2)
