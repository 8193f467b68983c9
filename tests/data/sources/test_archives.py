"""WebDataset archives of strangers: names that lead elsewhere, links, sizes that lie, members that stand twice."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lorgnette.data.prepare.convert import convert_source
from lorgnette.data.sources.reading import webdataset
from lorgnette.data.sources.table import KINDS
from lorgnette.errors import DataError
from tests.data.sources.made import picture
from tests.data.sources.sift import config, sift

A = picture()
Members = list[tuple[str, bytes]]


def archive(path: Path, members: Members, **about: Any) -> Path:
    """A tar file; about: fields of the header of members without content."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as file:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            for key, value in (about if not content else {}).items():
                setattr(header, key, value)
            file.addfile(header, io.BytesIO(content))
    return path


def test_names_of_members_lead_nowhere(tmp_path: Path):
    path = archive(tmp_path / "a.tar", [("../../a.png", A), ("../../a.txt", b"one"), ("/etc/b.png", A)])
    found = sift(config("pairs", path), tmp_path)
    assert len(found.records) == 1 and found.refused == {"no caption": 1}
    assert not (tmp_path.parent.parent / "a.png").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_members_that_are_no_files_are_none(tmp_path: Path, kind: bytes):
    (tmp_path / "x.png").write_bytes(A)
    members: Members = [("a.png", b""), ("a.txt", b"one"), ("b.png", A), ("b.txt", b"two")]
    path = archive(tmp_path / "a.tar", members, type=kind, linkname="x.png")
    found = sift(config("pairs", path), tmp_path)
    assert len(found.records) == 1 and found.refused == {"no image": 1}


def test_members_that_stand_twice_refuse_their_sample(tmp_path: Path):
    twice: Members = [("a.png", A), ("a.txt", b"one"), ("a.png", A), ("a.txt", b"two"), ("b.png", A), ("b.txt", b"ok")]
    found = sift(config("pairs", archive(tmp_path / "a.tar", twice)), tmp_path)
    assert len(found.records) == 1 and found.refused == {"unreadable row": 1}
    assert "two members are called a.png" in found.details[0]


def test_samples_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    good: Members = [("b.png", A), ("b.txt", b"ok")]
    many: Members = [(f"a.{n}.png", A) for n in range(webdataset.MOST_MEMBERS + 1)]
    found = sift(config("pairs", archive(tmp_path / "a.tar", [*many, *good])), tmp_path)
    assert len(found.records) == 1 and found.refused == {"unreadable row": 1}
    monkeypatch.setattr(webdataset, "MOST_SAMPLE", 2 * len(A))
    found = sift(config("pairs", archive(tmp_path / "b.tar", [*many[:3], *good])), tmp_path)
    assert len(found.records) == 1 and found.refused == {"unreadable row": 1}


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_headers_of_gigabytes_are_not_read(tmp_path: Path, kind: bytes):
    header = tarfile.TarInfo("x")
    header.size, header.type = 2**40, kind
    path = archive(tmp_path / "a.tar", [("a.png", A), ("a.txt", b"ok"), ("b.txt", b"cut off")])
    whole = path.read_bytes()[: 512 * 7]  # three headers and contents, of which one takes two blocks
    path.write_bytes(whole + header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    found = sift(config("pairs", path), tmp_path)
    assert len(found.records) == 1 and found.refused == {"unreadable file": 1}


def test_a_sparse_member_of_gigabytes_is_refused_alone(tmp_path: Path):
    header = tarfile.TarInfo("a.png")
    header.size = 70 * 2**20
    path = tmp_path / "a.tar"
    good = archive(tmp_path / "good.tar", [("b.png", A), ("b.txt", b"ok")]).read_bytes()
    with path.open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.seek(header.size, 1)
        file.write(good)
    (tmp_path / "good.tar").unlink()
    found = sift(config("pairs", path), tmp_path)
    assert len(found.records) == 1 and found.refused == {"unreadable row": 1}


def test_names_that_are_no_text_are_kept_as_escapes(tmp_path: Path):
    name = b"\xff".decode("utf-8", "surrogateescape")
    path = archive(tmp_path / "a.tar", [(f"{name}.png", A), (f"{name}.txt", b"one")])
    settings = config("pairs", path)
    made = convert_source(settings, KINDS["pairs"].convert, tmp_path)
    assert made.items == 1 and not list(made.refused())


@pytest.mark.parametrize("size", [0, 100, 700, 900, 1500])
def test_an_archive_that_is_cut_off_is_refused_from_there(tmp_path: Path, size: int):
    path = archive(tmp_path / "a.tar", [("a.png", A), ("a.txt", b"one"), ("b.png", A), ("b.txt", b"two")])
    path.write_bytes(path.read_bytes()[:size])
    try:
        found = sift(config("pairs", path), tmp_path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert not found.records and set(found.refused) <= {"unreadable file", "no caption"}
