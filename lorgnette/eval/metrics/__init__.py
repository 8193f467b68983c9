"""Every metric by name. The functions are pure, one short file each; `METRICS` fits them to one form."""

from __future__ import annotations

from lorgnette.errors import SettingsError
from lorgnette.eval.metrics.exact import exact_match
from lorgnette.eval.metrics.metric import Metric, Truth, per_example

METRICS: dict[str, Metric] = {
    "exact_match": per_example(lambda answer, truth: exact_match(answer, truth.answers)),
}


def metric_named(name: str) -> Metric:
    """The metric of that name. Raises SettingsError naming those there are."""
    if name not in METRICS:
        raise SettingsError(f"metric {name!r} is unknown; use one of {', '.join(sorted(METRICS))}")
    return METRICS[name]


__all__ = ["METRICS", "Metric", "Truth", "metric_named"]
