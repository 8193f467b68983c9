from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import PIL.Image
import pytest

from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.image_checks import image_digest
from lorgnette.eval.models.base import Model
from lorgnette.eval.results.store import ResultsFolder
from lorgnette.eval.runner import evaluate
from lorgnette.eval.task import Task, prompt_of, transcript
from lorgnette.sample import Image, Sample, Text, Turn

COLOURS = ("red", "green", "blue", "black", "white", "orange", "purple", "yellow", "brown", "pink")


class Perfect(Model):
    """Knows every reference. `asked` records what it was shown."""

    def __init__(self) -> None:
        self.asked: list[Sample] = []

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        self.asked += samples
        return [str(sample.meta.get("answer") or sample.meta["answers"][0]) for sample in samples]

    def score(self, samples: Sequence[Sample], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        self.asked += samples
        return [[float(c == s.meta["answer"]) for c in row] for s, row in zip(samples, candidates, strict=True)]


class Constant(Perfect):
    """Says the same thing whatever it is asked."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        self.asked += samples
        return [self.answer] * len(samples)


class Looks(Perfect):
    """Answers by the picture alone, from a table of digests: right when it sees, wrong when it is blind."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        super().__init__()
        self.known = {image_digest(s.images[0].source): str(s.meta["answer"]) for s in samples}

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        self.asked += samples
        return [self.known[image_digest(sample.images[0].source)] for sample in samples]


class Dies(Perfect):
    """Answers a number of batches and is then interrupted."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches = batches

    identity = "Perfect"

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        if self.batches == 0:
            raise KeyboardInterrupt
        self.batches -= 1
        return super().generate(samples, max_tokens=max_tokens, stop=stop)


def question(number: int, **meta: object) -> Sample:
    """A conversation as training data has it: the answer stands at the end, as supervised text."""
    colour = COLOURS[number % len(COLOURS)]
    picture = PIL.Image.new("RGB", (20 + number, 30), colour)
    segments = (Turn("user"), Image(picture), Text("What colour?"), Turn("assistant"), Text(colour, supervised=True))
    return Sample(segments, {"name": f"q{number}", "answer": colour, "kind": ("colour", "count")[number % 2], **meta})


SAMPLES = [question(number) for number in range(20)]
TASK = Task("colours", SAMPLES, expected_size=20)


def test_the_answerer_never_sees_the_answer() -> None:
    answerer = Perfect()
    result = evaluate(TASK, answerer)
    assert result.accuracy == 100
    assert result.count == 20
    assert all(sample.segments[-1] == Text("What colour?") for sample in answerer.asked)


def test_prompt_of_cuts_only_what_is_learned_at_the_end() -> None:
    shot = Sample((Text("Q: a A: "), Text("b\n", supervised=False), Text("Q: c A: "), Text("d", supervised=True)))
    assert prompt_of(shot).segments == shot.segments[:3]
    plain = Sample((Turn("user"), Text("hi")))
    assert prompt_of(plain) == plain


def test_transcript_marks_images_and_speakers() -> None:
    assert transcript(prompt_of(SAMPLES[0])) == "[image] What colour?"
    assert transcript(SAMPLES[0]) == "user: [image] What colour?\nassistant: red"


def test_accuracy_by_kind() -> None:
    result = evaluate(TASK, Constant("Red."))
    assert result.accuracy == pytest.approx(10)
    assert {kind: scores.value for kind, scores in result.kinds.items()} == {"colour": 20, "count": 0}
    assert [example.score for example in result.examples].count(1.0) == 2
    assert result.overall.low <= 10 <= result.overall.high
    assert result.overall.count == 20


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_changes_nothing(batch_size: int) -> None:
    assert evaluate(TASK, Constant("red"), batch_size=batch_size) == evaluate(TASK, Constant("red"))


def test_blind_shows_that_a_model_looks() -> None:
    looks = Looks(SAMPLES[:10])
    task = Task("ten", SAMPLES[:10])
    assert evaluate(task, looks).accuracy == 100
    blind = evaluate(task, looks, blind=True)
    assert blind.accuracy == 0, "ten different colours: another picture is always wrong"
    assert evaluate(task, Constant("red"), blind=True).accuracy == evaluate(task, Constant("red")).accuracy


def test_limit_is_nested_and_spread() -> None:
    few, more = (evaluate(TASK, Perfect(), limit=limit) for limit in (5, 10))
    indices = [[example.index for example in result.examples] for result in (few, more)]
    assert len(indices[0]) == 5
    assert set(indices[0]) < set(indices[1])
    assert indices[1] == sorted(indices[1]) != list(range(10))


def test_resume_loses_the_batch_in_flight_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(TASK, Dies(2), batch_size=4, folder=tmp_path)
    with (tmp_path / "examples.jsonl").open("a") as file:
        file.write('{"index": 8, "na')  # a line cut short by the kill
    answerer = Dies(100)
    seen: list[tuple[int, int]] = []
    resumed = evaluate(TASK, answerer, batch_size=4, folder=tmp_path, progress=lambda *done: seen.append(done))
    assert [sample.name for sample in answerer.asked] == [f"q{number}" for number in range(8, 20)]
    assert seen == [(8, 20), (12, 20), (16, 20), (20, 20)], "what was there before is no part of the rate"
    whole = evaluate(TASK, Dies(100))
    assert resumed == whole == ResultsFolder(tmp_path).result()
    assert evaluate(TASK, Dies(0), folder=tmp_path) == whole, "a finished folder asks nothing"


KILLED = """
import os, signal, sys
from lorgnette.eval.models.base import Model
from lorgnette.eval.runner import evaluate
from lorgnette.eval.task import Task
from lorgnette.sample import Sample, Text

class Kills(Model):
    identity, batches = "same", int(sys.argv[2])

    def generate(self, samples, *, max_tokens, stop=()):
        self.batches -= 1
        if self.batches < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return [sample.meta["answer"] for sample in samples]

samples = [Sample((Text(f"{n}?"),), {"name": f"q{n}", "answer": str(n)}) for n in range(10)]
result = evaluate(Task("numbers", samples), Kills(), batch_size=2, folder=sys.argv[1])
print(result.accuracy, result.count)
"""


def test_kill_9_and_the_same_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "results")]
    killed = subprocess.run([*command, "3"], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(ResultsFolder(tmp_path / "results").examples()) == 6, "three batches of two were safe"
    again = subprocess.run([*command, "2"], capture_output=True, text=True, check=False)
    assert again.stdout.split() == ["100.0", "10"], "two batches were left"


def test_folder_tells_all(tmp_path: Path) -> None:
    evaluate(TASK, Constant("Red"), folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "examples.jsonl", "pictures", "sessions.jsonl", "settings.json", "summary.json",
    ]  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "examples.jsonl").read_text().splitlines()]
    assert rows[0]["question"] == "[image] What colour?"
    assert rows[0]["answer"] == "Red"
    assert rows[0]["score"] == 1
    assert rows[0]["truth"]["answers"] == ["red"]
    assert rows[0]["images"] == [image_digest(SAMPLES[0].images[0].source)]
    assert (tmp_path / "pictures" / f"{rows[0]['images'][0]}.jpg").stat().st_size > 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["overall"]["value"] == 10
    assert summary["model"] == "Constant"
    assert summary["metric"] == "exact_match"


def test_other_settings_are_refused(tmp_path: Path) -> None:
    evaluate(TASK, Perfect(), folder=tmp_path, limit=3)
    with pytest.raises(SettingsError, match="limit was 3 and is now 4"):
        evaluate(TASK, Perfect(), folder=tmp_path, limit=4)
    with pytest.raises(SettingsError, match="model was 'Perfect'"):
        evaluate(TASK, Constant(""), folder=tmp_path, limit=3)


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    evaluate(TASK, Perfect(), folder=tmp_path)
    rows = (tmp_path / "examples.jsonl").read_text().splitlines()
    rows[4] = rows[4][:20]
    (tmp_path / "examples.jsonl").write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match="line 5: damaged"):
        ResultsFolder(tmp_path).result()


def test_likelihood_chooses_among_options() -> None:
    samples = [question(number, options=COLOURS) for number in range(4)]
    result = evaluate(Task("choice", samples, answer_by="likelihood"), Perfect())
    assert result.accuracy == 100
    with pytest.raises(DataError, match="q0: no options"):
        evaluate(Task("choice", SAMPLES, answer_by="likelihood"), Perfect())


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("short", SAMPLES, expected_size=21), "holds 20 samples, not 21"),
        (Task("no reference", [Sample((Text("?"),), {"name": "q7"})]), "q7: nothing to score against"),
    ],
)
def test_errors_say_what_to_do(task: Task, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(task, Constant("x"))


def test_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="exact_match"):
        evaluate(Task("t", SAMPLES, metric="exact"), Perfect())


def test_an_empty_task_scores_nothing() -> None:
    result = evaluate(Task("empty", []), Perfect())
    assert result.count == 0
    assert result.accuracy == 0
    assert result.kinds == {}
