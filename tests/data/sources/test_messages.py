"""Conversations in rows of a file: read in order, bad ones named, lost images replaced; the kind's former name."""

import json
from pathlib import Path

import pytest

from lorgnette.data.config import ChatConfig, PackConfig
from lorgnette.data.loader.batches import BatchBuilder
from lorgnette.data.plan.mixture import PlannedSource
from lorgnette.data.plan.pack_plan import PackedPlan
from lorgnette.data.prepare import Prepared, prepare
from lorgnette.errors import DataError, SettingsError
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.run import Run
from tests.data.sources.made import parquet, picture

ASK = {"role": "user", "content": "what?"}
REPLY = {"role": "assistant", "content": "this"}
ENDLESS = {"role": "assistant", "content": "what this " * 100}


@pytest.fixture(scope="module")
def processor() -> Processor:
    tokenizer = train_tokenizer(["what? this and that"] * 9, vocabulary=300)
    return Processor(tokenizer, ImageConfig(shortest=28, longest=56, grid=4), PerceiverConfig(latents=4))


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def opened(path: Path, processor: Processor) -> Prepared:
    return prepare(ChatConfig(path=str(path)), processor, workers=1)


def test_rows_of_a_folder_are_read_in_order_and_blank_lines_are_nothing(tmp_path, processor):
    write(tmp_path / "b.jsonl", {"messages": [ASK, REPLY]}, "", {"messages": [ASK, REPLY, ASK, REPLY]})
    write(tmp_path / "a.jsonl", {"messages": [{**ASK, "content": "and?"}, REPLY]})
    source = opened(tmp_path, processor)
    samples = [source.record(number).piece() for number in range(len(source))]
    assert [one.text for one in samples] == ["and?this", "what?this", "what?thiswhat?this"]
    assert samples[2].name == f"{tmp_path / 'b.jsonl'}, row 3"
    assert samples[2].meta["source"] == f"chat {tmp_path}"


def test_rows_of_several_forms_stand_in_one_file(tmp_path, processor):
    (tmp_path / "x.png").write_bytes(picture())
    bare = {"role": "user", "content": [{"type": "image"}, "which?", {"type": "image"}]}
    rows = [
        {"messages": [bare, REPLY], "images": ["x.png", {"bytes": None, "path": "x.png"}]},
        {"conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "Y"}], "image": "x.png"},
        {"prompt": "Why?", "completion": "So.", "images": []},
    ]
    path = write(tmp_path / "a.jsonl", *rows)
    source = opened(path, processor)
    samples = [source.record(number).piece() for number in range(3)]
    assert [len(one.images) for one in samples] == [2, 1, 0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "not JSON"),
        ([1], "wrong type"),
        ({"text": "x"}, "no column"),
        ({"messages": [{"role": "user"}]}, "no column"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, REPLY]}, "images"),
        ({"messages": [REPLY], "images": ["x.png"]}, "no image"),
        ({"messages": 3}, "wrong type"),
        ("[" * 5000, "not JSON"),
        ('{"messages": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_a_bad_row_is_named_and_left_out(row, reason, tmp_path, processor):
    path = write(tmp_path / "a.jsonl", {"messages": [ASK, REPLY]}, row)
    source = opened(path, processor)
    assert len(source) == 1
    (line,) = (source.folder / "rejected.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["file"], entry["place"], entry["reason"]) == (str(path), "row 2", reason)
    assert source.facts["reasons"] == {reason: 1}


def test_the_former_name_of_the_kind_is_refused_where_it_is_written_and_read_where_it_is_stored():
    source = {"kind": "messages", "path": "a.jsonl", "weight": 2}
    values = {"name": "a", "stages": [{"name": "a", "steps": 1, "sources": [source]}]}
    with pytest.raises(SettingsError, match="kind messages is now called chat"):
        Run.parse(values)
    (read,) = Run.parse(values, stored=True).stages[0].sources
    assert read == ChatConfig(path="a.jsonl", weight=2)


def planned(source: Prepared, **pack) -> PackedPlan:
    title = source.config.title
    limits = PackConfig(**({"tokens": 64, "packs_per_step": 1} | pack))
    images = ImageConfig(shortest=28, longest=56, grid=4)
    return PackedPlan((PlannedSource(title, source.index),), limits, 0, images, PerceiverConfig(latents=4))


def test_rows_that_are_too_long_are_left_out_and_said(tmp_path, processor):
    path = write(tmp_path / "a.jsonl", {"messages": [ASK, ENDLESS]}, {"messages": [ASK, REPLY]})
    plan = planned(opened(path, processor))
    assert {ref.record for step in range(4) for ref in plan.step(step)} == {1}
    (said,) = plan.oversized()
    assert "of 2 units in 2 records 1 do not fit a pack of 64 tokens" in said and "row 0 first" in said


def test_an_image_that_is_lost_after_preparing_is_replaced_by_the_next_row(tmp_path, processor):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(picture(seed=ord(name)))
    rows = [{"image": {"bytes": None, "path": f"{name}.png"}, "messages": [ASK, REPLY]} for name in ("a", "b")]
    source = opened(parquet(tmp_path / "rows.parquet", rows), processor)
    steps = BatchBuilder(planned(source, samples=2), (source,), processor)
    (before,) = steps.batches(0)
    (tmp_path / "a.png").unlink()
    (after,) = steps.batches(0)
    assert set(after.refs) == set(before.refs) and len(after.documents) == 2
    (sentence,) = after.replaced
    assert "row 0" in sentence and "a.png" in sentence and "row 1 stands in its place" in sentence
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match=r"[ab]\.png"):
        steps.batches(0)
