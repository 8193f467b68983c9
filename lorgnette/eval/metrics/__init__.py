"""Every metric by name. The functions are pure, one short file each; `METRICS` fits them to one form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lorgnette.errors import SettingsError
from lorgnette.eval.metrics.bleu import bleu_4, bleu_counts
from lorgnette.eval.metrics.choice import choice_accuracy, circular_counts
from lorgnette.eval.metrics.cider import cider_d
from lorgnette.eval.metrics.edit import anls, character_errors, word_errors
from lorgnette.eval.metrics.exact import exact_match
from lorgnette.eval.metrics.fields import field_counts
from lorgnette.eval.metrics.mathvista import mathvista_accuracy
from lorgnette.eval.metrics.metric import Count, Metric, Truth, per_example
from lorgnette.eval.metrics.mmmu import mmmu_accuracy
from lorgnette.eval.metrics.ptb import caption_words
from lorgnette.eval.metrics.relaxed import relaxed_accuracy
from lorgnette.eval.metrics.vqa import textvqa_accuracy, vqa_accuracy


def _cider(answers: Sequence[str], truths: Sequence[Truth]) -> list[tuple[float, float]]:
    references = [[caption_words(text) for text in truth.answers] for truth in truths]
    return [(score, 1.0) for score in cider_d([caption_words(answer) for answer in answers], references)]


def _bleu(answers: Sequence[str], truths: Sequence[Truth]) -> list[list[int]]:
    pairs = zip(answers, truths, strict=True)
    return [bleu_counts(caption_words(a), [caption_words(text) for text in t.answers]) for a, t in pairs]


def _each(count: Callable[[str, Sequence[str]], tuple[int, int]]) -> Count:
    """Counts of one example at a time."""
    return lambda answers, truths: [count(a, t.answers) for a, t in zip(answers, truths, strict=True)]


METRICS: dict[str, Metric] = {
    "exact_match": per_example(lambda answer, truth: exact_match(answer, truth.answers)),
    "vqa_accuracy": per_example(lambda answer, truth: vqa_accuracy(answer, truth.answers)),
    "textvqa_accuracy": per_example(lambda answer, truth: textvqa_accuracy(answer, truth.answers)),
    "anls": per_example(lambda answer, truth: anls(answer, truth.answers)),
    "relaxed_accuracy": per_example(lambda answer, truth: relaxed_accuracy(answer, truth.answers)),
    "mmmu_accuracy": per_example(lambda answer, truth: mmmu_accuracy(answer, truth.answers, truth.options)),
    "choice_accuracy": per_example(lambda answer, truth: choice_accuracy(answer, truth.answers, truth.options)),
    "circular_accuracy": Metric(circular_counts),
    "mathvista_accuracy": per_example(mathvista_accuracy),
    "cider_d": Metric(_cider),
    "bleu_4": Metric(_bleu, ratio=bleu_4),
    "field_f1": Metric(_each(field_counts)),
    "character_error_rate": Metric(_each(character_errors), higher_is_better=False),
    "word_error_rate": Metric(_each(word_errors), higher_is_better=False),
    "unscored": Metric(lambda answers, truths: [(0.0, 0.0)] * len(answers)),
}


def metric_named(name: str) -> Metric:
    """The metric of that name. Raises SettingsError naming those there are."""
    if name not in METRICS:
        raise SettingsError(f"metric {name!r} is unknown; use one of {', '.join(sorted(METRICS))}")
    return METRICS[name]


__all__ = ["METRICS", "Metric", "Truth", "metric_named"]
