"""Scores know by which version of which metric they were made."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import DataError
from lorgnette.eval.metrics import METRICS, Reference
from lorgnette.eval.results.compare import compare
from lorgnette.eval.results.store import Example, Result, ResultsFolder, score
from lorgnette.eval.results.summary import print_results
from lorgnette.eval.runner import evaluate
from lorgnette.eval.task import Task
from lorgnette.eval.tasks import BENCHMARKS
from lorgnette.sample import Sample, Text
from tests.eval.test_runner import Constant

ROWS = Path(__file__).parents[2] / "benchmarks" / "results"
SAMPLES = [Sample((Text(f"{n}?"),), {"name": f"q{n}", "answers": ["the cat"] * 10}) for n in range(3)]
TASK = Task("cats", SAMPLES, metric="vqa_accuracy")


def older(folder: Path) -> None:
    """Make a folder's scores those of the version before, as an older lorgnette stored them."""
    summary = json.loads((folder / "summary.json").read_text())
    del summary["metric_version"]
    summary["overall"]["value"] = 0.0
    (folder / "summary.json").write_text(json.dumps(summary))


def command(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_summary_names_the_version_and_settings_do_not(tmp_path: Path) -> None:
    result = evaluate(TASK, Constant("the cat"), folder=tmp_path)
    assert result.measured_by == "vqa_accuracy 2"
    assert json.loads((tmp_path / "summary.json").read_text())["metric_version"] == 2
    assert "metric_version" not in ResultsFolder(tmp_path).settings(), "an evaluation goes on under any version"
    assert ResultsFolder(tmp_path).outdated() == ""


def test_rescoring_and_comparing_say_that_scores_are_of_another_version(tmp_path: Path) -> None:
    for side in ("a", "b"):
        evaluate(TASK, Constant("the cat"), folder=tmp_path / side)
    older(tmp_path / "a")
    said = "scored with version 1 of vqa_accuracy; version 2 gives other scores"
    assert said in ResultsFolder(tmp_path / "a").outdated()
    compared = command("compare", tmp_path / "a", tmp_path / "b")
    assert said in compared
    assert "from 100.0 (a) to 100.0 (b)" in compared, "both sides are measured by today's version"
    assert said in command("rescore", tmp_path / "a")
    assert ResultsFolder(tmp_path / "a").outdated() == ""
    assert said not in command("rescore", tmp_path / "a")


@pytest.mark.parametrize("content", ["", "[]", "null", '{"metric": ["anls"]}', '{"metric": 5}', "{"])
def test_a_summary_that_is_damaged_is_made_anew(tmp_path: Path, content: str) -> None:
    evaluate(TASK, Constant("the cat"), folder=tmp_path)
    (tmp_path / "summary.json").write_text(content)
    assert "rescore writes it again" in command("rescore", tmp_path)
    assert ResultsFolder(tmp_path).outdated() == ""


@pytest.mark.parametrize(
    "change",
    [
        *({key: None} for key in ("answer", "kind", "name", "declined", "images", "truth", "index")),
        *({key: 5} for key in ("answer", "extracted", "rendered", "images", "truth")),
        *({"truth": {"answers": value}} for value in (None, "a b", [1], [["a"]], {"a": 1})),
        *({"index": value} for value in ("1", True)),
        {"images": [["x"]]},
        {"newer": 1},
    ],
)
def test_rows_that_no_evaluation_wrote_are_named(tmp_path: Path, change: dict) -> None:
    evaluate(TASK, Constant("the cat"), folder=tmp_path)
    file = tmp_path / "examples.jsonl"
    first, second, third = map(json.loads, file.read_text().splitlines())
    file.write_text("\n".join(map(json.dumps, (first, second | change, third))) + "\n")
    with pytest.raises(DataError, match=r"examples\.jsonl, line 2: damaged"):
        ResultsFolder(tmp_path).result()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("examples", "5"),
        ("refused", '{"index": 1}'),
        ("refused", '{"index": "1", "name": "q", "reason": "x"}'),
        ("refused", '{"index": 1, "name": "q", "reason": "x", "newer": 1}'),
        ("sessions", "[]"),
    ],
)
def test_other_rows_that_no_evaluation_wrote_are_named(tmp_path: Path, file: str, content: str) -> None:
    evaluate(TASK, Constant("the cat"), folder=tmp_path)
    (tmp_path / f"{file}.jsonl").write_text(f"{content}\n")
    with pytest.raises(DataError, match=rf"{file}\.jsonl, line 1: (is )?damaged"):
        ResultsFolder(tmp_path).result(), ResultsFolder(tmp_path).sessions()


@pytest.mark.parametrize(("key", "value"), [("metric", 5), ("metric", None), ("questions", "x")])
def test_settings_that_no_evaluation_wrote_are_named(tmp_path: Path, key: str, value: object) -> None:
    evaluate(TASK, Constant("the cat"), folder=tmp_path)
    settings = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps(settings | {key: value}))
    with pytest.raises(DataError, match=rf"settings\.json: is damaged \({key}: "):
        ResultsFolder(tmp_path).result()


def test_results_of_two_versions_are_not_compared() -> None:
    now = score({"task": "t", "metric": "anls"}, [Example(0, "q", "", "?", "a", Reference(("a",)), ())])
    before = Result({**now.settings, "metric_version": 1}, now.overall, now.kinds, now.examples)
    with pytest.raises(DataError, match=r"differ in their metric_version \(1 and 2\) .* rescore the older one"):
        compare(before, now)


def test_rows_of_benchmarks_name_their_metric_and_what_supersedes_it() -> None:
    demo = json.loads((ROWS / "demo.json").read_text())
    rows = [demo, *map(json.loads, (ROWS / "evaluate.jsonl").read_text().splitlines())]
    assert demo["metrics"].keys() == demo["benchmarks"].keys()
    for row in rows:
        for task, metric in row["metrics"].items():
            name = BENCHMARKS[task].metric
            assert metric == f"{name} {METRICS[name].version}" or task in row["superseded"]


def test_cider_of_one_image_says_why_it_is_zero() -> None:
    captions = Reference(("a red car",))
    one = score({"task": "coco", "metric": "cider_d"}, [Example(0, "q", "", "?", "a red car", captions, ())])
    assert one.accuracy == 0
    assert "CIDEr of one image is 0 whatever the answer" in one.summary()["notes"][0]
    console = Console(file=io.StringIO(), width=200)
    print_results({"coco": one}, console)
    assert "coco: CIDEr of one image is 0" in console.file.getvalue()  # type: ignore[attr-defined]
    two = score(one.settings, [*one.examples, Example(1, "p", "", "?", "a dog", Reference(("a dog",)), ())])
    assert "notes" not in two.summary()
