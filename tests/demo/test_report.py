from __future__ import annotations

import io
import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import pytest
from rich.console import Console

from lorgnette.demo.report import print_examples, print_table, render, write_report
from lorgnette.demo.scores import DemoResults, mistakes, results_json, verdicts
from lorgnette.eval.metrics import Reference
from lorgnette.eval.results.sighted import Asked, ShownExample, example_from, show_fairly
from lorgnette.eval.results.store import Example, Result, score
from lorgnette.report.training_curve import CurvePoint
from tests.pages import Page

ANSWERS = {
    "colour": ("red", "green", "blue", "black"),
    "count": ("1", "2", "3", "4"),
    "category": ("animal", "tool", "food"),
    "position": ("left", "right"),
}


def result(rates: dict[str, float], seed: int, each: int = 60) -> Result:
    """Answers that are right at a given rate by kind, and else another answer of the kind."""
    generator = random.Random(seed)
    examples = []
    for number in range(each * len(ANSWERS)):
        kind = list(ANSWERS)[number % len(ANSWERS)]
        truth = ANSWERS[kind][number // 4 % len(ANSWERS[kind])]
        wrong = [answer for answer in ANSWERS[kind] if answer != truth]
        answer = truth if generator.random() < rates[kind] else generator.choice(wrong)
        images = (f"{number // 2:016x}",)
        examples.append(
            Example(number, f"q{number}", kind, f"[image] Which {kind}?", answer, Reference((truth,)), images)
        )
    return score({"task": "drawings", "metric": "exact_match"}, examples)


def drawing(number: int) -> PIL.Image.Image:
    image = PIL.Image.new("RGB", ((300, 200), (160, 320), (256, 256))[number % 3], "white")
    colour = ANSWERS["colour"][number % 4]
    PIL.ImageDraw.Draw(image).ellipse((30, 30, 130, 110 + 8 * number), fill=colour, outline="black", width=3)
    return image


def made_up() -> DemoResults:
    """Numbers made up for the test: colour is learned, count a little, category learned, position not."""
    blind = dict.fromkeys(ANSWERS, 0.25) | {"position": 0.5}
    before = result(dict.fromkeys(ANSWERS, 0.0), 0)
    after = result({"colour": 0.92, "count": 0.38, "category": 0.7, "position": 0.5}, 1)
    noise = random.Random(2)
    rows = []
    for step in range(1, 1401):
        stage, within = ("captions", step) if step <= 600 else ("questions", step - 600)
        floor, tall = (2.6, 5.0) if stage == "captions" else (0.35, 2.0)
        loss = (floor + tall * math.exp(-within / 120)) * math.exp(noise.gauss(0, 0.08))
        rows.append(CurvePoint(step, stage, loss, 1e-3 * math.cos(within / 1000), 110 + noise.gauss(0, 9)))
    shown = [example_from(e, drawing(i)) for i, e in enumerate(show_fairly(after.examples))]
    return DemoResults(
        before=before,
        after=after,
        blind=result(blind, 3),
        curve=rows,
        examples=shown,
        seconds=517.3,
        peak_gib=2.416,
        benchmarks={"scene_vqa": Asked(before, after, result(blind, 4)), "doc_vqa": Asked(before, before, before)},
        parameters={"vision": 1_900_000, "connector": 640_000, "language": 2_310_000},
        conditions={"device": "cpu (made up for a test)", "threads": "2", "torch": "2.13.0", "commit": "0123abc"},
        settings="name: demo\nstages:\n- name: captions\n",
        chat="lorgnette chat --model runs/demo/model",
    )


RESULTS = made_up()


def test_report_is_one_file_and_well_formed(tmp_path: Path) -> None:
    path = write_report(tmp_path / "runs", RESULTS)
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert len(page.links) == 20
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert not re.search(r"https?://|url\(|@import|<script|<link", html)
    assert "prefers-color-scheme: dark" in html
    assert len(html) < 1_000_000
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.html", "results.json"]


def test_report_shows_the_numbers() -> None:
    text = Page(render(RESULTS)).text
    *kinds, overall = RESULTS.lines
    for line in (*kinds, overall):
        for found in (line.before, line.after, line.blind):
            assert f"{found.value:.1f}" in text
    assert f"{overall.gain.value:+.1f}" in text
    for expected in ("8 min 37 s", "2.42 GiB", "4.8M", "commit", "0123abc", "lorgnette chat", *verdicts(RESULTS)):
        assert expected in text, expected
    for example in RESULTS.examples:
        assert example.question in text
        assert example.answer in text
        assert example.correct or f"truth {example.truth}" in text


def test_report_tells_of_the_benchmarks() -> None:
    text, (first, second) = Page(render(RESULTS)).text, RESULTS.benchmark_lines
    assert (first.kind, second.kind) == ("scene_vqa", "doc_vqa")
    assert f"{first.gain.value:+.1f}" in text and "doc_vqa" in text
    assert first.gain.value == pytest.approx(first.after.value - first.blind.value)
    assert second.verdict == "not learned" and second.gain.value == 0
    assert results_json(RESULTS)["benchmarks"]["scene_vqa"]["gain"] == round(first.gain.value, 2)
    console = Console(file=io.StringIO(), width=140, force_terminal=False)
    print_table(console, RESULTS)
    assert "scene_vqa" in console.file.getvalue()  # type: ignore[attr-defined]


def test_what_users_and_models_write_is_escaped() -> None:
    nasty = '<script>alert("x")</script>'
    example = ShownExample(drawing(0), nasty, nasty, nasty, False, nasty)
    curve = [replace(point, stage=nasty) for point in RESULTS.curve]
    html = render(
        replace(RESULTS, examples=[example], curve=curve, conditions={nasty: nasty}, settings=nasty, chat=nasty)
    )
    assert "<script" not in html
    Page(html)


def test_report_without_curve_examples_and_conditions() -> None:
    bare = DemoResults(RESULTS.before, RESULTS.after, RESULTS.blind, [], [], 5, 0.1)
    text = Page(render(bare)).text
    assert "Training" not in text
    assert "drawings that no training step has seen" in text


def test_results_json_has_the_promised_form(tmp_path: Path) -> None:
    write_report(tmp_path, RESULTS)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored == json.loads(json.dumps(results_json(RESULTS)))
    assert {"before", "after", "blind", "kinds", "seconds", "peak_gib"} <= stored.keys()
    assert stored["after"] == pytest.approx(RESULTS.after.accuracy, abs=0.01)
    assert stored["kinds"].keys() == ANSWERS.keys()
    for kind, scores in stored["kinds"].items():
        assert scores["blind"] == pytest.approx(RESULTS.blind.kinds[kind].value, abs=0.01)
        assert scores["gain"] == pytest.approx(scores["after"] - scores["blind"], abs=0.011)


def test_words_follow_the_numbers() -> None:
    by_kind = {line.kind: line.verdict for line in RESULTS.lines}
    assert by_kind["colour"] == by_kind["category"] == "learned"
    assert by_kind["position"] == "not learned"
    told = verdicts(RESULTS)
    assert told[0].startswith("The model sees")
    assert "colour" in told[1] and "position" in told[-2] and told[-2].startswith("Not learned")
    [of_benchmark] = [line for line in RESULTS.benchmark_lines if line.verdict == "learned"]
    assert told[-1].startswith(f"On {of_benchmark.kind}: {of_benchmark.after.value:.1f}%")
    nothing = verdicts(replace(RESULTS, after=RESULTS.blind))
    assert nothing[0].startswith("The model does not see yet")
    assert nothing[1].startswith("Not learned: ")
    assert all(kind in nothing[1] for kind in ANSWERS)


def test_constant_answer_and_mistakes() -> None:
    by_kind = {line.kind: line for line in RESULTS.lines}
    assert by_kind["position"].constant == 50
    assert by_kind["colour"].constant == 25
    wrong = mistakes(RESULTS.after)
    assert [times for *_, times in wrong["count"]] == sorted((times for *_, times in wrong["count"]), reverse=True)
    for kind, pairs in wrong.items():
        assert all(truth != answer and truth in ANSWERS[kind] for truth, answer, _ in pairs)


def test_examples_are_chosen_by_place_alone() -> None:
    shown = show_fairly(RESULTS.after.examples)
    assert len(shown) == 20
    assert {example.kind for example in shown} == set(ANSWERS)
    flipped = [replace(example, score=1 - example.score) for example in RESULTS.after.examples]
    assert [e.index for e in show_fairly(flipped)] == [e.index for e in shown]
    assert show_fairly([]) == []
    assert len(show_fairly(RESULTS.after.examples[:3])) == 3


def test_tables_in_the_terminal() -> None:
    console = Console(file=io.StringIO(), width=140, force_terminal=False)
    print_table(console, RESULTS)
    print_examples(console, [replace(RESULTS.examples[0], answer="[bold]x[/]", correct=False), *RESULTS.examples])
    told = console.file.getvalue()  # type: ignore[attr-defined]
    for expected in ("before", "after", "blind", "all questions", "not learned", "wrong", "right", "[bold]x[/]"):
        assert expected in told, expected
    assert str(RESULTS.after.overall) in told


if __name__ == "__main__":  # to look at it: python tests/demo/test_report.py FOLDER
    import sys

    print(write_report(sys.argv[1], RESULTS))
