"""Compare two evaluations of the same questions: what changed, and whether it is more than chance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lorgnette.errors import DataError
from lorgnette.eval.bootstrap import Estimate, paired_difference
from lorgnette.eval.metrics import metric_named
from lorgnette.eval.results import Example, Result


@dataclass(frozen=True)
class Comparison:
    """The same questions asked twice. Differences are `after` minus `before`, in points, with paired 95 % intervals."""

    before: Result
    after: Result
    overall: Estimate
    kinds: dict[str, Estimate]

    def changed(self) -> Iterator[tuple[Example, Example]]:
        """The examples whose score changed, as (before, after); the largest losses come first, then the gains."""
        pairs = zip(self.before.examples, self.after.examples, strict=True)
        return iter(sorted((p for p in pairs if p[0].score != p[1].score), key=lambda p: p[1].score - p[0].score))


def compare(before: Result, after: Result) -> Comparison:
    """Pair two results example by example.

    Raises: DataError if they do not hold the same questions, or are judged by different metrics.
    """
    if before.settings["metric"] != after.settings["metric"]:
        metrics = f"{before.settings['metric']} and {after.settings['metric']}"
        raise DataError(f"results by different metrics ({metrics}) cannot be compared; rescore one of them")
    for old, new in zip(before.examples, after.examples, strict=False):
        if (old.index, old.truth) != (new.index, new.truth):
            raise DataError(
                f"results differ in their questions from {new.name} on; compare two runs of one task and limit"
            )
    if before.count != after.count:
        raise DataError(f"results of {before.count} and {after.count} questions cannot be compared; use the same limit")
    metric = metric_named(after.settings["metric"])
    answers = [[example.answer for example in result.examples] for result in (before, after)]
    truths = [example.truth for example in after.examples]
    old_counts, new_counts = (metric.counts(given, truths) for given in answers)

    def difference(members: list[int]) -> Estimate:
        clusters = [after.examples[i].images or after.examples[i].index for i in members]
        return paired_difference(new_counts[members], old_counts[members], metric.ratio, clusters)

    kinds = np.array([example.kind for example in after.examples])
    by_kind = {kind: difference(list(np.flatnonzero(kinds == kind))) for kind in after.kinds}
    return Comparison(before, after, difference(list(range(after.count))), by_kind)
