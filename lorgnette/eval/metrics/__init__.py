"""Every metric by name. The functions are pure, one short file each; `METRICS` fits them to one form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lorgnette import plugins
from lorgnette.errors import SettingsError
from lorgnette.eval.metrics.bleu import bleu_4, bleu_counts
from lorgnette.eval.metrics.choice import choice_accuracy, circular_counts
from lorgnette.eval.metrics.cider import cider_d
from lorgnette.eval.metrics.edit import anls, anls_normalised, character_errors, word_errors
from lorgnette.eval.metrics.exact import exact_match
from lorgnette.eval.metrics.fields import field_counts
from lorgnette.eval.metrics.mathvista import mathvista_accuracy
from lorgnette.eval.metrics.metric import CountFunction, Metric, Reference, per_example
from lorgnette.eval.metrics.mmmu import (
    Parse,
    mmmu_accuracy,
    parse_choice,
    parse_choice_lmms_eval,
    parse_choice_vlmevalkit,
)
from lorgnette.eval.metrics.ptb import caption_words
from lorgnette.eval.metrics.relaxed import relaxed_accuracy
from lorgnette.eval.metrics.vqa import textvqa_accuracy, vqa_accuracy, vqa_accuracy_normalised


def _cider(answers: Sequence[str], truths: Sequence[Reference]) -> list[tuple[float, float]]:
    references = [[caption_words(text) for text in truth.answers] for truth in truths]
    return [(score, 1.0) for score in cider_d([caption_words(answer) for answer in answers], references)]


def _bleu(answers: Sequence[str], truths: Sequence[Reference]) -> list[list[int]]:
    pairs = zip(answers, truths, strict=True)
    return [bleu_counts(caption_words(a), [caption_words(text) for text in t.answers]) for a, t in pairs]


def _each(count: Callable[[str, Sequence[str]], tuple[int, int]]) -> CountFunction:
    """Counts of one example at a time."""
    return lambda answers, truths: [count(a, t.answers) for a, t in zip(answers, truths, strict=True)]


def _nearest(score: Callable[[str, Sequence[str]], float], version: int = 1) -> Metric:
    """The mean of a score that compares an answer with references."""
    return per_example(lambda answer, truth: score(answer, truth.answers), version)


def _mmmu(parse: Parse) -> Metric:
    return per_example(lambda answer, truth: mmmu_accuracy(answer, truth.answers, truth.options, parse), version=2)


ONE_IMAGE = "CIDEr of one image is 0 whatever the answer: n-grams that all images have in common weigh nothing"

METRICS: dict[str, Metric] = {
    "exact_match": _nearest(exact_match),
    "vqa_accuracy": _nearest(vqa_accuracy, version=2),
    "vqa_accuracy_normalised": _nearest(vqa_accuracy_normalised),
    "textvqa_accuracy": _nearest(textvqa_accuracy),
    "anls": _nearest(anls, version=2),
    "anls_normalised": _nearest(anls_normalised),
    "relaxed_accuracy": _nearest(relaxed_accuracy),
    "mmmu_accuracy": _mmmu(parse_choice),
    "mmmu_accuracy_lmms_eval": _mmmu(parse_choice_lmms_eval),
    "mmmu_accuracy_vlmevalkit": _mmmu(parse_choice_vlmevalkit),
    "choice_accuracy": per_example(lambda answer, truth: choice_accuracy(answer, truth.answers, truth.options), 2),
    "circular_accuracy": Metric(circular_counts, version=2),
    "mathvista_accuracy": per_example(mathvista_accuracy, version=2),
    "cider_d": Metric(_cider, version=2, of_one=ONE_IMAGE),
    "bleu_4": Metric(_bleu, ratio=bleu_4, version=2),
    "field_f1": Metric(_each(field_counts)),
    "character_error_rate": Metric(_each(character_errors), higher_is_better=False),
    "word_error_rate": Metric(_each(word_errors), higher_is_better=False),
    "unscored": Metric(lambda answers, truths: [(0.0, 0.0)] * len(answers)),
}


def metric_named(name: str) -> Metric:
    """The metric of that name, or a plug-in. Raises: SettingsError naming those that there are."""
    if name in METRICS:
        return METRICS[name]
    if plugins.is_plugin("metrics", name):
        return plugins.find("metrics", name, Metric)
    known = ", ".join(sorted({**METRICS, **plugins.installed("metrics")}))
    raise SettingsError(f"metric {name!r} is unknown; use one of {known}, or one of your own as {plugins.NAME_FORM}")


__all__ = ["METRICS", "Metric", "Reference", "metric_named"]
