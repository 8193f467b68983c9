"""Hooks of mkdocs: the pages of the API reference, and links from pages to files that the site does not hold.

`mkdocs.yml` names this file. Each public module of the package becomes a page that mkdocstrings fills from its
docstrings, so a new module needs no edit here. A link in a page to a module leads to that page; one to another file of
the repository stays as the file's name.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "lorgnette"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def modules() -> list[Path]:
    """The public modules of the package, rooms in order of their names, relative to the repository."""
    found = sorted(path.relative_to(ROOT) for path in (ROOT / PACKAGE).rglob("*.py"))
    return [path for path in found if not path.name.startswith("_")]


def page_of(module: Path) -> str:
    """The page of a module, relative to the folder of pages: `lorgnette/model/vlm.py` -> `api/model/vlm.md`."""
    return posixpath.join("api", *module.parts[1:-1], f"{module.stem}.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the decisions and the reference, a section for each room, to the navigation."""
    decisions = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("*.md"))
    decisions.sort(key=lambda name: name != "README.md")  # the list of them is the section's own page
    rooms: dict[str, list[dict[str, str]]] = {}
    for module in modules():
        rooms.setdefault(".".join(module.parts[1:-1]) or PACKAGE, []).append({module.stem: page_of(module)})
    assert config.nav is not None
    config.nav.append({"Decisions": [f"decisions/{name}" for name in decisions]})
    config.nav.append({"API reference": [{room: pages} for room, pages in rooms.items()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for module in modules():
        name = ".".join(module.with_suffix("").parts)
        files.append(File.generated(config, page_of(module), content=f"# {name}\n\n::: {name}\n"))
    for notebook in sorted((ROOT / "docs").rglob("*.ipynb")):
        page = notebook.relative_to(ROOT / "docs")
        shown = files.get_file_from_path(page.as_posix())
        if shown is not None:
            files.remove(shown)
        files.append(File.generated(config, page.with_suffix(".md").as_posix(), content=notebook_page(notebook)))
    return files


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its words, its code, and what the code printed."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        printed = "".join("".join(one.get("text", ())) for one in cell.get("outputs", ()))
        parts += [f"```text\n{printed.rstrip()}\n```"] if printed.strip() else []
    return "\n\n".join(parts) + "\n"


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Mend links that lead out of the folder of pages; the repository's own tests see to it that their files exist."""
    here = posixpath.dirname(page.file.src_uri)

    def mended(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        path, _, _ = target.partition("#")
        if path.endswith(".ipynb"):
            return f"{mark}[{text}]({path.removesuffix('ipynb')}md)"
        inside = posixpath.normpath(posixpath.join(here, path))
        if "://" in target or not path or not inside.startswith("../"):
            return match[0]
        module = Path(inside.removeprefix("../"))
        if files.get_file_from_path(page_of(module)) is not None and module.parts[0] == PACKAGE:
            return f"{mark}[{text}]({posixpath.relpath(page_of(module), here or '.')})"
        return text if text.startswith("`") else f"{text} (`{module.as_posix()}`)"

    return LINK.sub(mended, markdown)
