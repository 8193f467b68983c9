"""The corpus as files: written to the same bytes, carried by the package, split by identity, found by short names."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.data.builtin import corpus
from lorgnette.data.builtin.corpus import COMMITTED, cache_folder, manifest, resolve, versions, write_corpus, write_rows
from lorgnette.data.builtin.drawings import SPLITS
from lorgnette.data.builtin.parts import PARTS
from lorgnette.data.sources.shards import Shards, list_shards
from lorgnette.errors import DataError
from tests.data.builtin.test_parts import pictures

FILES = {part.file(split): (part, split) for part in PARTS.values() for split in SPLITS if part.counts[split]}
CARRIED = [file for file, (part, _) in FILES.items() if part.committed]


def test_the_manifest_knows_every_file_and_the_package_carries_what_it_says():
    assert manifest()["files"].keys() == FILES.keys()
    assert sorted(path.relative_to(COMMITTED).as_posix() for path in COMMITTED.rglob("*.parquet")) == sorted(CARRIED)
    assert sum(fact["bytes"] for fact in manifest()["files"].values()) < 40e6


@pytest.mark.parametrize("file", CARRIED)
def test_a_carried_file_is_the_one_of_the_manifest(file):
    fact = manifest()["files"][file]
    content = (COMMITTED / file).read_bytes()
    part, split = FILES[file]
    assert (len(content), hashlib.sha256(content).hexdigest()) == (fact["bytes"], fact["sha256"])
    assert pq.read_metadata(io.BytesIO(content)).num_rows == fact["rows"] == part.counts[split]
    assert pq.read_schema(io.BytesIO(content)).equals(part.columns)


@pytest.mark.parametrize("file", CARRIED)
def test_rows_are_made_anew_as_they_are_carried(file):
    part, split = FILES[file]
    if manifest()["made_with"] == versions():
        made = pa.Table.from_pylist(list(part.maker()(split, 3, 0)), schema=part.columns)
        assert made.equals(pq.ParquetFile(COMMITTED / file).read_row_group(0).slice(0, 3))
    else:  # other encoders: the pictures differ in their bytes, and what is said of them does not
        said = [name for name in part.columns.names if "image" not in name]
        made = pa.Table.from_pylist(list(part.maker()(split, 3, 0)), schema=part.columns).select(said)
        assert made.equals(pq.ParquetFile(COMMITTED / file).read_row_group(0, columns=said).slice(0, 3))


@pytest.mark.parametrize("name", [name for name, part in PARTS.items() if part.committed])
def test_nothing_of_one_split_is_in_another(name):
    """Neither what rows are made of, nor a picture."""
    origins: dict[str, set[str]] = defaultdict(set)
    images: dict[str, set[bytes]] = defaultdict(set)
    for split in SPLITS:
        if PARTS[name].counts[split]:
            for row in pq.read_table(COMMITTED / PARTS[name].file(split)).to_pylist():
                origins[split].update(row["origin"])
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


def test_row_groups_are_small_and_a_failure_leaves_no_file(tmp_path):
    def broken():
        yield from [{"question_id": 1}] * 70
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_rows(tmp_path / "x.parquet", broken(), PARTS["scene_vqa"].columns)
    assert list(tmp_path.iterdir()) == []
    write_rows(tmp_path / "x.parquet", [{"question_id": number} for number in range(130)], PARTS["scene_vqa"].columns)
    metadata = pq.read_metadata(tmp_path / "x.parquet")
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [64, 64, 2]


def test_only_what_is_trained_on_grows():
    assert corpus.scaled(PARTS["what"], "train", 10) == 10 * PARTS["what"].counts["train"]
    assert corpus.scaled(PARTS["what"], "test", 10) == PARTS["what"].counts["test"]
    assert corpus.scaled(PARTS["scene_vqa"], "train", 10) == PARTS["scene_vqa"].counts["train"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parts": ["nothing"]}, "part 'nothing' is unknown; use some of pairs, articles"),
        ({"splits": ["dev"]}, "split 'dev' is unknown"),
        ({"scale": 0}, "scale 0 makes no rows"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        write_corpus(tmp_path, **arguments)


def test_a_carried_place_is_read_where_it_lies():
    assert resolve("builtin:train/instruct") == str(COMMITTED / "train/instruct")
    assert resolve("builtin:test/chat/conversations.parquet") == str(COMMITTED / "test/chat/conversations.parquet")
    assert len(list_shards("builtin:train/instruct")) == sum(part.kind == "instruct" for part in PARTS.values())


def test_a_place_that_is_not_carried_is_written_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(PARTS["pairs"].counts, "validation", 5)
    (shard,) = list_shards("builtin:validation/pairs")
    assert Path(shard).is_relative_to(cache_folder()) and cache_folder().is_relative_to(tmp_path)
    before = Path(shard).stat()
    assert list_shards("builtin:validation/pairs") == (shard,) and Path(shard).stat() == before
    assert len(list(Shards([shard]).rows(0, 0))) == 5


@pytest.mark.parametrize("place", ["builtin:train/nothing", "builtin:validation/benchmark", "builtin:train/instr"])
def test_a_place_that_there_is_not_is_named(place):
    with pytest.raises(
        DataError, match=f"{place}: the built-in corpus has no such folder or file; use one of test/ben"
    ):
        resolve(place)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["data", "builtin", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_the_command_writes_what_is_asked_for_and_says_how_to_train_on_it(tmp_path):
    said = run(tmp_path, "-p", "what", "--split", "validation")
    assert f"Wrote {PARTS['what'].counts['validation']} rows" in said
    assert f"{{kind: instruct, path: {tmp_path}/validation/instruct}}" in said
    assert (tmp_path / "validation/instruct/what.parquet").is_file()


def test_the_command_lists_the_parts():
    said = run()
    assert all(name in said for name in PARTS)
