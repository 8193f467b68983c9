"""Sources prepared: what is kept and refused adds up, what is planned is rendered, and what changes is noticed."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from lorgnette.data.builtin import shipped
from lorgnette.data.inspect import source_config
from lorgnette.data.prepare import NotPrepared, Prepared, open_prepared, prepare
from lorgnette.data.prepare.job import tasks_of
from lorgnette.data.rejected import read_rejected
from lorgnette.data.sources.reading import schemas
from lorgnette.errors import DataError, SettingsError
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from tests.data.prepare.conftest import SENTENCES, SOURCES, image, instruct, instruct_row, pairs, picture, write_parquet

by_kind = pytest.mark.parametrize("kind", SOURCES)


def prepared_source(kind: str, folder: Path, processor: Processor, *settings: str) -> Prepared:
    return prepare(source_config(kind, str(SOURCES[kind](folder)), list(settings)), processor, workers=1)


def equal(one: Prepared, other: Prepared) -> bool:
    return all(np.array_equal(values, other.index.arrays[name]) for name, values in one.index.arrays.items())


def refused(prepared: Prepared) -> dict[str, int]:
    """Rejected rows by reason."""
    counts: dict[str, int] = {}
    for entry in read_rejected(prepared.folder / "rejected.jsonl"):
        counts[entry.reason] = counts.get(entry.reason, 0) + entry.rows
    return counts


@by_kind
def test_a_source_is_known_before_it_is_read(kind, tmp_path, processor):
    prepared = prepared_source(kind, tmp_path, processor)
    assert len(prepared) == prepared.facts["kept"] == prepared.facts["rows"] > 10
    index = pickle.loads(pickle.dumps(prepared)).index
    around = processor.tokenizer.id(processor.special.around_image)
    for number in range(len(prepared)):
        record = prepared.record(number)
        tokens = processor.render(record.piece()).tokens_T
        text = int(((tokens != processor.image_token) & (tokens != around)).sum())
        units = slice(index.units_E[:number].sum(), index.units_E[: number + 1].sum())
        planned = int(index.prefix_tokens_E[number] + index.tokens_U[units].sum())
        assert text <= planned <= text + 1
        images = slice(index.image_starts[number], index.image_starts[number + 1])
        assert index.unit_I[images].tolist() == [unit for unit, _ in record.images]
        assert (index.width_I[images] == 40).all() and (index.height_I[images] == 30).all()


@by_kind
def test_nothing_is_done_twice(kind, tmp_path, processor, monkeypatch):
    before = prepared_source(kind, tmp_path, processor)
    monkeypatch.setattr("lorgnette.data.prepare.job.run", lambda *_, **__: pytest.fail("read again"))
    assert equal(before, prepare(before.config, processor))
    assert equal(before, open_prepared(before.config, processor))


def test_a_source_that_is_not_prepared_says_what_to_do(tmp_path, processor):
    config = source_config("instruct", str(instruct(tmp_path)), [])
    with pytest.raises(NotPrepared, match="lorgnette data prepare --kind instruct"):
        open_prepared(config, processor)


def test_two_tokenizers_do_not_mix(tmp_path, processor):
    one = prepared_source("interleaved", tmp_path, processor)
    smaller = Processor(train_tokenizer(SENTENCES, vocabulary=270), processor.images, processor.connector)
    other = prepare(one.config, smaller, workers=1)
    assert one.folder != other.folder
    assert one.index.tokens_U.sum() < other.index.tokens_U.sum()
    assert equal(one, open_prepared(one.config, processor))


def test_only_a_changed_shard_is_read_again(tmp_path, processor, monkeypatch):
    before = prepared_source("instruct", tmp_path, processor, "merge=false")
    write_parquet(tmp_path / "1.parquet", [instruct_row(n) for n in range(50, 57)], schemas.INSTRUCT)
    with pytest.raises(NotPrepared, match=r"1.parquet has changed since"):
        open_prepared(before.config, processor)
    read = []
    from lorgnette.data.prepare import job

    true = job.run
    monkeypatch.setattr(job, "run", lambda scanner, tasks, **other: true(scanner, read.extend(tasks) or tasks, **other))
    after = prepare(before.config, processor, workers=1)
    assert len(after) == 12 + 7
    assert {Path(task.path).name for task in read} == {"1.parquet"}
    (tmp_path / "0.parquet").unlink()
    with pytest.raises(NotPrepared, match=r"0.parquet is gone"):
        open_prepared(before.config, processor)


def test_a_source_may_be_moved_with_what_was_prepared(tmp_path, processor):
    before = prepared_source("instruct", tmp_path / "here", processor)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    moved = open_prepared(before.config.model_copy(update={"path": str(tmp_path / "there")}), processor)
    assert equal(before, moved)
    assert moved.record(3).piece().text == before.record(3).piece().text
    assert str(tmp_path / "there") in moved.index.shards[0]


def test_where_nothing_can_be_written_the_cache_is_used(tmp_path, cache, processor, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).startswith(str(tmp_path)))
    prepared = prepared_source("pairs", tmp_path, processor)
    assert prepared.folder.is_relative_to(cache)
    assert prepared.record(2).images
    own = prepared_source("pairs", tmp_path, processor, f"prepared={tmp_path / 'own'}")
    assert own.folder.is_relative_to(tmp_path / "own")


def test_rows_that_cannot_be_used_are_named_and_the_counts_add_up(tmp_path, processor):
    broken = [
        {"images": [{"bytes": b"no image", "path": None}], "texts": instruct_row(0)["texts"]},
        {"images": [{"bytes": picture(1)[:200], "path": None}], "texts": instruct_row(0)["texts"]},
        {"images": [image(1)], "texts": []},
        {"images": [image(2)], "texts": [{"user": "What?", "assistant": None, "source": None}]},
        instruct_row(77),
    ]
    write_parquet(tmp_path / "a.parquet", broken, schemas.INSTRUCT)
    (tmp_path / "b.parquet").write_bytes(b"not parquet at all")
    prepared = prepared_source("instruct", tmp_path, processor)
    assert refused(prepared) == {"unreadable image": 2, "no text": 1, "no answer": 1, "unreadable file": 0}
    assert prepared.facts["reasons"] == refused(prepared)
    assert len(prepared) == 25 and prepared.facts["rows"] == 29
    entry = next(iter(read_rejected(prepared.folder / "rejected.jsonl")))
    assert {"a.parquet", "b.parquet"} >= {Path(entry.file).name}


def test_a_damaged_row_group_is_refused_whole_and_the_others_are_kept(tmp_path, processor):
    path = instruct(tmp_path, rows=20, shards=1) / "0.parquet"
    import pyarrow.parquet as pq

    column = pq.ParquetFile(path).metadata.row_group(2).column(0)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset : column.data_page_offset + 200] = b"\xff" * 200
    path.write_bytes(content)
    prepared = prepare(source_config("instruct", str(tmp_path), ["merge=false"]), processor, workers=1)
    assert refused(prepared) == {"unreadable row group": 5}
    assert prepared.index.group_E.tolist() == [0] * 5 + [1] * 5 + [3] * 5
    assert all(prepared.record(number).units for number in range(15))


def test_a_source_of_which_nothing_is_left_says_why(tmp_path, processor):
    write_parquet(tmp_path / "a.parquet", [{"images": [], "texts": []}] * 3, schemas.INSTRUCT)
    config = source_config("instruct", str(tmp_path), [])
    with pytest.raises(DataError, match=r"none of 3 rows can be trained on \(no text: 3\); .*, row 0: no text"):
        prepare(config, processor, workers=1)


def test_rows_with_the_same_images_are_merged_and_read_where_they_are_if_there_are_none(tmp_path, processor):
    apart = prepared_source("instruct", tmp_path / "apart", processor)
    assert not apart.facts["converted"]
    rows = [instruct_row(0), instruct_row(1), {**instruct_row(2), "images": [image(0)]}]
    write_parquet(tmp_path / "same" / "0.parquet", rows, schemas.INSTRUCT)
    same = prepare(source_config("instruct", str(tmp_path / "same"), []), processor, workers=1)
    assert same.facts["converted"]
    assert sorted(same.index.units_E.tolist()) == [2, 4]


def accept_short(record):
    return "too many units" if len(record.units) > 1 else None


def fail(record):
    raise RuntimeError("no model")


HOOKS = {
    "accept_short": {"too many units": 24},
    "fail": {"failed filter": 24},
}


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_refuses_and_its_errors_are_reported_with_the_row(hook, tmp_path, processor):
    config = source_config("instruct", str(instruct(tmp_path)), [f"filters=[{__name__}.{hook}]"])
    with pytest.raises(DataError, match="none of 24 rows"):
        prepare(config, processor, workers=1)
    (rejected,) = tmp_path.rglob("rejected.jsonl")
    assert {entry.reason for entry in read_rejected(rejected)} == set(HOOKS[hook])
    assert all("row" in entry.place and hook in entry.detail for entry in read_rejected(rejected))


def test_a_hook_that_is_not_there_is_one_sentence(tmp_path, processor):
    config = source_config("instruct", str(instruct(tmp_path)), ["filters=[nowhere.to.find]"])
    with pytest.raises(SettingsError, match=r"nowhere\.to\.find cannot be imported"):
        prepare(config, processor, workers=1)


def test_images_keep_the_bytes_of_their_files(tmp_path, processor):
    prepared = prepare(source_config("pairs", str(pairs(tmp_path, rows=3)), []), processor, workers=1)
    assert [prepared.record(n).images[0][1].source for n in range(3)] == [picture(n) for n in range(3)]


def test_shards_are_closed_when_they_are_full(tmp_path, processor, monkeypatch):
    monkeypatch.setattr("lorgnette.data.prepare.convert.PARQUET_SHARD_BYTES", 1)
    monkeypatch.setattr("lorgnette.data.prepare.convert.GROUP_ROWS", 4)
    prepared = prepared_source("pairs", tmp_path, processor)
    assert len(prepared) == 12 and len(set(prepared.index.shard_E.tolist())) == 3


def test_one_worker_or_two_and_any_size_of_task_give_the_same(tmp_path, processor, monkeypatch):
    one = prepared_source("instruct", tmp_path, processor)
    monkeypatch.setattr("lorgnette.data.prepare.job.ROWS_OF_TASK", 5)
    assert len(tasks_of(str(tmp_path / "0.parquet"))) == 3
    two = prepare(one.config, processor, workers=2, fresh=True)
    assert equal(one, two)
    assert json.loads((two.folder / "prepared.json").read_text())["kept"] == 24


@by_kind
def test_files_beside_parquet_are_said_to_be_passed_over(kind, tmp_path, processor):
    folder = SOURCES[kind](tmp_path)
    folder = folder if folder.is_dir() else folder.parent
    (folder / "z.jsonl").write_text("{}\n")
    facts = prepare(source_config(kind, str(folder), []), processor, workers=1).facts
    said = [sentence for sentence in facts["unread"] if "1 file is passed over" in sentence and "z.jsonl" in sentence]
    assert bool(facts["kept"]) and len(said) == (kind in ("instruct", "pairs", "interleaved"))


def test_installations_with_equal_corpora_share_what_was_prepared(tmp_path, processor, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = source_config("pairs", "builtin:validation/pairs", ["decontaminate=[builtin:test/benchmark]"])
    folder = prepare(config, processor, workers=1).folder
    other = tmp_path / "other/corpus"
    shutil.copytree(shipped.SHIPPED_CORPUS, other, copy_function=shutil.copyfile)
    monkeypatch.setattr(shipped, "SHIPPED_CORPUS", other)
    assert open_prepared(config, processor).folder == folder
    with (other / "validation/pairs/drawings.parquet").open("ab") as file:
        file.write(b" ")
    with pytest.raises(NotPrepared, match=r"2 of its files have changed|drawings.parquet"):
        open_prepared(config, processor)
