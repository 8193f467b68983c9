"""Compare two evaluations of the same questions: what changed, and whether it is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError
from lorgnette.eval.bootstrap import Estimate, paired_difference
from lorgnette.eval.metrics import metric_named
from lorgnette.eval.page import data_uri, render_page
from lorgnette.eval.results import Example, Result, ResultsFolder, in_kind
from lorgnette.files import write_text

Pair = tuple[Example, Example]
"""One question as answered before and after."""


@dataclass(frozen=True)
class Comparison:
    """The same questions asked twice. Differences are `after` minus `before`, in points, with paired 95 % intervals."""

    before: Result
    after: Result
    overall: Estimate
    kinds: dict[str, Estimate]

    def changed(self) -> tuple[list[Pair], list[Pair]]:
        """The examples that became worse, and those that became better, the largest changes first."""
        sign = 1 if metric_named(self.after.settings["metric"]).higher_is_better else -1
        pairs = zip(self.before.examples, self.after.examples, strict=True)
        ranked = sorted(pairs, key=lambda pair: sign * (pair[1].score - pair[0].score))
        worse = [pair for pair in ranked if sign * (pair[1].score - pair[0].score) < 0]
        return worse, [pair for pair in reversed(ranked) if sign * (pair[1].score - pair[0].score) > 0]

    def sentence(self) -> str:
        """What the difference is, and whether it is more than chance."""
        worse, better = map(len, self.changed())
        clear = self.overall.low > 0 or self.overall.high < 0
        judged = "more than chance explains" if clear else "which chance alone could give"
        return (
            f"The score went from {self.before.accuracy:.1f} to {self.after.accuracy:.1f} on the same"
            f" {self.after.count:,} questions: {self.overall.value:+.1f} points"
            f" [{self.overall.low:+.1f}, {self.overall.high:+.1f}], {judged}."
            f" {better:,} answers are better and {worse:,} are worse."
        )


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
    answers = [[example.judged for example in result.examples] for result in (before, after)]
    truths = [example.truth for example in after.examples]
    old_counts, new_counts = (metric.counts(given, truths) for given in answers)

    def difference(members: list[int]) -> Estimate:
        clusters = [after.examples[i].images or after.examples[i].index for i in members]
        return paired_difference(new_counts[members], old_counts[members], metric.ratio, clusters)

    numbered = list(enumerate(after.examples))
    by_kind = {kind: difference([i for i, one in numbered if in_kind(one.kind, kind)]) for kind in after.kinds}
    return Comparison(before, after, difference(list(range(after.count))), by_kind)


def compare_folders(
    before: str | Path, after: str | Path, page: str | Path | None = None, most: int = 100
) -> Comparison:
    """Compare two results folders; write the page that shows it, with at most `most` examples of each direction.

    Raises: DataError if a folder holds no results or they cannot be paired, DiskError if the page cannot be written.
    """
    stores = ResultsFolder(before), ResultsFolder(after)
    found = compare(*(store.result() for store in stores))
    if page is not None:
        write_text(page, render_comparison(found, stores, most))
    return found


def render_comparison(found: Comparison, stores: Sequence[ResultsFolder], most: int) -> str:
    """The page as HTML. Pictures are taken from the folders; one that neither holds is left out."""
    rows = [(kind, found.before.kinds[kind], found.after.kinds[kind], found.kinds[kind]) for kind in found.kinds]
    rows.append(("all questions", found.before.overall, found.after.overall, found.overall))
    names = list(dict.fromkeys([*found.before.settings, *found.after.settings]))
    settings = [(name, found.before.settings.get(name), found.after.settings.get(name)) for name in names]
    shown = [[(old, new, _pictures(stores, old, new)) for old, new in pairs[:most]] for pairs in found.changed()]
    counts = map(len, found.changed())
    groups = list(zip(("Worse", "Better"), ("wrong", "right"), counts, shown, strict=True))
    values: dict[str, Any] = {"found": found, "rows": rows, "settings": settings, "groups": groups}
    values |= {key: found.after.settings[key] for key in ("task", "metric")}
    return render_page("compare.html.jinja", values | {"sentence": found.sentence()})


def _pictures(stores: Sequence[ResultsFolder], old: Example, new: Example) -> list[str]:
    digests = dict.fromkeys([*old.images, *new.images])
    paths = [next((p for p in (store.picture(d) for store in stores) if p.exists()), None) for d in digests]
    return [data_uri(path.read_bytes()) for path in paths if path]
