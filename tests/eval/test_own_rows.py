"""Rows of one's own as a task: each taught answer is a question, for any model, without code."""

from __future__ import annotations

import json
import sys

import PIL.Image
import pytest

from lorgnette.cli import main
from lorgnette.data.record import Record, Refused
from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.benchmark import Asking
from lorgnette.eval.models.base import Model
from lorgnette.eval.own_rows import is_path, names_of, task_of_path
from lorgnette.eval.row_questions import choose_metric, question_at, questions_in
from lorgnette.eval.runner import evaluate
from lorgnette.eval.task import prompt_of
from lorgnette.sample import Image, Text, Turn

COLOURS = ("red", "green", "blue", "black")


class Fixed(Model):
    """Answers every question with one word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def generate(self, samples, *, max_tokens, stop=()):
        return [self.word] * len(samples)


@pytest.fixture
def rows(tmp_path):
    """A file of four questions, one of them about a picture that is not there, and one more question in a row."""
    found = []
    for number, colour in enumerate(COLOURS):
        if colour != "black":
            PIL.Image.new("RGB", (16 + number, 16), colour).save(tmp_path / f"{colour}.png")
        asked = [{"type": "image", "path": f"{colour}.png"}, {"type": "text", "text": "What colour?"}]
        found.append([{"role": "user", "content": asked}, {"role": "assistant", "content": colour}])
    found[0] += [{"role": "user", "content": "Is it dark?"}, {"role": "assistant", "content": "no"}]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps({"messages": one}) for one in found) + "\nbroken\n")
    return path


def test_every_taught_answer_is_a_question(rows):
    task = task_of_path(str(rows), "mine", Asking())
    assert len(task.samples) == 6 and task.metric == "exact_match" and task.form == "chat"
    first, second = task.samples[0], task.samples[1]
    assert first.meta["answers"] == ("red",) and prompt_of(first).text == "What colour?"
    assert second.meta["answers"] == ("no",) and prompt_of(second).text == "What colour?redIs it dark?"
    result = evaluate(task, Fixed("Red."))
    assert result.count == 4 and result.accuracy == 25.0
    said = [row.reason for row in result.rejected.values()]
    assert len(said) == 2 and any("row 4" in one for one in said) and any("row 5" in one for one in said)


def test_a_path_is_evaluated_as_it_is(rows):
    assert evaluate(str(rows), Fixed("green")).accuracy == 25.0


def test_metric_and_kind_are_taken_or_refused(rows, tmp_path):
    assert task_of_path(str(rows), "mine", Asking(), metric="anls").metric == "anls"
    assert task_of_path(str(rows), "mine", Asking(max_tokens=3), kind="chat").max_tokens == 3
    with pytest.raises(SettingsError, match="no shots"):
        task_of_path(str(rows), "mine", Asking(shots=2))
    (tmp_path / "none.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "a"}]}))
    with pytest.raises(
        DataError, match=r"no row of kind chat has a question and its answer .*the assistant says nothing"
    ):
        task_of_path(str(tmp_path / "none.jsonl"), "none", Asking())


def test_the_command_line_says_what_does_not_fit(rows, monkeypatch, capsys):
    for arguments, said in (
        (("--tasks", "scene_vqa", "--kind", "chat"), "--kind chat is of files of rows"),
        (("--tasks", str(rows), "--metric", "anlz"), "metric 'anlz' is unknown"),
    ):
        monkeypatch.setattr(sys, "argv", ["lorgnette", "eval", "--model", "http://127.0.0.1:9/v1#m", *arguments])
        with pytest.raises(SystemExit):
            main()
        assert said in capsys.readouterr().err


def test_names_of_paths(rows):
    assert is_path(str(rows)) and is_path("nowhere.jsonl.gz") and not is_path("scene_vqa")
    assert names_of(["a/mine.jsonl", "b/other.jsonl"]) == {"a/mine.jsonl": "mine", "b/other.jsonl": "other"}
    assert names_of(["a/mine.jsonl", "b/mine.jsonl"])["b/mine.jsonl"] == "b-mine.jsonl"


def test_pictures_with_a_text_are_one_question():
    units = ((Text("a red", supervised=True),), (Text(" star", supervised=True),))
    caption = Record(units, prefix=(Image("a.png"),))
    assert questions_in(caption) == [-1] and question_at(caption, -1).meta["answers"] == ("a red star",)
    assert questions_in(Record(units)) == [], "there is nothing to ask about"
    picture = Image("a.png")
    web = Record(((picture, *units[0]), units[1]))  # a web document that is a picture and its text
    assert questions_in(web) == [-1] and question_at(web, -1).meta["answers"] == ("a red star",)
    assert (
        len(prompt_of(question_at(web, -1)).images) == 1 and choose_metric(["interleaved"], ["a"]).metric == "cider_d"
    )
    assert questions_in(Record(((*units[0], picture), units[1]))) == [], "a text before it, which is no question"
    talk = ((Turn("user"), Text("a"), Turn("assistant"), Text("b", supervised=True)), (Turn("user"), Text("c")))
    assert questions_in(Record(talk)) == [0]
    alone = Record((talk[0], talk[0]), prefix=(Image("a.png"),), shuffle=True)
    assert prompt_of(question_at(alone, 1)).text == "a" and len(question_at(alone, 1).images) == 1


@pytest.mark.parametrize(
    ("kinds", "answers", "metric"),
    [
        (["pairs"], ["a red star on white"], "cider_d"),
        (["documents"], ["page"], "character_error_rate"),
        (["chat"], ['{"total": 3}', '{"total": 4}'], "field_f1"),
        (["chat"], ["yes", "no"] * 20, "exact_match"),
        (["chat"], [f"{number} Main Street" for number in range(40)], "anls"),
        (["chat"], ["a long answer " * 8] * 4, "bleu_4"),
        (["chat"], [], "exact_match"),
    ],
)
def test_the_metric_is_chosen_by_the_answers(kinds, answers, metric):
    assert choose_metric(kinds, answers).metric == metric


def test_a_row_that_cannot_be_read_is_refused(rows):
    task = task_of_path(str(rows), "mine", Asking())
    refused = 0
    for number in range(len(task.samples)):
        try:
            assert task.samples[number].meta["answers"]
        except Refused:
            refused += 1
    assert refused == 2
