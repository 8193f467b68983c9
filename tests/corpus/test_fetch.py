"""`python -m corpus fetch`: the right commands, a small package unpacked and made ready, sentences where it fails."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
from pathlib import Path

import PIL.Image
import pytest
from typer.testing import CliRunner

from corpus import fetch as module
from corpus.__main__ import app
from corpus.fetch import CITATION, MATERIALS, commands, fetch
from lorgnette.errors import DataError
from tests.data.sources.made import html, pdf, picture
from tests.data.sources.sift import config, sift

GIMP, STAMPS = "usr/share/gimp/2.0/help/en", "usr/share/tuxpaint/stamps"
LONG = "The keeper of the light kept a diary for forty years, and in it he wrote of storms, of birds and of ships."


def clear_png() -> bytes:
    content = io.BytesIO()
    PIL.Image.new("RGBA", (160, 160), (200, 0, 0, 0)).save(content, "PNG")
    return content.getvalue()


PACKAGES: dict[str, dict[str, bytes]] = {
    "gimp-manual": {
        f"{GIMP}/a.html": html("One", f"<img src=images/a.png><p>{LONG}</p>").encode(),
        f"{GIMP}/images/a.png": picture(),
        f"{GIMP}/legal.html": html("Legal").encode(),
        f"{GIMP}/index.xml": b"<x/>",
    },
    "science-pdf": {
        "usr/share/doc/texlive-doc/latex/x/x.pdf": pdf([[(60.0, 700.0, "A page with enough text to be read.")]]),
        "usr/share/doc/texlive-doc/latex/x/README": b"no pdf",
        "usr/share/doc/texlive-science-doc/copyright": b"LPPL",
    },
    "openmoji": {
        "package/data/openmoji.json": json.dumps(
            [{"hexcode": "1F600", "annotation": "grinning face"}, {"hexcode": "1", "annotation": "x"}]
        ).encode(),
        "package/color/svg/1F600.svg": b"<svg/>",
        "package/LICENSE.txt": b"CC BY-SA 4.0",
    },
    "tuxpaint-stamps": {
        f"{STAMPS}/animals/cat.png": clear_png(),
        f"{STAMPS}/animals/cat.txt": b"A cat.\nfr.utf8=Un chat.\n",
        f"{STAMPS}/animals/dog.txt": b"A dog.\n",
        f"{STAMPS}/animals/cow.png": b"no picture",
        f"{STAMPS}/animals/cow.txt": b"A cow.\n",
        "usr/share/doc/tuxpaint-stamps-default/copyright": b"GPL-2+",
    },
}
KEPT = {"gimp-manual": (3, 0), "science-pdf": (1, 0), "openmoji": (1, 1), "tuxpaint-stamps": (1, 2)}
"""Files kept, and left out."""


def tar(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, held in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(held)
            archive.addfile(about, io.BytesIO(held))
    return content.getvalue()


@pytest.fixture
def clients(tmp_path, monkeypatch) -> Path:
    """apt-get, dpkg-deb and npm that give small packages, and write down how often they are asked; no SVG renderer."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, files in PACKAGES.items():
        (programs / f"{MATERIALS[name].package}.tar").write_bytes(tar(files))
    note = f'echo "$(basename $0) $@" >> {programs}/asked\n'
    scripts = {
        "apt-get": f'{note}for last; do :; done; cp {programs}/$last.tar ./"$last"_1_all.deb',
        "dpkg-deb": f"{note}tar xzf $2 -C $3",
        "npm": f"{note}for last; do :; done; cp {programs}/$last.tar ./package.tgz",
    }
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    real = module._on_white
    flat = PIL.Image.new("RGB", (64, 64), "white")
    monkeypatch.setattr(module, "_on_white", lambda one: _drawn(one, flat) if one.suffix == ".svg" else real(one))
    return programs


def _drawn(drawing: Path, flat: PIL.Image.Image) -> PIL.Image.Image:
    drawing.read_bytes()
    return flat


@pytest.mark.parametrize("name", MATERIALS)
def test_a_package_becomes_a_folder_that_its_source_reads(name, clients, tmp_path):
    fetched = fetch(name, tmp_path / "out")
    assert fetched is not None and (fetched.kept, len(fetched.left_out)) == KEPT[name]
    folder = tmp_path / "out" / name
    citation = (folder / CITATION).read_text()
    assert MATERIALS[name].licence in citation and MATERIALS[name].package in citation
    assert all(reason in citation for reason in fetched.left_out)
    assert list((folder / module.LICENCES).iterdir())
    found = sift(config(MATERIALS[name].kind, folder), tmp_path)
    assert len(found.records) == 1 and not found.left_out, found.details
    assert not [one for one in folder.rglob("*") if one.suffix in (".xml", ".txt") and module.LICENCES not in one.parts]


def test_a_second_fetch_asks_nobody_and_a_stopped_one_goes_on(clients, tmp_path, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(module, "_unpack", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch("science-pdf", tmp_path / "out")
    assert not (tmp_path / "out" / "science-pdf").exists()
    assert fetch("science-pdf", tmp_path / "out") is not None
    assert fetch("science-pdf", tmp_path / "out") is None
    asked = (clients / "asked").read_text().splitlines()
    assert [line.split()[0] for line in asked] == ["apt-get", "dpkg-deb"]
    assert not list((tmp_path / "out" / module.WORKING).iterdir())


def test_stamps_stand_on_white(clients, tmp_path):
    fetch("tuxpaint-stamps", tmp_path / "out")
    stamp = PIL.Image.open(tmp_path / "out" / "tuxpaint-stamps" / "images" / "animals" / "cat.png")
    assert stamp.mode == "RGB" and stamp.getpixel((0, 0)) == (255, 255, 255)


def test_the_ordinary_clients_are_asked():
    assert commands(MATERIALS["gimp-manual"])[0] == ["apt-get", "download", "-qq", "gimp-help-en"]
    assert commands(MATERIALS["openmoji"])[0] == ["npm", "pack", "--silent", "openmoji@17.0.0"]
    assert {one.client for one in MATERIALS.values()} == {"apt", "npm"}


@pytest.mark.parametrize(("name", "client"), [("gimp-manual", "apt-get"), ("openmoji", "npm")])
def test_a_missing_client_is_one_sentence(name, client, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=f"{client} is not installed; it needs"):
        fetch(name, tmp_path / "out")


def test_a_client_that_fails_is_quoted(clients, tmp_path):
    (clients / "apt-get").write_text("#!/bin/sh\necho E: Unable to locate package; exit 100\n")
    with pytest.raises(DataError, match=r"failed \(E: Unable to locate package\); .*apt-get update"):
        fetch("gimp-manual", tmp_path / "out")
    (clients / "apt-get").write_text("#!/bin/sh\n")
    with pytest.raises(DataError, match=r"wrote no \*.deb file"):
        fetch("gimp-manual", tmp_path / "out")


def test_a_package_of_another_layout_and_an_unknown_name_are_refused(clients, tmp_path):
    (clients / "gimp-help-en.tar").write_bytes(tar({"usr/other": b"x"}))
    with pytest.raises(DataError, match="gimp-help-en: holds no file that was looked for"):
        fetch("gimp-manual", tmp_path / "out")
    with pytest.raises(DataError, match="nothing: no such material; known are gimp-manual"):
        fetch("nothing", tmp_path / "out")


def test_the_command_lists_what_there_is_and_says_what_it_wrote(clients, tmp_path):
    listed = CliRunner().invoke(app, ["fetch"])
    assert listed.exit_code == 0 and all(name in listed.stdout for name in MATERIALS)
    wrote = CliRunner().invoke(app, ["fetch", "science-pdf", str(tmp_path / "out")])
    assert wrote.exit_code == 0 and "1 files" in wrote.stdout and "kind: documents" in wrote.stdout
    again = CliRunner().invoke(app, ["fetch", "science-pdf", str(tmp_path / "out")])
    assert "is there already" in again.stdout
