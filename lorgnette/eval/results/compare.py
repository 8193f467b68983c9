"""Compare two evaluations of the same questions: what changed, and whether it is more than chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError
from lorgnette.eval.metrics import metric_named
from lorgnette.eval.metrics.metric import mean
from lorgnette.eval.results.bootstrap import FEW, Estimate, paired_difference, questions_needed
from lorgnette.eval.results.store import Example, Result, ResultsFolder, in_kind
from lorgnette.files import is_own_page, replace_text
from lorgnette.report.charts import Interval, interval_chart
from lorgnette.report.html import render_page
from lorgnette.report.thumbnails import data_uri

ExamplePair = tuple[Example, Example]
"""One question as answered before and after."""
SAME = {
    "task": "compare two runs of one benchmark",
    "version": "evaluate again where it is older",
    "split": "compare two runs of one split",
    "metric": "rescore one of them",
    "metric_version": "rescore the older one",
}
"""Settings without which scores are not about the same thing, and what to do."""
_SHOWN = 3
"""Most questions that a message names."""


@dataclass(frozen=True)
class Comparison:
    """The same questions asked twice. Differences are `after` minus `before`, in points, with paired 95 % intervals."""

    before: Result
    after: Result
    overall: Estimate
    kinds: dict[str, Estimate]
    names: tuple[str, str] = ("before", "after")
    """Names of the two evaluations, of their folders."""
    needed: int = 0
    """Questions at which a difference of 3 points would be found four times in five; 0 where that cannot be said."""

    def differing(self) -> dict[str, tuple[Any, Any]]:
        """Settings that differ, before and after."""
        before, after = self.before.settings, self.after.settings
        names = dict.fromkeys([*before, *after])
        return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}

    def plain(self) -> dict[str, Any]:
        """Everything but the examples, as JSON has it."""
        worse, better = map(len, self.changed())
        differing = {name: {"before": old, "after": new} for name, (old, new) in self.differing().items()}
        return {
            "sentence": self.sentence(),
            "before": dataclasses.asdict(self.before.overall),
            "after": dataclasses.asdict(self.after.overall),
            "difference": dataclasses.asdict(self.overall),
            "kinds": {kind: dataclasses.asdict(difference) for kind, difference in self.kinds.items()},
            "better": better,
            "worse": worse,
            "settings": differing,
        }

    def changed(self) -> tuple[list[ExamplePair], list[ExamplePair]]:
        """The examples that became worse, and those that became better, the largest changes first."""
        sign = 1 if metric_named(self.after.settings["metric"]).higher_is_better else -1
        pairs = zip(self.before.examples, self.after.examples, strict=True)
        ranked = sorted(pairs, key=lambda pair: sign * (pair[1].score - pair[0].score))
        worse = [pair for pair in ranked if sign * (pair[1].score - pair[0].score) < 0]
        return worse, [pair for pair in reversed(ranked) if sign * (pair[1].score - pair[0].score) > 0]

    def sentence(self) -> str:
        """State the difference and whether it is significant."""
        worse, better = map(len, self.changed())
        clear = self.overall.low > 0 or self.overall.high < 0
        judged = "more than chance explains" if clear else "which chance alone could give"
        if self.after.count < FEW:
            judged = f"which is too few to say more: ask at least {FEW}"
        first, second = self.names
        return (
            f"The score goes from {self.before.accuracy:.1f} ({first}) to {self.after.accuracy:.1f} ({second}) on the"
            f" same {self.after.count:,} questions: {self.overall.value:+.1f} points"
            f" [{self.overall.low:+.1f}, {self.overall.high:+.1f}], {judged}."
            f" {better:,} answers are better and {worse:,} are worse."
            + (f" To find a difference of 3 points takes about {self.needed:,} such questions." if self.needed else "")
        )


def compare(before: Result, after: Result, names: tuple[str, str] = ("before", "after")) -> Comparison:
    """Pair two results example by example. names: of the two, for people.

    Raises: DataError if they are not about the same benchmark, version, split and metric, do not hold the same
    questions, or hold no scores.
    """
    _check(before, after)
    metric = metric_named(after.settings["metric"])
    answers = [[example.judged for example in result.examples] for result in (before, after)]
    truths = [example.truth for example in after.examples]
    old_counts, new_counts = (metric.counts(given, truths) for given in answers)

    def difference(members: list[int]) -> Estimate:
        clusters = [after.examples[i].images or after.examples[i].index for i in members]
        return paired_difference(new_counts[members], old_counts[members], metric.ratio, clusters)

    numbered = list(enumerate(after.examples))
    kinds = [kind for kind in after.kinds if kind in before.kinds]
    by_kind = {kind: difference([i for i, one in numbered if in_kind(one.kind, kind)]) for kind in kinds}
    needed = questions_needed(new_counts, old_counts) if metric.ratio is mean else 0
    return Comparison(before, after, difference(list(range(after.count))), by_kind, names, needed)


def _check(before: Result, after: Result) -> None:
    """Raises: DataError if the two cannot be paired."""
    for name, advice in SAME.items():
        old, new = (result.settings.get(name) for result in (before, after))
        if old != new:
            raise DataError(f"results differ in their {name} ({old} and {new}) and cannot be compared; {advice}")
    if not after.scored:
        raise DataError(
            f"the answers of split {after.settings.get('split')} are secret: there are no scores to compare"
        )
    missing = before.missing or after.missing
    if missing:
        raise DataError(f"{missing:,} questions are not answered yet; let the evaluation end, then compare")
    old_by_index, new_by_index = ({one.index: one for one in result.examples} for result in (before, after))
    alone = {**old_by_index, **new_by_index}
    names = [alone[index].name for index in sorted(old_by_index.keys() ^ new_by_index.keys())]
    if names:
        some = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        raise DataError(
            f"{len(names):,} questions were answered on one side only ({some}); use the same data and limit"
        )
    for index, old in old_by_index.items():
        if (old.name, old.truth) != (new_by_index[index].name, new_by_index[index].truth):
            raise DataError(f"results differ in their questions from {old.name} on; compare two runs on the same data")


def compare_folders(
    before: str | Path,
    after: str | Path,
    page: str | Path | None = None,
    most: int = 100,
    names: tuple[str, str] = ("before", "after"),
) -> Comparison:
    """Compare two results folders; write the page that shows it, with at most `most` examples of each direction.

    names: of the two, for people.

    Raises: DataError if a folder holds no results or they cannot be paired, DiskError if the page cannot be written, or
    is a file of somebody else.
    """
    stores = ResultsFolder(before), ResultsFolder(after)
    old, new = (store.result() for store in stores)
    found = compare(old, new, names)
    if page is not None:
        replace_text(page, render_comparison(found, stores, most), is_own_page)
    return found


def render_comparison(found: Comparison, stores: Sequence[ResultsFolder], most: int) -> str:
    """The page as HTML. Pictures are taken from the folders; one that neither holds is left out."""
    rows = [(kind, found.before.kinds[kind], found.after.kinds[kind], found.kinds[kind]) for kind in found.kinds]
    rows.append(("all", found.before.overall, found.after.overall, found.overall))
    alike = {name: value for name, value in found.after.settings.items() if name not in found.differing()}
    shown = [[(old, new, _pictures(stores, old, new)) for old, new in pairs[:most]] for pairs in found.changed()]
    counts = map(len, found.changed())
    groups = list(zip(("Worse", "Better"), ("wrong", "right"), counts, shown, strict=True))
    gains = [(kind, [Interval("difference", one.value, one.low, one.high)]) for kind, *_, one in rows]
    values: dict[str, Any] = {"found": found, "rows": rows, "alike": alike, "groups": groups}
    values |= {"chart": interval_chart(gains, ""), "sentence": found.sentence()}
    values |= {key: found.after.settings[key] for key in ("task", "metric")}
    return render_page("compare.html.jinja", values)


def _pictures(stores: Sequence[ResultsFolder], old: Example, new: Example) -> list[tuple[str, str]]:
    """The pictures that were shown as URIs, each with the side that saw it if the other did not."""
    sides = {digest: "" if digest in new.images else "before" for digest in old.images}
    sides |= {digest: "after" for digest in new.images if digest not in sides}
    paths = {digest: next((p for s in stores if (p := s.picture(digest)).exists()), None) for digest in sides}
    return [(data_uri(path.read_bytes()), sides[digest]) for digest, path in paths.items() if path]
