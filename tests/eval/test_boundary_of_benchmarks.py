"""Limits of references in a benchmark's rows: images in its own folder or at public addresses only."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorgnette.data.prepare.contamination.benchmark_pictures import pictures_of
from lorgnette.data.prepare.opt_out import read_list
from lorgnette.data.prepare.scan import hash_url
from lorgnette.data.record import Refused
from lorgnette.eval.benchmark import Asking
from lorgnette.eval.fewshot import FewShot
from lorgnette.eval.tasks import BENCHMARKS
from lorgnette.inputs import access
from lorgnette.inputs.access import Access, AccessError, read_file
from tests.eval.fixtures import png


def samples(folder: Path, *images: Any) -> Any:
    rows = [{"question": "What?", "answers": ["red"] * 10, "question_id": str(n)} for n in range(len(images))]
    table = pa.Table.from_pylist([{**row, "image": image} for row, image in zip(rows, images, strict=True)])
    pq.write_table(table, folder / "rows.parquet")
    benchmark = BENCHMARKS["textvqa"]
    asking = Asking(data={"textvqa": str(folder)}, incomplete=True)
    return benchmark.samples(asking, benchmark.split, "chat")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "bench"
    made.mkdir()
    (made / "a.png").write_bytes(png(1))
    (made / "secret.png").write_text("TOKEN")
    (tmp_path / "outside.png").write_bytes(png(2))
    (made / "link.png").symlink_to(tmp_path / "outside.png")
    return made


def test_files_of_a_benchmark_are_read_where_they_are_images(folder: Path):
    url = "DATA:image/png;base64," + base64.urlsafe_b64encode(png(3)).decode().rstrip("=").replace("_", "%5F")
    found = samples(folder, "a.png", url, base64.b64encode(png(3)).decode())
    assert [found[n].images[0].source for n in range(3)] == [png(1), png(3), png(3)]


@pytest.mark.parametrize(
    "image",
    [
        *("../outside.png", "link.png", "secret.png", "/etc/hostname", "file:///etc/hostname", "memory://a.png"),
        *("http://127.0.0.1:9/a.png", "http://[::1]/a.png", "HTTP://2130706433/a.png", "http://localhost./a.png"),
        "http://user@127.0.0.1/a.png",
    ],
)
def test_what_a_benchmark_may_not_name_is_refused(folder: Path, image: str):
    found = samples(folder, image, "a.png")
    with pytest.raises(Refused, match="row 0") as refused:
        found[0]
    assert "allow_" not in str(refused.value), "there are no such settings of benchmarks"
    assert found[1].images[0].source == png(1)
    shots = FewShot(found, 1)  # whose row that cannot be had is another one's turn
    assert [shots._example(0), shots._example(1)] == [None, found[1]]


def test_pictures_by_name_are_compared_with_too(folder: Path):
    samples(folder, "a.png", "../outside.png", "link.png")
    found = {label.rpartition("/")[2]: content for label, content in pictures_of(str(folder / "rows.parquet"))}
    assert list(found.values()) == [png(1), b"", b""]


def test_a_checked_path_that_becomes_a_link_is_not_read(folder: Path, tmp_path: Path):
    path = Access((str(folder),)).path("a.png", str(folder))
    assert read_file(path) == png(1)
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(AccessError, match="has become a link"):
        read_file(path)


def test_names_that_mean_another_address_the_second_time_gain_nothing(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("8.8.8.8" if len(asked) == 1 else "127.0.0.1", port))]

    monkeypatch.setattr(access.socket, "getaddrinfo", resolve)
    assert Access().addresses("rebind.example", 80, access.time.monotonic() + 5)[0][4][0] == "8.8.8.8"
    with pytest.raises(AccessError, match="no public address"):
        Access().addresses("rebind.example", 80, access.time.monotonic() + 5)


def test_who_opted_out_is_found_however_an_address_is_written(tmp_path: Path):
    (tmp_path / "list").write_bytes("\ufeffHTTPS://Images.Example/A.png\n".encode())
    assert read_list(str(tmp_path / "list"))[0].tolist() == [hash_url("http://images.example/A.png")]
    assert hash_url("http://images.example/a.png") != hash_url("http://images.example/A.png")


def test_a_picture_that_is_cut_off_is_no_example(folder: Path):
    noise = PIL.Image.effect_noise((200, 200), 90)
    noise.save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:9_000])
    found = samples(folder, "cut.png", "whole.png", "a.png")
    shots = FewShot(found, 1)
    assert [shots._example(n) is None for n in range(3)] == [True, False, False]
