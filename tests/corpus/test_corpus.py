"""The corpus as files: written to the same bytes, carried by the package, split by identity."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from corpus import build as builder
from corpus.__main__ import app
from corpus.parts import PARTS
from corpus.writing import scaled, versions, write_corpus
from lorgnette.data.builtin.drawings import SPLITS
from lorgnette.data.builtin.shipped import SHIPPED_CORPUS, manifest, shipped_parts
from lorgnette.errors import DataError
from tests.corpus.test_parts import origin, pictures

FILES = {part.file(split): (part, split) for part in PARTS.values() for split in SPLITS if part.counts[split]}


def test_the_manifest_knows_every_file_and_the_package_carries_what_it_says():
    assert manifest()["files"].keys() == FILES.keys()
    assert sorted(path.relative_to(SHIPPED_CORPUS).as_posix() for path in SHIPPED_CORPUS.rglob("*.parquet")) == sorted(
        FILES
    )
    assert sum(fact["bytes"] for fact in manifest()["files"].values()) < 40e6
    assert manifest()["parts"] == {name: builder.described(part) for name, part in PARTS.items()}


def test_the_package_finds_each_part_where_the_generator_writes_it():
    assert [*shipped_parts()] == [*PARTS]
    for name, part in shipped_parts().items():
        assert (part.kind, part.rows, part.about) == (PARTS[name].kind, PARTS[name].counts, PARTS[name].about)
        assert [part.file(split) for split in SPLITS] == [PARTS[name].file(split) for split in SPLITS]


@pytest.mark.parametrize("file", FILES)
def test_a_carried_file_is_the_one_of_the_manifest(file):
    fact = manifest()["files"][file]
    content = (SHIPPED_CORPUS / file).read_bytes()
    part, split = FILES[file]
    assert (len(content), hashlib.sha256(content).hexdigest()) == (fact["bytes"], fact["sha256"])
    assert pq.read_metadata(io.BytesIO(content)).num_rows == fact["rows"] == part.counts[split]
    assert pq.read_schema(io.BytesIO(content)).equals(part.columns)


@pytest.mark.parametrize("file", FILES)
def test_rows_are_made_anew_as_they_are_carried(file):
    part, split = FILES[file]
    if manifest()["made_with"] == versions():
        made = pa.Table.from_pylist(list(part.maker()(split, 3, 0)), schema=part.columns)
        assert made.equals(pq.ParquetFile(SHIPPED_CORPUS / file).read_row_group(0).slice(0, 3))
    else:  # other encoders: the pictures differ in their bytes, and what is said of them does not
        said = [name for name in part.columns.names if "image" not in name]
        made = pa.Table.from_pylist(list(part.maker()(split, 3, 0)), schema=part.columns).select(said)
        assert made.equals(pq.ParquetFile(SHIPPED_CORPUS / file).read_row_group(0, columns=said).slice(0, 3))


@pytest.mark.parametrize("name", PARTS)
def test_nothing_of_one_split_is_in_another(name):
    """Neither what rows are made of, nor a picture."""
    origins: dict[str, set[str]] = defaultdict(set)
    images: dict[str, set[bytes]] = defaultdict(set)
    for split in SPLITS:
        if PARTS[name].counts[split]:
            for row in pq.read_table(SHIPPED_CORPUS / PARTS[name].file(split)).to_pylist():
                origins[split].update(origin(row))
                images[split].update(hashlib.sha256(content).digest() for content in pictures(row))
    for one in SPLITS:
        for two in SPLITS[: SPLITS.index(one)]:
            assert not origins[one] & origins[two]
            assert not images[one] & images[two]
    assert all(origins[split] for split in SPLITS if PARTS[name].counts[split])


def test_the_same_rows_give_the_same_bytes_and_more_rows_start_with_fewer(tmp_path):
    once = write_corpus(tmp_path / "a", 0.05, ["what"], ["train"], fresh=True)
    again = write_corpus(tmp_path / "b", 0.05, ["what"], ["train"], fresh=True)
    more = write_corpus(tmp_path / "c", 0.1, ["what"], ["train"], fresh=True)
    assert once == again and (once[0].rows, more[0].rows) == (8, 15)
    few, many = (pq.read_table(tmp_path / name / once[0].file) for name in "ac")
    assert many.slice(0, 8).equals(few)


def test_only_what_is_trained_on_grows():
    assert scaled(PARTS["what"], "train", 10) == 10 * PARTS["what"].counts["train"]
    assert scaled(PARTS["what"], "test", 10) == PARTS["what"].counts["test"]
    assert scaled(PARTS["scene_vqa"], "train", 10) == PARTS["scene_vqa"].counts["train"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parts": ["nothing"]}, "part 'nothing' is unknown; use some of drawings, articles"),
        ({"splits": ["dev"]}, "split 'dev' is unknown"),
        ({"scale": 0}, "scale 0 makes no rows"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        write_corpus(tmp_path, **arguments)


def run(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == status
    return result.output


def test_the_command_writes_what_is_asked_for_and_says_how_to_train_on_it(tmp_path):
    said = run("write", tmp_path, "-p", "what", "--split", "validation")
    assert f"Wrote {PARTS['what'].counts['validation']} rows" in said
    assert f"{{kind: instruct, path: {tmp_path}/validation/instruct}}" in said
    assert (tmp_path / "validation/instruct/what.parquet").is_file()


def test_more_drawings_than_there_are_get_other_sentences(tmp_path):
    count = PARTS["drawings"].counts["train"]
    (written,) = write_corpus(tmp_path, 1.01, ["drawings"], ["train"])
    rows = pq.read_table(tmp_path / written.file, columns=["id", "caption"]).to_pylist()
    assert len(rows) == round(1.01 * count)
    again = list(zip(rows, rows[count:], strict=False))
    assert all(one["id"] == two["id"] for one, two in again)
    assert any(one["caption"] != two["caption"] for one, two in again)


def test_the_command_lists_the_parts():
    said = run("list")
    assert all(name in said for name in PARTS)


@pytest.mark.parametrize("part", ["text_only", "what"])
def test_the_command_checks_what_it_makes_against_the_manifest(part, monkeypatch):
    if manifest()["made_with"] == versions():
        assert "1 files made, 0 differences" in run("build", "--check", "-p", part, "--split", "validation")
    file = PARTS[part].file("validation")
    monkeypatch.setitem(manifest()["files"], file, {"rows": 1, "bytes": 2, "sha256": "3"})
    said = run("build", "--check", "-p", part, "--split", "validation", status=1)
    assert f"{file}: the manifest says" in said and "1 files made, 1 differences" in said


def test_some_parts_alone_are_not_put_into_the_package():
    assert "need --check" in run("build", "-p", "what", status=2)
