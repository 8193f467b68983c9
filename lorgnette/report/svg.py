"""SVG as pages and files have it: elements, axes with round ticks, and a drawing that stands in a file of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape, quoteattr

from lorgnette.report.palette import scheme_style
from lorgnette.report.visible import visible

OWN = b'data-generator="lorgnette"'
"""Attribute of every drawing that is written to a file of its own."""
OWN_BEFORE = b"<style>text{font:12px sans-serif;fill:#555}"
"""Beginning of the style in drawings of earlier versions, which may be written over too."""


class Svg(str):
    """An SVG element. Templates take it as it is: its text was escaped when it was made."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def element(name: str, content: str | None = None, /, **attributes: object) -> str:
    """An element; `class_` stands for `class` and `_` in a name for `-`. Content is markup, values are escaped."""
    names = {key: "class" if key == "class_" else key.replace("_", "-") for key in attributes}
    written = "".join(f" {names[key]}={quoteattr(_plain(value))}" for key, value in attributes.items())
    return f"<{name}{written}/>" if content is None else f"<{name}{written}>{content}</{name}>"


def text(words: str, x: object, y: float, class_: str = "label") -> str:
    """A line of text; what would be invisible in it is spelt out."""
    return element("text", escape(visible(words)), class_=class_, x=x, y=y)


def titled(words: str, parts: Iterable[str]) -> str:
    """Elements that tell `words` when pointed at."""
    return element("g", element("title", escape(visible(words))) + "".join(parts))


def drawing(parts: Iterable[str], label: str, height: float, width: float | None = None) -> Svg:
    """An SVG element. label: what it shows, for those who do not see it.

    width: of the view box, which is scaled to the room there is; without it the drawing fills the width of its place in
        its own height, and its text keeps its size.
    """
    room = {"viewBox": f"0 0 {width:g} {height:g}"} if width else {"width": "100%", "height": height}
    return Svg(element("svg", "".join(parts), **room, class_="chart", role="img", aria_label=visible(label)))


def standalone(chart: Svg, width: int = 900) -> str:
    """A drawing as a file of its own: with its size and its style in both schemes."""
    head, _, body = chart.partition(">")
    head = head.replace('width="100%"', f'width="{width}"')
    style = f"<style>\n{escape(scheme_style())}\n</style>"
    return f'{head} xmlns="http://www.w3.org/2000/svg" {OWN.decode()}>{style}{body}\n'


def is_own_drawing(content: bytes) -> bool:
    """Return whether lorgnette wrote an SVG file."""
    return content.startswith(b"<svg") and (OWN in content[:2_000] or OWN_BEFORE in content[:2_000])


def round_up(value: float) -> int:
    """The least of 1, 2, 5, 10, 20, 50, ... that is not less than `value`."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= value:
                return factor * power
        power *= 10


def log_ticks(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Bounds of a logarithmic scale that holds the positive values, and round numbers (1, 2 or 5 times 10^n) within."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive) / 1.15, max(positive) * 1.15
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    round_numbers = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return low, high, [tick for tick in round_numbers if low <= tick <= high]


def short(value: float) -> str:
    """A number of about three digits, as axes have it."""
    if 0 < abs(value) < 0.01:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
