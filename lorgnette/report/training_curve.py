"""The curve of training as inline SVG: loss, learning rate and speed over the steps of all stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from lorgnette.report.line_chart import Panel, Series, line_chart
from lorgnette.report.svg import Svg


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One step of training. `step` counts over all stages."""

    step: int
    stage: str
    loss: float
    lr: float
    samples_per_s: float


def curve_from_log(rows: Iterable[Mapping[str, Any]]) -> list[CurvePoint]:
    """Read the rows that training logs; their `seconds` are counted from the start of training."""
    points, last = [], 0.0
    for row in rows:
        took = row["seconds"] - last
        rate = row["samples"] / took if took > 0 else 0.0
        points.append(CurvePoint(row["total_step"], row["stage"], row["loss"], row["lr"], rate))
        last = row["seconds"]
    return points


def training_curve(curve: Sequence[CurvePoint]) -> Svg:
    """Loss, learning rate and speed over the steps of all stages."""
    if not curve:
        return Svg()
    stages = [(name, list(points)) for name, points in groupby(curve, key=lambda point: point.stage)]

    def series(key: str) -> list[Series]:
        return [Series([[(point.step, getattr(point, key)) for point in points] for _, points in stages])]

    panels = [
        Panel("loss", series("loss"), 210, logarithmic=True),
        Panel("learning rate", series("lr"), 44),
        Panel("samples/s", series("samples_per_s"), 44),
    ]
    bands = [(f"{name} · {len(points):,} steps", points[0].step, points[-1].step) for name, points in stages]
    first, last = curve[0].loss, curve[-1].loss
    verb = "falls" if last < first else "goes"
    return line_chart(panels, f"Loss {verb} from {first:.2f} to {last:.2f} over {curve[-1].step:,} steps", bands)
