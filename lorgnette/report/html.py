"""Pages for people: each is one HTML file that asks nothing of the network, runs no script, and is light or dark."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import jinja2

from lorgnette.report.palette import DARK, GROUPS, LIGHT, chart_style, variables
from lorgnette.report.visible import visible


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """A page from a template of this room, which extends `base.html.jinja`.

    Strings in `values` are escaped, and what would be invisible in them is spelt out.
    Raises: UndefinedError for a value that the template names and `values` lacks.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("lorgnette.report", "templates")
    pages = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    pages.filters |= {
        "percent": "{:.1f}".format,
        "points": "{:+.1f}".format,
        "share": lambda share: f"{100 * share:.1f}",
        "thousands": "{:,}".format,
    }
    colours = {"light": variables(LIGHT), "dark": variables(DARK)}
    charts = chart_style({name: f"var(--{name})" for name in LIGHT})
    pages.globals |= {"schemes": colours, "chart_style": charts, "groups": GROUPS}
    return pages


def _shown(value: Any) -> Any:
    return visible(value) if type(value) is str else value
