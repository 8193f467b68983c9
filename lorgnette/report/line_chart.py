"""Lines over steps as inline SVG: panels below one another, each with its own vertical scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean

from lorgnette.report.svg import Svg, drawing, element, log_ticks, short, text

POINTS = 400
"""Most points that a line is drawn with; more are averaged."""
FIRST, GAP, FOOT = 44, 40, 26
"""Pixels above the first panel, between panels, and below the last."""
ACROSS = 1000
"""Units of the horizontal scale within a panel, which is stretched to the width there is."""
APART = 13
"""Least pixels between the names of two lines."""

Points = Sequence[tuple[float, float]]
"""(step, value) pairs."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or several that follow one another under one name."""

    lines: Sequence[Points]
    name: str = ""
    hue: str = "see"


@dataclass(frozen=True, slots=True)
class Panel:
    """One quantity over the steps, `height` pixels tall."""

    title: str
    series: Sequence[Series]
    height: int = 200
    logarithmic: bool = False


def line_chart(
    panels: Sequence[Panel], label: str, bands: Sequence[tuple[str, float, float]] = (), unit: str = "step"
) -> Svg:
    """Panels over one horizontal scale, as wide as their place.

    Each line is drawn faintly as it is and strongly as a running mean.

    label: what the chart shows, for those who do not see it.
    bands: stretches of steps that are shaded in turn: name, first and last step. unit: of the horizontal scale.
    """
    steps = [step for panel in panels for series in panel.series for points in series.lines for step, _ in points]
    if not steps:
        return Svg()
    first, last = min(steps), max(steps)

    def x(step: float) -> float:
        return (step - first) / ((last - first) or 1)

    foot = FIRST + sum(panel.height for panel in panels) + GAP * (len(panels) - 1) + 8
    parts = [part for place, band in enumerate(bands) for part in _band(place, *band, x, foot)]
    top = FIRST
    for panel in panels:
        parts += _panel(panel, top, x)
        top += panel.height + GAP
    parts += [text(f"{unit} {first:,.0f}", 0, foot + 18), text(f"{last:,.0f}", "100%", foot + 18, "label end")]
    return drawing(parts, label, foot + FOOT)


def _band(place: int, name: str, first: float, last: float, x: Callable[[float], float], foot: int) -> list[str]:
    left, width = f"{100 * x(first):.2f}%", f"{100 * (x(last) - x(first)):.2f}%"
    # A name in a nested drawing is cut off where its band ends, so that names never lie upon one another.
    named = text(name, "50%", 12, "label mid")
    return [
        element("rect", class_="band pale" if place % 2 else "band", x=left, y=18, width=width, height=foot - 18),
        element("svg", named, x=left, y=0, width=width, height=18),
    ]


def _panel(panel: Panel, top: int, x: Callable[[float], float]) -> list[str]:
    """The elements of one panel: title, grid, lines, and the value that each series ends with."""
    thin = [[_thin(points) for points in series.lines if points] for series in panel.series]
    values = [value for lines in thin for points in lines for _, value in points]
    low, high, ticks = log_ticks(values) if panel.logarithmic else (min(0.0, *values), max(0.0, *values) or 1.0, [])

    def y(value: float) -> float:
        if panel.logarithmic:
            share = (math.log(max(value, low)) - math.log(low)) / (math.log(high) - math.log(low))
        else:
            share = (value - low) / ((high - low) or 1.0)
        return panel.height * (1 - share)

    parts, drawn, ends = [], [], []
    for tick in ticks or sorted({low, high}):
        parts.append(element("line", class_="grid", x1=0, x2="100%", y1=top + y(tick), y2=top + y(tick)))
        parts.append(text(short(tick), 2, top + y(tick) - 3, "label over"))
    for series, lines in zip(panel.series, thin, strict=True):
        for points in lines:
            drawn += [_line(f"raw {series.hue}", points, x, y), _line(f"line {series.hue}", _smooth(points), x, y)]
        if lines:
            tail = lines[-1][-(len(lines[-1]) // 30 + 1) :]
            ends.append((y(fmean(value for _, value in tail)), fmean(value for _, value in tail), series))
    box = {"viewBox": f"0 0 {ACROSS} {panel.height}", "preserveAspectRatio": "none", "overflow": "visible"}
    parts.append(element("svg", "".join(drawn), x=0, y=top, width="100%", height=panel.height, **box))
    parts.append(text(panel.title, 0, top - 16, "title over"))
    least = -math.inf
    for height, value, series in sorted(ends, key=lambda end: end[0]):
        least = max(height - 6, least + APART)
        words = f"{series.name} {short(value)}".strip()
        parts.append(text(words, "100%", top + least, f"value over end {series.hue}"))
    return parts


def _line(kind: str, points: Points, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    places = " ".join(f"{ACROSS * x(step):.1f},{y(value):.1f}" for step, value in points)
    return element("polyline", class_=kind, points=places)


def _thin(points: Points) -> Points:
    """At most `POINTS` points, each the mean of as many neighbours."""
    size = -(-len(points) // POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(fmean(step for step, _ in group), fmean(value for _, value in group)) for group in groups]


def _smooth(points: Points) -> Points:
    """The mean of each value and its neighbours: a window of about a fifteenth of the points, smaller at the ends."""
    sums = list(accumulate((value for _, value in points), initial=0.0))
    smooth = []
    for place, (step, _) in enumerate(points):
        reach = min(len(points) // 30, place, len(points) - 1 - place)
        smooth.append((step, (sums[place + reach + 1] - sums[place - reach]) / (2 * reach + 1)))
    return smooth
