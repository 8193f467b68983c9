"""The curve of training as inline SVG: loss, learning rate and speed over the steps of all stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, groupby
from statistics import fmean
from xml.sax.saxutils import escape

from lorgnette.demo.results import CurvePoint

WIDTH, LEFT, RIGHT = 900, 56, 70
"""Of the drawing, and of the margins for labels, in pixels."""
POINTS = 400
"""Most points that a line is drawn with; more steps are averaged."""

Values = list[tuple[float, float]]
Scale = Callable[[float], float]


def curve_svg(curve: Sequence[CurvePoint]) -> str:
    """An SVG element without size of its own, coloured by the classes `raw`, `line`, `grid`, `stage` and `label`."""
    if not curve:
        return ""
    first, last = curve[0].step, curve[-1].step
    stages = [(name, list(points)) for name, points in groupby(curve, key=lambda point: point.stage)]

    def x(step: float) -> float:
        return LEFT + (step - first) / max(1, last - first) * (WIDTH - LEFT - RIGHT)

    loss, lr, speed = (Panel(*place) for place in ((24, 210, True), (272, 44, False), (354, 44, False)))
    parts = [_band(name, points, x, index, bottom=398) for index, (name, points) in enumerate(stages)]
    parts += loss.draw("loss", [[(p.step, p.loss) for p in points] for _, points in stages], x)
    parts += lr.draw("learning rate", [[(p.step, p.lr) for p in points] for _, points in stages], x)
    parts += speed.draw("samples/s", [[(p.step, p.samples_per_s) for p in points] for _, points in stages], x)
    parts += [f'<text class="label" x="{x(first):.0f}" y="416">step {first:,}</text>']
    parts += [f'<text class="label end" x="{x(last):.0f}" y="416">{last:,}</text>']
    title = f"Loss falls from {curve[0].loss:.2f} to {curve[-1].loss:.2f} over {last:,} steps"
    if curve[-1].loss >= curve[0].loss:
        title = f"Loss goes from {curve[0].loss:.2f} to {curve[-1].loss:.2f} over {last:,} steps"
    return f'<svg viewBox="0 0 {WIDTH} 424" role="img" aria-label="{title}">{"".join(parts)}</svg>'


class Panel:
    """One quantity over the steps, `height` pixels tall, with its own vertical scale."""

    def __init__(self, top: int, height: int, logarithmic: bool) -> None:
        self.top, self.height, self.logarithmic = top, height, logarithmic

    def draw(self, title: str, stages: Sequence[Values], x: Scale) -> list[str]:
        """The SVG elements: grid, every step faintly, a smooth line for each stage, and the value it ends with."""
        means = [_thin(values) for values in stages]
        values = [value for stage in means for _, value in stage]
        low, high, ticks = log_ticks(values) if self.logarithmic else (0.0, max(values) or 1.0, [])

        def y(value: float) -> float:
            if self.logarithmic:
                share = (math.log(max(value, low)) - math.log(low)) / (math.log(high) - math.log(low))
            else:
                share = (value - low) / (high - low)
            return self.top + self.height * (1 - share)

        parts = [f'<text class="label end" x="{WIDTH - RIGHT}" y="{self.top - 8}">{escape(title)}</text>']
        for tick in ticks or [low, high]:
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
            parts.append(f'<text class="label end" x="{LEFT - 8}" y="{y(tick) + 4:.1f}">{_short(tick)}</text>')
        for stage in means:
            smooth = _smooth(stage)
            parts.append(_path("raw", stage, x, y))
            parts.append(_path("line", smooth, x, y))
        step, value = stage[-1][0], fmean(value for _, value in stage[-(len(stage) // 30 + 1) :])
        parts.append(f'<text class="value" x="{x(step) + 8:.1f}" y="{y(value) + 4:.1f}">{_short(value)}</text>')
        return parts


def log_ticks(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Bounds of a logarithmic scale that holds the positive values, and round numbers (1, 2 or 5 times 10^n) within."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive) / 1.15, max(positive) * 1.15
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    round_numbers = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return low, high, [tick for tick in round_numbers if low <= tick <= high]


def _thin(values: Values) -> Values:
    """At most `POINTS` points, each the mean of as many neighbours."""
    size = -(-len(values) // POINTS)
    groups = [values[start : start + size] for start in range(0, len(values), size)]
    return [(sum(s for s, _ in group) / len(group), sum(v for _, v in group) / len(group)) for group in groups]


def _smooth(values: Values) -> Values:
    """The mean of each value and its neighbours: a window of about a fifteenth of the points, smaller at the ends."""
    sums = list(accumulate((value for _, value in values), initial=0.0))
    smooth = []
    for place, (step, _) in enumerate(values):
        reach = min(len(values) // 30, place, len(values) - 1 - place)
        smooth.append((step, (sums[place + reach + 1] - sums[place - reach]) / (2 * reach + 1)))
    return smooth


def _path(kind: str, values: Values, x: Scale, y: Scale) -> str:
    points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in values)
    return f'<polyline class="{kind}" points="{points}"/>'


def _band(name: str, points: Sequence[CurvePoint], x: Scale, index: int, bottom: int) -> str:
    """A stage as a shaded column with its name at the top."""
    left, right = x(points[0].step), x(points[-1].step)
    band = f'<rect class="stage s{index % 2}" x="{left:.1f}" y="24" width="{right - left:.1f}" height="{bottom - 24}"/>'
    name = escape(f"{name} · {len(points):,} steps")
    return f'{band}<text class="label mid" x="{(left + right) / 2:.1f}" y="16">{name}</text>'


def _short(value: float) -> str:
    return (
        f"{value:.1e}".replace("e-0", "e-")
        if 0 < abs(value) < 0.01
        else f"{value:,.3g}"
        if value < 1000
        else f"{value:,.0f}"
    )
