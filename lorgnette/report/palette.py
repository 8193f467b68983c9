"""Colours of every page and chart, in a light and a dark scheme, and the style of charts that is made of them."""

from __future__ import annotations

from collections.abc import Mapping

GROUPS = 8
"""Colours that tell groups (sources, models) apart: the classes `h0` to `h7`."""

_NAMES = (
    "ground card band rule ink soft see see-wash see-band eye eye-wash blind right wrong h0 h1 h2 h3 h4 h5 h6 h7"
).split()
"""Surfaces, lines, text, then hues: `see` for what a model sees, `eye` for images, `blind` for the blind baseline."""

HUES = _NAMES[_NAMES.index("ink") :]
"""Names that are classes of pages and charts too; `see-wash` and the like are backgrounds of text."""

_LIGHT = (
    "fbfaf7 ffffff f1eee7 e4e0d8 1c1b19 6b675f 0d6e6e d3ebe6 bfe1da 5b4bb5 e8e4f8 9a5a0c 1a7540 b3261e"
    " 2f7ea8 c9822b 5f8f3e a8528f 7d6bc4 b5564a 3f9c8f 8c7a4f"
)
_DARK = (
    "151614 1e201d 282a26 33352f ecebe6 a19d93 4cc2b8 183f3b 1f504a b3a7f5 302b4a e0a04a 62c983 ff8a80"
    " 5fb0dc e3a457 93c26f d58bc0 aa9aec e38a7d 6ccabb c2ae7d"
)
LIGHT, DARK = (dict(zip(_NAMES, (f"#{colour}" for colour in line.split()), strict=True)) for line in (_LIGHT, _DARK))


def variables(colours: Mapping[str, str]) -> str:
    """A scheme as CSS variables."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def chart_style(colours: Mapping[str, str]) -> str:
    """CSS of charts: hues as `color` by class, lines and areas in the colour of their class."""
    hues = " ".join(f".{name} {{ color: {colours[name]}; }}" for name in HUES)
    return f"""{hues}
text {{ fill: {colours["ink"]}; font: 13px system-ui, sans-serif; }}
text.label {{ fill: {colours["soft"]}; }} text.value {{ fill: currentColor; font-weight: 650; }}
.end {{ text-anchor: end; }} .mid {{ text-anchor: middle; }}
.over {{ paint-order: stroke; stroke: {colours["card"]}; stroke-width: 4px; stroke-linejoin: round; }}
.grid {{ stroke: {colours["rule"]}; }} .pale {{ opacity: .45; }}
.band {{ fill: {colours["band"]}; }} .face {{ fill: {colours["card"]}; }}
.area {{ fill: currentColor; }} .bubble {{ fill: currentColor; fill-opacity: .55; stroke: currentColor; }}
.ci {{ fill: currentColor; opacity: .3; }} .mark {{ fill: currentColor; stroke: {colours["card"]}; stroke-width: 2; }}
.line, .raw {{ fill: none; stroke: currentColor; stroke-linejoin: round; vector-effect: non-scaling-stroke; }}
.line {{ stroke-width: 2.25; }} .raw {{ stroke-width: 1; opacity: .28; }}"""


def scheme_style() -> str:
    """CSS of a chart in a file of its own, on its own ground, where variables may not be understood."""
    light, dark = (f"svg {{ background: {one['card']}; }} {chart_style(one)}" for one in (LIGHT, DARK))
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"
