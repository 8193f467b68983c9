"""Pages for people: each is one HTML file that asks nothing of the network and follows a light or dark scheme."""

from __future__ import annotations

import base64
from typing import Any

import jinja2


def render_page(template: str, values: dict[str, Any], package: str = "lorgnette.eval") -> str:
    """A page from a template of `package`, which extends `page.html.jinja`. Everything in `values` is escaped."""
    packages = dict.fromkeys([package, "lorgnette.eval"])
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(name, package_path="") for name in packages])
    pages = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    pages.filters["percent"] = "{:.1f}".format
    pages.filters["points"] = "{:+.1f}".format
    html: str = pages.get_template(template).render(values)
    return html.encode("utf-8", "replace").decode()  # half of a surrogate pair is no character


def data_uri(jpeg: bytes) -> str:
    """A JPEG as a URI that holds all of it."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
