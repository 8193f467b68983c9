"""The command: a tiny model on the built-in benchmarks, few-shot, blind, with a judge, and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.data.config import InstructConfig
from lorgnette.data.rejected import RejectedRow
from lorgnette.data.sources import instruct
from lorgnette.errors import LorgnetteError, SettingsError
from lorgnette.eval.judge import extracted, judged
from lorgnette.eval.metrics import Reference
from lorgnette.eval.models.base import Model
from lorgnette.eval.results.bootstrap import Estimate
from lorgnette.eval.results.rescore import rescore
from lorgnette.eval.results.store import Example, Result, ResultsFolder, score
from lorgnette.eval.results.summary import mean_score, means, print_results
from lorgnette.eval.tasks import BENCHMARK_GROUPS
from lorgnette.hub.export import save
from lorgnette.sample import Sample
from tests.eval.fixtures import write_benchmark
from tests.hub.tiny import tiny_model, tiny_processor


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save(tiny_model(), tiny_processor(), folder)
    return str(folder)


def run(*arguments: str) -> str:
    """Output of the command; its exception is raised again."""
    done = CliRunner().invoke(app, ["eval", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_the_four_and_their_mean(model: str, tmp_path: Path) -> None:
    common = ("--model", model, "--tasks", "builtin", "--limit", "6", "--json")
    found = json.loads(run(*common, "--shots", "2", "--folder", str(tmp_path)))
    scores = [found[name]["overall"]["value"] for name in BENCHMARK_GROUPS["builtin"]]
    assert found["mean of builtin"]["value"] == pytest.approx(sum(scores) / 4)
    assert found["scene_vqa"]["shots"] == {
        "count": 2,
        "choose": "random",
        "seed": 0,
        "pool": 2048,
        "source": "scene_vqa/train",
        "instruction": "Instruction: provide an answer to the question. Use the image to answer.\n",
    }
    stored = ResultsFolder(tmp_path / "scene_captions").result()
    assert stored.count == 6
    assert all(example.prompt.count("[image ") == 3 for example in stored.examples)
    again = json.loads(run(*common, "--shots", "2", "--batch-size", "1"))
    assert again == found
    blind = json.loads(run(*common, "--shots", "2", "--blind", "--choose", "rices"))
    assert blind["scene_vqa"]["blind"]


@pytest.mark.parametrize("choices", ["generation", "likelihood"])
@pytest.mark.parametrize("split", [(), ("--split",), ("--no-split",)])
def test_public_files_by_path(model: str, tmp_path: Path, choices: str, split: tuple[str, ...]) -> None:
    ((name, path),) = write_benchmark(tmp_path, "mmmu").items()
    common = ("--model", model, "--tasks", name, "--data", f"{name}={path}", "--incomplete", "--choices", choices)
    found = json.loads(run(*common, *split, "--variant", "vlmevalkit", "--json"))["mmmu"]
    assert found["overall"]["count"] == 8
    assert len(found["refused"]) == 2
    assert found["answer_by"] == choices
    assert ("five crops" in found["model"]) == (split == ("--split",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "x", "--variant", "mine"), "use one of paper, lmms-eval, vlmevalkit"),
        (("--model", "x", "--choose", "best"), "use one of random, rices, text"),
        (("--model", "x", "--form", "poem"), "use one of chat, base"),
        (("--model", "x", "--data", "vqav2"), "NAME=PATH"),
        (("--model", "x", "--data", "vqa=here"), "no benchmark is called 'vqa'"),
        ((), "no model to evaluate"),
    ],
)
def test_what_is_mistyped_is_one_sentence(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(LorgnetteError, match=message):
        run(*arguments)


def test_the_table_of_benchmarks() -> None:
    printed = run("tasks")
    assert "mathvista" in printed
    assert "anls" in printed


def test_a_training_split_becomes_a_source(tmp_path: Path) -> None:
    data = write_benchmark(tmp_path, "docvqa")["docvqa"]
    common = ("training", "docvqa", str(tmp_path / "out"), "--data", f"docvqa={data}")
    assert "Wrote 8 rows" in run(*common, "--incomplete")
    assert "left out 2\n  1: no image\n  1: no value" in run(
        "training", "docvqa:validation", *common[2:], "--incomplete"
    )
    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    record = instruct.read(rows[1], InstructConfig(path="x"), "row 1")
    assert record.piece().text == "Which colour, übrigens?\nGive a very brief answer.GREEN"
    assert len(record.images) == 1
    with pytest.raises(SettingsError, match="mathvista has no training split; name another one, as mathvista:testmini"):
        run("training", "mathvista", str(tmp_path))


# --- the mean, the table, the judge


def result(value: float, width: float, **settings: str) -> Result:
    described = {"metric": "exact_match", "split": "test", **settings}
    rejected = {n: RejectedRow(f"row {n}", "", "no image") for n in range(7)}
    return Result(described, Estimate(value, value - width, value + width, 10), {}, (), rejected)


def test_the_mean_of_independent_scores() -> None:
    mean = mean_score([result(value, 4) for value in (40, 50, 60, 110)])
    assert (mean.value, mean.count) == (65, 40)
    assert (mean.low, mean.high) == pytest.approx((63, 67)), "four equal intervals make one of half the width"
    names = BENCHMARK_GROUPS["builtin"]
    assert means({name: result(10, 1) for name in names[:3]}, BENCHMARK_GROUPS) == {}
    assert means({f"{name}:test": result(10, 1) for name in names}, BENCHMARK_GROUPS)["builtin"].value == pytest.approx(
        10
    )


def test_the_table_names_what_was_not_asked(capsys: pytest.CaptureFixture[str]) -> None:
    print_results({"one": result(10, 1), "two": result(0, 0, metric="unscored", split="testdev")})
    printed = capsys.readouterr().out
    assert printed.count("one: not asked, row") == 5
    assert "one: 2 more were not asked" in printed
    assert "two: the answers of split testdev are secret" in printed


class Reads(Model):
    """A judge that reads the last word. `asked` records the requests."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        self.asked += [sample.text for sample in samples]
        return [{"zwölf": "12"}.get(text.split("Response: ")[1].split()[0], "none") for text in self.asked]


def test_a_judge_reads_what_the_rules_do_not(tmp_path: Path) -> None:
    truth = Reference(("12",), form="integer")
    answers = ["12", "zwölf Äpfel", "keine Ahnung"]
    examples = [Example(n, f"q{n}", "", "[image] How many?", text, truth, ()) for n, text in enumerate(answers)]
    settings = {"task": "mathvista", "metric": "mathvista_accuracy"}
    store = ResultsFolder(tmp_path)
    store.begin(settings)
    store.append(examples, {})
    plain, reader = score(settings, examples), Reads()
    assert plain.accuracy == pytest.approx(100 / 3)
    again = judged(plain, reader, tmp_path)
    assert again.accuracy == pytest.approx(200 / 3)
    assert len(reader.asked) == 2
    assert "Question: How many?" in reader.asked[0]
    assert rescore(tmp_path).accuracy == again.accuracy, "scoring again needs no judge"
    assert [one.answer for one in rescore(tmp_path).examples] == answers
    assert extracted(again.examples, reader) == list(again.examples), "none is asked twice"
    assert len(reader.asked) == 2
