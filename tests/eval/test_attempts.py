"""Answerers that fail on a question: it is named and wrong, and the evaluation goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lorgnette.errors import CheckpointError, DataError, SettingsError
from lorgnette.eval.attempts import MOST_FAILED
from lorgnette.eval.models.http_client import ServerError
from lorgnette.eval.results.store import ResultsFolder
from lorgnette.eval.runner import evaluate
from lorgnette.eval.task import Task
from lorgnette.sample import Sample
from tests.eval.test_runner import SAMPLES, TASK, Constant, Perfect


class Fails(Perfect):
    """Knows every answer, but raises when it is asked some questions."""

    identity = "Fails"

    def __init__(self, names: Sequence[str], error: BaseException) -> None:
        super().__init__()
        self.names, self.error = set(names), error

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        if any(sample.name in self.names for sample in samples):
            raise self.error
        return super().generate(samples, max_tokens=max_tokens, stop=stop)


ERRORS = [
    (DataError("the prompt is longer than the model's positions"), "the prompt is longer than the model's positions"),
    (RuntimeError("index out of\nrange in self"), "RuntimeError: index out of range in self"),
    (ValueError("x" * 5000), "ValueError: xxx"),
]


@pytest.mark.parametrize(("error", "reason"), ERRORS)
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_a_question_that_fails_is_named_and_wrong(
    error: Exception, reason: str, batch_size: int, tmp_path: Path
) -> None:
    names = ["q0", "q7", "q8", "q19"]
    result = evaluate(TASK, Fails(names, error), batch_size=batch_size, folder=tmp_path)
    assert (result.count, result.missing, result.accuracy) == (20, 0, 80)
    declined = json.loads((tmp_path / "summary.json").read_text())["declined"]
    assert sorted(declined) == sorted(names)
    assert all(why.startswith(reason) and len(why) < 300 for why in declined.values())
    assert {one.name for one in result.examples if one.score == 0} == set(names)
    assert all((tmp_path / "pictures" / f"{one.images[0]}.jpg").exists() for one in result.examples)
    assert ResultsFolder(tmp_path).result() == result


@pytest.mark.parametrize("error", [SettingsError("s"), CheckpointError("c"), ServerError("gone"), KeyboardInterrupt()])
def test_what_is_no_fault_of_a_question_ends_the_evaluation(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        evaluate(TASK, Fails(["q5"], error), batch_size=4, folder=tmp_path)
    assert [one.index for one in ResultsFolder(tmp_path).examples()] == [0, 1, 2, 3], "asked again with the next run"


def test_an_answerer_that_fails_in_a_row_is_at_fault_itself(tmp_path: Path) -> None:
    names = [f"q{number}" for number in range(6, 6 + MOST_FAILED)]
    error = RuntimeError("device lost")
    with pytest.raises(RuntimeError, match="device lost"):
        evaluate(TASK, Fails(names, error), batch_size=4, folder=tmp_path)
    stored = ResultsFolder(tmp_path).examples()
    assert not [one for one in stored if one.declined]
    assert evaluate(TASK, Fails([], error), batch_size=4, folder=tmp_path).accuracy == 100


def test_an_answerer_that_never_answers_is_at_fault_itself(tmp_path: Path) -> None:
    task = Task("three", SAMPLES[:3])
    with pytest.raises(RuntimeError, match="no"):
        evaluate(task, Fails(["q0", "q1", "q2"], RuntimeError("no")), folder=tmp_path)
    assert ResultsFolder(tmp_path).examples() == []


@pytest.mark.parametrize(
    ("given", "stored"), [(None, ""), (5, "5"), (b"red", "red"), ("", ""), (["red"], "['red']"), (2.5, "2.5")]
)
def test_answers_that_are_no_text(given: Any, stored: str) -> None:
    result = evaluate(TASK, Constant(given))
    assert {one.answer for one in result.examples} == {stored}
