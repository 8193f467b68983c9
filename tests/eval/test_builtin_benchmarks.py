"""The built-in benchmarks can be answered: whoever knows the majority answer of every test question is perfect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from lorgnette.eval.benchmark import Asking
from lorgnette.eval.benchmark_prompts import VARIANTS
from lorgnette.eval.metrics import METRICS
from lorgnette.eval.task import truth_of
from lorgnette.eval.tasks import BENCHMARKS, task_named

BUILT_IN = [name for name, benchmark in BENCHMARKS.items() if benchmark.data.startswith("builtin:")]


def majority(answers: Sequence[str]) -> str:
    return Counter(answers).most_common(1)[0][0]


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "scene_captions"])
def test_the_majority_answer_is_right(name: str) -> None:
    task = task_named(name)
    truths = [truth_of(task.samples[index]) for index in range(len(task.samples))]
    for metric in {BENCHMARKS[name].metric_of(variant) for variant in VARIANTS}:
        given = [majority(truth.answers) for truth in truths]
        assert METRICS[metric].scores(given, truths) == [1.0] * len(truths)
        shouted = [f"{answer[:1].upper()}{answer[1:]}." for answer in given]
        if metric != "anls":
            assert METRICS[metric].overall(shouted, truths) > 0.9, "case and a full stop change little"
        assert METRICS[metric].overall(["something else"] * len(truths), truths) < 0.1


def test_captions_score_as_high_as_captions_can() -> None:
    task = task_named("scene_captions")
    truths = [truth_of(task.samples[index]) for index in range(len(task.samples))]
    scores = METRICS["cider_d"].scores([truth.answers[0] for truth in truths], truths)
    assert min(scores) > 1
    assert METRICS["cider_d"].overall(["something else"] * len(truths), truths) < 0.1


def test_every_drawing_can_be_named() -> None:
    task = task_named("drawings")
    truths = [truth_of(task.samples[index]) for index in range(len(task.samples))]
    assert METRICS[task.metric].overall([truth.answers[0] for truth in truths], truths) == 1


@pytest.mark.parametrize("name", BENCHMARKS)
def test_metrics_follow_the_variant(name: str) -> None:
    benchmark = BENCHMARKS[name]
    assert {benchmark.metric_of(variant) for variant in VARIANTS} <= METRICS.keys()
    assert set(benchmark.metrics) <= set(VARIANTS)


def test_whose_code_scores_whose_wording() -> None:
    table = {name: [BENCHMARKS[name].metric_of(variant) for variant in VARIANTS] for name in BENCHMARKS}
    assert VARIANTS == ("paper", "lmms-eval", "vlmevalkit")
    assert table["vqav2"] == ["vqa_accuracy", "vqa_accuracy_normalised", "vqa_accuracy_normalised"]
    assert table["okvqa"] == ["vqa_accuracy", "textvqa_accuracy", "vqa_accuracy_normalised"]
    assert table["textvqa"] == ["textvqa_accuracy", "textvqa_accuracy", "vqa_accuracy_normalised"]
    assert table["docvqa"] == ["anls", "anls", "anls_normalised"]
    assert table["mmmu"] == ["mmmu_accuracy", "mmmu_accuracy_lmms_eval", "mmmu_accuracy_vlmevalkit"]
    opened = task_named("knowledge_vqa", Asking(variant="lmms-eval", max_tokens=900))
    assert (opened.metric, opened.max_tokens) == ("vqa_accuracy_normalised", 900)
