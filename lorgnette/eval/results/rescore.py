"""Score stored answers again: with today's code, or by another metric. No model and no sample is needed."""

from __future__ import annotations

from pathlib import Path

from lorgnette import plugins
from lorgnette.eval.metrics import metric_named
from lorgnette.eval.results.store import Result, ResultsFolder, score


def rescore(folder: str | Path, metric: str | None = None) -> Result:
    """Judge the answers in a results folder by `metric` (None: its own) and store the new scores there.

    Where answers are still missing, those that are there are judged and nothing is stored.
    Raises: DataError if the folder holds no results, SettingsError if there is no such metric.
    """
    store = ResultsFolder(folder)
    settings = store.settings()
    if metric is not None:
        metric_named(metric)  # that the user names it is what lets a plug-in run
    with plugins.reading(str(store.path)):
        result = score({**settings, "metric": metric or settings["metric"]}, store.examples(), store.rejected())
    if not result.missing:
        store.finish(result)
    return result
