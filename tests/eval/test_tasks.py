"""Every benchmark on files with its public columns: what is asked, what is refused, how it is scored, and blind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest

from lorgnette.data.record import Refused
from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.benchmark import Asking, Role
from lorgnette.eval.benchmark_prompts import VARIANTS
from lorgnette.eval.image_checks import image_digest
from lorgnette.eval.metrics import METRICS
from lorgnette.eval.models.base import Model
from lorgnette.eval.results.store import Result, ResultsFolder
from lorgnette.eval.runner import evaluate
from lorgnette.eval.task import Task, prompt_of, transcript
from lorgnette.eval.tasks import BENCHMARK_GROUPS, BENCHMARKS, names_in, task_named
from lorgnette.sample import Sample, Text
from tests.eval.fixtures import MAKERS, ODD, base64_rows, mmbench, mmmu, write_benchmark, write_rows

GOLDEN = Path(__file__).parent / "golden" / "prompts.json"
NAMES = list(BENCHMARKS)
TRAINABLE = [name for name, benchmark in BENCHMARKS.items() if benchmark.train]
CHOICES = ("ai2d", "mmbench", "mmmu", "mathvista")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("benchmarks")
    return {key: path for name in NAMES for key, path in write_benchmark(root, name).items()}


def opened(name: str, data: dict[str, str], **how: object) -> Task:
    return task_named(name, Asking(data=data, incomplete=True, **how))  # type: ignore[arg-type]


class Sees(Model):
    """Knows the answer to each picture and question, as the training samples teach it; blind, it is lost."""

    def __init__(self, task: Task) -> None:
        self.known: dict[str, tuple[list[str], str]] = {}
        for index in range(len(task.samples)):
            try:
                sample = task.samples[index]
            except Refused:
                continue
            digests = [image_digest(image.source) for image in sample.images]
            self.known[sample.name] = digests, sample.segments[-1].text.strip()  # type: ignore[union-attr]

    def _answer(self, prompt: Sample) -> str:
        digests, answer = self.known[prompt.name]
        shown = [image_digest(image.source) for image in prompt.images]
        return answer if shown[-len(digests) :] == digests else "lost"

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        return [self._answer(sample) for sample in samples]

    def score(self, samples: Sequence[Sample], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        said = self.generate(samples, max_tokens=0)
        return [[float(text.strip() == best) for text in row] for row, best in zip(candidates, said, strict=True)]


def test_the_table_is_what_the_paper_measures() -> None:
    public = ["vqav2", "textvqa", "okvqa", "coco", "docvqa", "mmmu", "mathvista", "mmbench", "chartqa", "ai2d"]
    assert [*public, "scene_vqa", "text_vqa", "knowledge_vqa", "scene_captions", "doc_vqa"] == NAMES
    assert MAKERS.keys() == BENCHMARKS.keys() == ODD.keys()
    for group in BENCHMARK_GROUPS.values():
        assert [BENCHMARKS[name].role for name in group] == list(get_args(Role))


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_says_all_that_it_must(name: str) -> None:
    benchmark = BENCHMARKS[name]
    assert benchmark.metric in METRICS
    assert benchmark.licence
    assert benchmark.about
    assert benchmark.splits[benchmark.split].size
    assert benchmark.train is None or benchmark.train in benchmark.splits
    assert set(benchmark.chat) == set(VARIANTS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["chat", "base"])
def test_odd_rows_are_named_and_the_others_asked(name: str, form: str, data: dict[str, str], tmp_path: Path) -> None:
    task = opened(name, data, form=form)
    result = evaluate(task, Sees(task), folder=tmp_path, batch_size=3)
    assert result.rejected.keys() == ODD[name].keys()
    for index, row in result.rejected.items():
        assert ODD[name][index] in row.reason
    assert result.count == len(task.samples) - len(ODD[name])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["refused"] == {row.name: row.reason for row in result.rejected.values()}
    assert ResultsFolder(tmp_path).result() == result


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_who_sees_is_right_and_who_is_blind_is_not(name: str, variant: str, data: dict[str, str]) -> None:
    task = opened(name, data, variant=variant)
    seen = evaluate(task, Sees(task))
    best = {example.index for example in seen.examples if example.score >= 0.9}
    empty = {5} if name in ("vqav2", "textvqa") else set()
    assert best | empty == {example.index for example in seen.examples}
    blind = evaluate(task, Sees(task), blind=True)
    assert blind.count == seen.count
    assert blind.accuracy <= seen.accuracy / 4


@pytest.mark.parametrize("name", NAMES)
def test_batch_size_changes_nothing(name: str, data: dict[str, str]) -> None:
    def scored(batch_size: int, **how: object) -> Result:
        task = opened(name, data, **how)
        return evaluate(task, Sees(task), batch_size=batch_size)

    for how in ({}, {"shots": 2} if name in TRAINABLE else {"form": "base"}):
        assert scored(1, **how) == scored(3, **how) == scored(64, **how)


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("form", ["chat", "base"])
def test_choices_by_likelihood(name: str, form: str, data: dict[str, str]) -> None:
    task = opened(name, data, choices="likelihood", form=form)
    result = evaluate(task, Sees(task))
    assert result.accuracy == 100
    lettered = [example for example in result.examples if example.truth.options]
    assert lettered
    assert all(example.answer.strip().endswith(example.truth.answers) for example in lettered)


def prompts(name: str, data: dict[str, str]) -> dict[str, str]:
    """The second question in every wording."""
    tasks = {variant: opened(name, data, variant=variant) for variant in VARIANTS}
    tasks["base"] = opened(name, data, form="base")
    shown = {}
    for key, task in tasks.items():
        sample = task.samples[1]
        shots = (
            task.shots.before([prompt_of(sample)])[0].segments[: -len(prompt_of(sample).segments)] if task.shots else ()
        )
        shown[key] = transcript(Sample((*shots, *sample.segments)))
    return shown


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_the_golden_ones(name: str, data: dict[str, str]) -> None:
    assert prompts(name, data) == json.loads(GOLDEN.read_text(encoding="utf-8"))[name]


@pytest.mark.parametrize("name", TRAINABLE)
def test_the_training_split_teaches_its_answers(name: str, data: dict[str, str]) -> None:
    benchmark = BENCHMARKS[name]
    samples = benchmark.samples(Asking(data=data, incomplete=True), benchmark.train or "", "chat")
    assert len(samples) == 8
    for sample in samples:
        assert sample.is_chat
        assert isinstance(sample.segments[-1], Text)
        assert sample.segments[-1].supervised
    assert len({sample.name for sample in samples}) == 8


def test_literal_image_marks_stay_text_where_they_are_not_structure(data: dict[str, str]) -> None:
    sample = opened("vqav2", data).samples[2]
    assert len(sample.images) == 1
    assert "What is this <image> of?" in sample.text


def test_images_of_mmmu_stand_where_they_are_first_marked(data: dict[str, str]) -> None:
    task = opened("mmmu", data, variant="lmms-eval")
    assert transcript(task.samples[1]).startswith("user: Compare [image]  with [image] , then <image 1> again.")
    assert [image_digest(image.source) for image in task.samples[3].images] == [
        image_digest(mmmu(False)[3][f"image_{number}"]["bytes"]) for number in (1, 2, 3)
    ]
    assert transcript(task.samples[5]).startswith("user: [image] Wie viele é?"), "an image without a mark comes first"


def test_mmmu_is_counted_by_subject_and_discipline(data: dict[str, str]) -> None:
    task = opened("mmmu", data)
    kinds = evaluate(task, Sees(task)).kinds
    assert kinds["Art and Design"].count == 3
    assert {"Art and Design/Art", "Art and Design/Art_Theory", "Art and Design/Music"} < kinds.keys()
    assert kinds["Business"].count == kinds["Business/Accounting"].count == 1


def test_a_mark_without_an_image_is_refused(data: dict[str, str]) -> None:
    with pytest.raises(Refused, match="row 8: the question shows image 3, and there are 1"):
        opened("mmmu", data).samples[8]


# --- circular evaluation


class OnlyA(Sees):
    """Says A whatever it is asked: right in one pass of each question."""

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        return ["A"] * len(samples)


def test_a_question_is_right_if_every_pass_is(data: dict[str, str]) -> None:
    task = opened("mmbench", data)
    result = evaluate(task, OnlyA(task))
    assert result.accuracy == 0
    plain = METRICS["choice_accuracy"]
    answers, truths = [one.answer for one in result.examples], [one.truth for one in result.examples]
    assert plain.overall(answers, truths) == pytest.approx(4 / 12)
    assert evaluate(task, Sees(task)).accuracy == 100


def test_questions_that_are_there_once_are_turned_here(tmp_path: Path) -> None:
    once = [row for row in mmbench(False) if row["index"] < 1_000_000 and row["index"] < 70]
    write_rows(tmp_path / "dev.parquet", base64_rows(once))
    turned = task_named("mmbench", Asking(data={"mmbench": str(tmp_path)}, incomplete=True, variant="lmms-eval"))
    write_rows(tmp_path / "all" / "dev.parquet", mmbench(False)[:12])
    whole = task_named("mmbench", Asking(data={"mmbench": str(tmp_path / "all")}, incomplete=True, variant="lmms-eval"))
    assert len(once) == 4
    assert [transcript(sample) for sample in turned.samples] == [transcript(sample) for sample in whole.samples]
    assert [sample.meta["group"] for sample in turned.samples] == [sample.meta["group"] for sample in whole.samples]


def test_a_limit_takes_whole_questions(data: dict[str, str]) -> None:
    task = opened("mmbench", data)
    groups = [example.truth.group for example in evaluate(task, Sees(task), limit=3).examples]
    assert len(set(groups)) in (2, 3), "a question that cannot be asked may be among the three"
    assert all(groups.count(group) == (4 if int(group) % 2 else 2) for group in set(groups))


# --- where the data are


def test_a_short_file_is_refused(data: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"holds 10 rows of split validation, not 214,354; get all its files"):
        task_named("vqav2", Asking(data=data))


def test_another_split_is_asked_by_name(data: dict[str, str]) -> None:
    assert len(opened("vqav2:train", data).samples) == 8
    with pytest.raises(SettingsError, match=r"vqav2 has no split 'tset'; it has train, validation"):
        opened("vqav2:tset", data)


def test_secret_answers_are_not_scored(tmp_path: Path) -> None:
    rows = [row | {"answers": None, "multiple_choice_answer": None} for row in MAKERS["vqav2"](True)]
    write_rows(tmp_path / "data" / "testdev-0.parquet", rows)
    task = task_named("vqav2:testdev", Asking(data={"vqav2": str(tmp_path)}, incomplete=True))
    assert task.metric == "unscored"
    result = evaluate(task, OnlyA(task))
    assert (result.count, result.accuracy) == (8, 0)
    assert result.examples[3].name == "vqav2/1003"


def test_files_of_another_split_are_not_taken(data: dict[str, str], tmp_path: Path) -> None:
    write_rows(tmp_path / "train-00000.parquet", MAKERS["vqav2"](True))
    with pytest.raises(DataError, match="only those of other splits"):
        opened("vqav2", {"vqav2": str(tmp_path)})
    write_rows(tmp_path / "mine.parquet", MAKERS["vqav2"](False))
    assert len(opened("vqav2", {"vqav2": str(tmp_path)}).samples) == 10
    assert len(opened("vqav2", {"vqav2": str(tmp_path / "mine.parquet")}).samples) == 10
    assert len(opened("vqav2", {"vqav2/validation": str(tmp_path / "mine.parquet")}).samples) == 10


def test_what_is_not_there_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"--data vqav2/train=PATH"):
        task_named("vqav2:train")
    with pytest.raises(DataError, match="no such file or folder"):
        task_named("vqav2", Asking(data={"vqav2": "/nowhere at all"}))
    with pytest.raises(SettingsError, match=r"did you mean 'vqav2'\? There are: drawings, vqav2"):
        task_named("vqa")
    assert names_in("ablations, docvqa") == ["vqav2", "textvqa", "okvqa", "coco", "docvqa"]


def test_a_hub_id_becomes_its_files(monkeypatch: pytest.MonkeyPatch, data: dict[str, str]) -> None:
    import lorgnette.eval.benchmark_rows as rows

    asked: list[str] = []

    def listed(path: str) -> tuple[str, ...]:
        asked.append(path)
        return (f"{data['vqav2']}/data/validation-00000-of-00001.parquet",)

    monkeypatch.setattr(rows, "list_shards", listed)
    assert len(task_named("vqav2", Asking(incomplete=True)).samples) == 10
    assert asked == ["hf://datasets/lmms-lab/VQAv2/data/validation-*"]
