"""Thoughts of reasoning models: cut before scoring whoever answered, kept in what is stored."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from lorgnette.eval.judge import doubtful, extracted
from lorgnette.eval.metrics import METRICS, Reference
from lorgnette.eval.models.openai_api import _read
from lorgnette.eval.reasoning import THOUGHT_MARKS, cut_thought
from lorgnette.eval.results.rescore import rescore
from lorgnette.eval.results.store import Example
from lorgnette.eval.results.summary import print_results
from lorgnette.eval.runner import evaluate
from lorgnette.eval.task import Task
from lorgnette.sample import Sample, Text
from tests.eval.test_runner import Constant

SAMPLES = [
    Sample((Text(f"{n}?"),), {"name": f"q{n}", "answer": "C", "options": ("cat", "dog", "hare", "fox")})
    for n in range(4)
]
TASK = Task("animals", SAMPLES, metric="choice_accuracy", stop=())


@pytest.mark.parametrize(
    ("text", "answer", "unclosed"),
    [
        ("<think>A? no. B? no</think>C", "C", False),
        ("<think>\nA?\n</think>\n\nC", "C", False),
        ("A? no. B? no</think>C", "C", False),  # the template wrote what opens the thought
        ("<THINK>x</THINK> C", "C", False),
        ("<think>a</think>B<think>c</think>D", "D", False),
        ("<think>a</think>B<think>c", "B", False),
        ("<think>A? no. B", "", True),
        ("  <think>", "", True),
        ("The answer is C <think>or", "The answer is C", False),
        ("<think></think>", "", False),
        ("<think>x</think><answer>C</answer>", "C", False),
        ("<|begin_of_thought|>x<|end_of_thought|> <|begin_of_solution|>C<|end_of_solution|>", "C", False),
        ("\u25c1think\u25b7x\u25c1/think\u25b7C", "C", False),
        ("<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>C<|return|>", "C", False),
        ("<think>x</think><|begin_of_box|>C<|end_of_box|>", "C", False),
        ('<think type="deep">A?</think >C', "C", False),
        ("<think step=1> A? no.", "", True),
        ("&lt;think&gt;A?&lt;/think&gt;C", "C", False),
        ("<think>A <think>B</think> A</think>C", "C", False),
        ("<think>x</think><answer>C", "C", False),
        ("<reasoning>x</reasoning><CONCLUSION>C</CONCLUSION>", "C", False),
        ("<|START_THINKING|>x<|END_THINKING|><|START_RESPONSE|>C<|END_RESPONSE|>", "C", False),
        ("<thinks>A</thinks>C", "<thinks>A</thinks>C", False),
        ("  C\n", "  C\n", False),
        ("", "", False),
        ("think C", "think C", False),
    ],
)
def test_the_thought_is_cut(text: str, answer: str, unclosed: bool) -> None:
    assert cut_thought(text) == (answer, unclosed)


@pytest.mark.parametrize(("opening", "closing"), THOUGHT_MARKS)
def test_every_mark_opens_and_closes(opening: str, closing: str) -> None:
    assert cut_thought(f"{opening}A or B{closing}C") == ("C", False)
    assert cut_thought(f"{opening}A or B") == ("", True)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_no_metric_sees_a_thought(name: str) -> None:
    truth = Reference(("a red car on a street",) * 10)
    plain = Example(0, "q", "", "?", "a red car on a street", truth, ())
    thinking = dataclasses.replace(plain, answer=f"<think>a dog, 5, B? [1]</think>{plain.answer}")
    assert thinking.judged == plain.judged
    assert METRICS[name].scores([thinking.judged], [truth]) == METRICS[name].scores([plain.judged], [truth])


def test_what_is_stored_is_raw_and_scored_again_without_its_thought(tmp_path: Path) -> None:
    answer = "<think>A? no. B? no</think>C"
    assert evaluate(TASK, Constant(answer), folder=tmp_path).accuracy == 100
    stored = [json.loads(line) for line in (tmp_path / "examples.jsonl").read_text().splitlines()]
    assert {row["answer"] for row in stored} == {answer}
    assert rescore(tmp_path).accuracy == 100


def test_an_unclosed_thought_is_an_empty_answer_that_is_counted_and_said(tmp_path: Path) -> None:
    result = evaluate(TASK, Constant("<think>It must be C"), folder=tmp_path)
    assert result.accuracy == 0
    assert result.unclosed == ("q0", "q1", "q2", "q3")
    assert json.loads((tmp_path / "summary.json").read_text())["unclosed_thoughts"] == 4
    console = Console(file=io.StringIO(), width=300)
    print_results({"animals": result}, console)
    assert (
        "animals: 4 of 4 answers end within a thought and count as empty (q0, q1, q2, ...)" in console.file.getvalue()
    )  # type: ignore[attr-defined]
    assert "unclosed_thoughts" not in evaluate(TASK, Constant("C")).summary()


def test_a_judge_reads_no_thoughts_and_its_own_are_cut() -> None:
    truth = Reference(("12",), form="integer")
    closed = Example(0, "q", "", "?", "<think>12</think>a dozen", truth, ())
    assert doubtful([closed, dataclasses.replace(closed, answer="<think>perhaps")]) == [closed]
    judge = Constant("<think>a dozen is</think> 12")
    (read,) = extracted([closed], judge)
    assert read.extracted == "12"
    assert "<think>" not in judge.asked[0].text
    (unread,) = extracted([closed], Constant("<think>a dozen is"))
    assert unread.extracted is None


def test_a_server_that_keeps_thoughts_apart() -> None:
    cut = {"choices": [{"message": {"content": None, "reasoning_content": "It"}, "finish_reason": "length"}]}
    assert cut_thought(_read(cut, ())).unclosed
    whole = {"choices": [{"message": {"content": "C", "reasoning_content": "It"}, "finish_reason": "stop"}]}
    assert _read(whole, ()) == "C"
