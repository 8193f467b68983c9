"""References as rows hold them, in columns of every type that parquet files have."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorgnette.data.record import Refused
from lorgnette.data.sources.reading.boundary import boundary_of_benchmark
from lorgnette.eval.benchmark import Asking, BenchmarkSamples
from lorgnette.eval.benchmark_rows import answers_of
from lorgnette.eval.runner import evaluate
from lorgnette.eval.tasks import BENCHMARKS, task_named
from tests.eval.fixtures import COLOURS, MAKERS, stored, write_rows
from tests.eval.test_runner import Constant


@pytest.mark.parametrize(
    ("value", "references"),
    [
        ("a cat", ("a cat",)),
        (["a cat", None, "the cat"], ("a cat", "the cat")),
        ("['a cat', 'the cat']", ("a cat", "the cat")),
        ('["a cat", "the cat"]', ("a cat", "the cat")),
        ('["a cat", null]', ("a cat",)),
        ("['a cat' 'the cat']", ("a cat", "the cat")),  # as numpy writes it
        ("['a cat'\n 'the cat']", ("a cat", "the cat")),
        ("array(['a cat', 'the cat'], dtype=object)", ("a cat", "the cat")),
        ("[\"l'ocre\", 'it\\'s']", ("l'ocre", "it's")),
        ('[{"answer": "a cat"}]', ("a cat",)),
        (["['a cat', 'the cat']"], ("a cat", "the cat")),
        (np.array(["a cat", "the cat"]), ("a cat", "the cat")),
        (np.array([1, 2]), ("1", "2")),
        (np.int64(3), ("3",)),
        ([{"answer": "a cat", "answer_id": 1}], ("a cat",)),
        ({"answer": ["a cat", "the cat"], "answer_id": [1, 2]}, ("a cat", "the cat")),
        (None, ()),
        (float("nan"), ()),
        ([], ()),
        ("[]", ()),
        (3, ("3",)),
        (3.0, ("3",)),  # pandas makes floats of whole numbers where some are missing
        (2.5, ("2.5",)),
        (Decimal("1.50"), ("1.50",)),
        ("[1, 2]", ("1", "2")),
        ("[illegible]", ("[illegible]",)),
        (["[1]", "[illegible]"], ("[1]", "[illegible]")),
        ("he said ['no']", ("he said ['no']",)),
        ("", ("",)),
    ],
)
def test_references_of_a_row(value: Any, references: tuple[str, ...]) -> None:
    assert answers_of({"answers": value}, "answers") == references


@pytest.mark.parametrize(
    "value", ["[cat, dog]", "['a cat', the cat]", b"cat", [b"cat"], {"text_of": "x"}, "['a', x()]"]
)
def test_what_is_no_reference_is_refused_by_name(value: Any) -> None:
    with pytest.raises(Refused, match="'answers'"):
        answers_of({"answers": value}, "answers")


def test_a_written_list_of_a_thousand_brackets_is_refused() -> None:
    with pytest.raises(Refused, match="is not a list") as refused:
        answers_of({"answers": "[" * 5000 + "'a'" + "]" * 5000}, "answers")
    assert len(str(refused.value)) < 300


COLUMNS = {
    "coco": "answer",
    "docvqa": "answers",
    "chartqa": "label",
    "vqav2": "answers",
    "textvqa": "answers",
    "okvqa": "answers",
}


@pytest.mark.parametrize("name", [*COLUMNS, "mmmu", "scene_vqa", "doc_vqa", "knowledge_vqa", "text_vqa"])
def test_written_lists_are_read_in_every_benchmark(name: str) -> None:
    column = "answer" if name == "mmmu" else COLUMNS.get(name, "answers")
    row = MAKERS[name](False)[4 if name == "mmmu" else 0]
    question = BENCHMARKS[name].read(row | {column: "['a cat', 'the cat']"})
    assert question.answers == ("a cat", "the cat")
    scenes = BENCHMARKS["scene_captions"].read(MAKERS["scene_captions"](False)[0] | {"captions": "['a', 'b']"})
    assert scenes.answers == ("a", "b")


def test_kinds_of_docvqa_in_every_form() -> None:
    row = MAKERS["docvqa"](False)[0]
    for kinds in (["layout", "table/list"], "['layout', 'table/list']", np.array(["layout", "table/list"])):
        assert BENCHMARKS["docvqa"].read(row | {"question_types": kinds}).kind == "layout, table or list"
    for kinds in (None, []):
        assert BENCHMARKS["docvqa"].read(row | {"question_types": kinds}).kind == ""


QUESTIONS = [f"What colour is {number}?" for number in range(4)]
ANSWERS = [[colour] * 10 for colour in COLOURS[:4]]
FLAT = [text for texts in ANSWERS for text in texts]
TEXTS = {
    "string_view": pa.array(QUESTIONS, pa.string_view()),
    "dictionary": pa.array(QUESTIONS).dictionary_encode(),
    "large_string": pa.array(QUESTIONS, pa.large_string()),
}
LISTS = {
    "fixed_size_list": pa.FixedSizeListArray.from_arrays(pa.array(FLAT), 10),
    "list_view": pa.array(ANSWERS, pa.list_view(pa.string())),
    "large_list": pa.array(ANSWERS, pa.large_list(pa.large_string())),
    "list of dictionary": pa.ListArray.from_arrays([0, 10, 20, 30, 40], pa.array(FLAT).dictionary_encode()),
}
PICTURES = {
    "views": pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())]),
    "large": pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())]),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("texts", LISTS)
@pytest.mark.parametrize("pictures", PICTURES)
def test_columns_of_odd_types_are_read(text: str, texts: str, pictures: str, tmp_path: Path) -> None:
    images = pa.array([stored(number) for number in range(4)], PICTURES[pictures])
    columns = {"question": TEXTS[text], "answers": LISTS[texts], "image": images, "question_id": pa.array(range(4))}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    task = task_named("vqav2", Asking(data={"vqav2": str(tmp_path)}, incomplete=True))
    result = evaluate(task, Constant(COLOURS[0]))
    assert (result.count, result.rejected, result.accuracy) == (4, {}, 25)


ODD_VALUES = (
    *(None, float("nan"), float("inf"), -5.0, 1e6, 3, True),
    *("", " ", "x", "[a", "['a']", b"x", [], [None], {}, {"a": 1}),
)


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_whatever_a_column_holds_the_row_is_read_or_refused(name: str, tmp_path: Path) -> None:
    line = boundary_of_benchmark(str(tmp_path))
    benchmark = replace(BENCHMARKS[name], passes=None)
    rows = MAKERS[name](False)[:8]
    for column in rows[0]:
        for value in ODD_VALUES:
            odd: Any = [row | {column: value} for row in rows]
            samples = BenchmarkSamples(benchmark, odd, benchmark.base, "base", line, answered=True)
            for index in range(len(odd)):
                try:
                    assert samples[index].meta["answers"], (column, value)
                except Refused as refused:
                    assert str(refused).partition(": ")[2].startswith(f"row {index}: ")


@pytest.mark.parametrize("value", [None, [], [None]])
def test_a_row_without_references_is_not_scored_as_wrong(value: Any, tmp_path: Path) -> None:
    rows = MAKERS["okvqa"](False)[:3]
    write_rows(tmp_path / "rows.parquet", [*rows[:2], rows[2] | {"answers": value}])
    result = evaluate(task_named("okvqa", Asking(data={"okvqa": str(tmp_path)}, incomplete=True)), Constant("x"))
    assert (result.count, len(result.rejected)) == (2, 1)
    assert "no reference answer" in result.rejected[2].reason


def test_decimal_places_are_counted_or_refused() -> None:
    row = MAKERS["mathvista"](False)[0] | {"choices": None, "answer": "1.5", "answer_type": "float"}
    read = BENCHMARKS["mathvista"].read
    forms = [read(row | {"precision": value}).form for value in (None, float("nan"), 1.0, "2", 3)]
    assert forms == ["float:2", "float:2", "float:1", "float:2", "float:3"]
    for value in (-5, 1e6, float("inf"), "x"):
        with pytest.raises(Refused, match="decimal places"):
            read(row | {"precision": value})
