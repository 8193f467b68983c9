"""Real material by command: fetched from its public package by the ordinary client, and made ready for a source.

Nothing of it is part of lorgnette. Each folder says where its files come from, and under which licence.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import PIL.Image
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lorgnette import leftovers
from lorgnette.errors import DataError, ImageError
from lorgnette.files import check_replaceable, explain_disk, new_folder, write_text
from lorgnette.inputs.image_io import open_rgba
from lorgnette.output import new_console

SVG_SIDE = 384
"""Longest side of a rendered drawing, in pixels."""
WORKING = ".working"
"""Folder below the target that holds packages until they are made ready."""
CITATION = "CITATION.md"
LICENCES = "_licences"
"""Sources pass over names that begin like this, so that no licence is learned as a page."""

Ready = Callable[[Path, Path], Iterator[str | None]]
"""`ready(unpacked, folder)`: fills `folder`; gives, for each file looked at, None or why it was left out."""


@dataclass(frozen=True)
class Material:
    """Material to fetch: its origin and the file that is made of it."""

    client: str
    """`apt` or `npm`."""
    package: str
    kind: str
    """The kind of source that reads it."""
    about: str
    licence: str
    licences: tuple[str, ...]
    """Globs of the package's own words on its licence."""
    ready: Ready


@dataclass
class Fetched:
    """Result of a fetch: files made and files left out."""

    folder: Path
    kept: int = 0
    left_out: list[str] = field(default_factory=list)
    """Files left out, each with the reason."""


def fetch(name: str, folder: Path, console: Console | None = None) -> Fetched | None:
    """Fetch a material into `folder`/`name`; None if it is there. The same command goes on after a stop.

    Raises: DataError for an unknown name, a missing client, or a client that fails, saying what to do; DiskError if the
    folder is there and no fetch wrote it.
    """
    if name not in MATERIALS:
        raise DataError(f"{name}: no such material; known are {', '.join(MATERIALS)}")
    material, target, console = MATERIALS[name], folder / name, console or new_console(quiet=True)
    if (target / CITATION).is_file():
        return None
    check_replaceable(target, ())  # what a fetch has made has a citation
    working = folder / WORKING / name
    package = _download(material, working, console)
    unpacked = _unpack(material, package, working)
    fetched = Fetched(target)
    with new_folder(target, ()) as beside:
        for reason in _shown(material.ready(unpacked, beside), f"making {name} ready", console):
            if reason is None:
                fetched.kept += 1
            else:
                fetched.left_out.append(reason)
        if not fetched.kept:
            raise DataError(f"{material.package}: holds no file that was looked for; its layout may have changed")
        _copy_licences(material, unpacked, beside)
        write_text(beside / CITATION, _citation(name, material, package.name, fetched))
    _remove_working(package, unpacked, working)
    return fetched


def _remove_working(package: Path, unpacked: Path, working: Path) -> None:
    """Remove a package and what was unpacked of it, and their folder if nothing else is in it."""
    leftovers.remove(package)  # first: what is left without it is unpacked again
    leftovers.remove(unpacked)
    with contextlib.suppress(OSError):
        working.rmdir()


def commands(material: Material) -> tuple[list[str], str, str]:
    """The command that downloads a package into the current folder, the file that it writes (a glob), and advice."""
    if material.client == "apt":
        advice = "it needs apt-get, as Debian and Ubuntu have it; run `apt-get update` first if the package is unknown"
        return ["apt-get", "download", "-qq", material.package], "*.deb", advice
    return ["npm", "pack", "--silent", material.package], "*.tgz", "it needs npm, which comes with Node.js"


def _download(material: Material, working: Path, console: Console) -> Path:
    """The package's file. It is downloaded beside and renamed, so a file that is there is whole."""
    command, pattern, advice = commands(material)
    for found in working.glob(pattern):
        return found
    with new_folder(working, ("unpacked/",)) as beside:
        _run(command, beside, advice, f"fetching {material.package}", console)
        if not any(beside.glob(pattern)):
            raise DataError(f"{' '.join(command)}: wrote no {pattern} file; {advice}")
    return next(working.glob(pattern))


def _run(command: list[str], folder: Path, advice: str, title: str, console: Console) -> None:
    """Run a client in a folder, showing how much it has written."""
    if shutil.which(command[0]) is None:
        raise DataError(f"{' '.join(command)}: {command[0]} is not installed; {advice}")
    columns = TextColumn(title, markup=False), DownloadColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        client = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            while client.poll() is None:
                progress.update(task, completed=sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()))
                time.sleep(0.1)
        except BaseException:
            client.kill()
            raise
        finally:
            output = client.communicate()[0].decode("utf-8", "replace")
    if client.returncode:
        said = " ".join(output.split())[-300:] or f"status {client.returncode}"
        raise DataError(f"{' '.join(command)}: failed ({said}); {advice}")


def _unpack(material: Material, package: Path, working: Path) -> Path:
    unpacked = working / "unpacked"
    if unpacked.is_dir():
        return unpacked
    with new_folder(unpacked, ()) as beside:
        if material.client == "apt":
            advice = "it needs dpkg-deb, as Debian and Ubuntu have it"
            _run(["dpkg-deb", "-x", str(package.resolve()), "."], beside, advice, "unpacking", new_console(quiet=True))
        else:
            with tarfile.open(package) as archive:
                archive.extractall(beside, filter="data")
    return unpacked


def _shown(reasons: Iterator[str | None], title: str, console: Console) -> Iterator[str | None]:
    columns = TextColumn(title, markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(reasons)


def _copy_licences(material: Material, unpacked: Path, folder: Path) -> None:
    for pattern in material.licences:
        for file in sorted(unpacked.glob(pattern)):
            if file.is_file():
                (folder / LICENCES).mkdir(exist_ok=True)
                shutil.copyfile(file, folder / LICENCES / file.name)


def _citation(name: str, material: Material, file: str, fetched: Fetched) -> str:
    client = {"apt": "Debian package", "npm": "npm package"}[material.client]
    left_out = "".join(f"- left out, {reason}\n" for reason in fetched.left_out)
    return (
        f"# {name}\n\n{material.about}\n\n"
        f"- from the {client} `{material.package}` (file `{file}`)\n- licence: {material.licence}\n"
        f"- {fetched.kept:,} files kept\n{left_out}\n"
        "Not part of lorgnette: it was fetched by `python -m corpus fetch`. The package's words on its licence are in"
        f" the folder `{LICENCES}`. In a recipe:\n\n```yaml\n- kind: {material.kind}\n  path: THIS_FOLDER\n```\n"
    )


def _copied(files: list[Path], root: Path, folder: Path) -> Iterator[None]:
    for file in files:
        target = folder / file.relative_to(root)
        with explain_disk(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        yield None


def _gimp(unpacked: Path, folder: Path) -> Iterator[str | None]:
    root = unpacked / "usr/share/gimp/2.0/help/en"
    return _copied(sorted(file for file in root.rglob("*") if file.is_file() and file.suffix != ".xml"), root, folder)


def _science(unpacked: Path, folder: Path) -> Iterator[str | None]:
    root = unpacked / "usr/share/doc/texlive-doc"
    return _copied(sorted(root.rglob("*.pdf")), root, folder)


def _openmoji(unpacked: Path, folder: Path) -> Iterator[str | None]:
    """Every emoji on white, with its name as caption."""
    about = unpacked / "package/data/openmoji.json"
    for one in json.loads(about.read_text(encoding="utf-8")) if about.is_file() else ():
        drawing = unpacked / "package/color/svg" / f"{one['hexcode']}.svg"
        yield _captioned(drawing, f"{one['hexcode']}.png", one["annotation"], folder)


def _stamps(unpacked: Path, folder: Path) -> Iterator[str | None]:
    """Every stamp on white, with its English sentence."""
    root = unpacked / "usr/share/tuxpaint/stamps"
    for text in sorted(root.rglob("*.txt")):
        drawing = next((file for end in (".png", ".svg") if (file := text.with_suffix(end)).is_file()), None)
        sentence = text.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
        if drawing is None or not sentence:
            yield f"{'no drawing' if drawing is None else 'no sentence'}: {text.relative_to(root)}"
        else:
            yield _captioned(drawing, str(text.relative_to(root).with_suffix(".png")), sentence, folder)


def _captioned(drawing: Path, name: str, caption: str, folder: Path) -> str | None:
    """Write a drawing as a picture on white, and its line in the table; or say why not."""
    target = folder / "images" / name
    try:
        picture = _on_white(drawing)
    except ImageError:
        return f"unreadable drawing: {name}"
    except DataError:
        raise
    except Exception:  # SVG files break a renderer in many ways
        return f"{'unreadable drawing' if drawing.is_file() else 'no drawing'}: {name}"
    with explain_disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)
        with open(folder / "metadata.jsonl", "a", encoding="utf-8") as table:
            table.write(json.dumps({"file_name": f"images/{name}", "alt": caption}, ensure_ascii=False) + "\n")
    return None


def _on_white(drawing: Path) -> PIL.Image.Image:
    content = drawing.read_bytes()
    if drawing.suffix == ".svg":
        try:
            import cairosvg
        except (ImportError, OSError):
            raise DataError(
                "drawings in SVG need `pip install 'lorgnette[build-data]'` and the cairo library"
            ) from None
        content = cairosvg.svg2png(content, output_width=SVG_SIDE)
    picture = open_rgba(content, str(drawing))
    if drawing.suffix == ".svg":
        picture.thumbnail((SVG_SIDE, SVG_SIDE))
    white = PIL.Image.new("RGBA", picture.size, "white")
    return PIL.Image.alpha_composite(white, picture).convert("RGB")


MATERIALS = {
    "gimp-manual": Material(
        "apt",
        "gimp-help-en",
        "webpages",
        "The user manual of GIMP in English: illustrated pages. By the GIMP Documentation Team, docs.gimp.org.",
        "GNU Free Documentation License 1.2 or later",
        (
            "usr/share/gimp/2.0/help/en/*legal*.html",
            "usr/share/gimp/2.0/help/en/*gfdl*.html",
            "usr/share/doc/*/copyright",
        ),
        _gimp,
    ),
    "science-pdf": Material(
        "apt",
        "texlive-science-doc",
        "documents",
        "Manuals of TeX packages for the sciences, as PDF. By the authors of the packages; see www.ctan.org.",
        "LaTeX Project Public License and others, each by its folder",
        ("usr/share/doc/texlive-science-doc/copyright", "usr/share/doc/texlive-science-doc/Licenses.gz"),
        _science,
    ),
    "openmoji": Material(
        "npm",
        "openmoji@17.0.0",
        "pairs",
        "OpenMoji 17.0: emoji with names, drawn at the HfG Schwäbisch Gmünd; openmoji.org.",
        "Creative Commons Attribution-ShareAlike 4.0",
        ("package/LICENSE.txt", "package/CITATION.cff"),
        _openmoji,
    ),
    "tuxpaint-stamps": Material(
        "apt",
        "tuxpaint-stamps-default",
        "pairs",
        "Stamps of Tux Paint: photos and drawings, each with a sentence. By the Tux Paint team; tuxpaint.org.",
        "GNU General Public License 2 or later",
        ("usr/share/doc/tuxpaint-stamps-default/copyright",),
        _stamps,
    ),
}
"""Name -> material. A new one is a row here and a function that picks its files."""
