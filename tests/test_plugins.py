"""Plug-ins: the package of docs/plugins.md, installed or not, adds one of each kind; what cannot be one is refused."""

from __future__ import annotations

import json
import logging

import pytest

from lorgnette import plugins
from lorgnette.errors import SettingsError
from lorgnette.eval.benchmark import Asking
from lorgnette.eval.metrics import METRICS, metric_named
from lorgnette.eval.models.base import Model
from lorgnette.eval.results.compare import compare_folders
from lorgnette.eval.results.rescore import rescore
from lorgnette.eval.runner import evaluate
from lorgnette.eval.tasks import benchmark_named, name_and_split, task_named
from lorgnette.model.configs.connector_config import LinearConfig, parse_connector
from tests.fable import BOTH, DOTTED


class Reddish(Model):
    """Says `rosy` whatever it is asked: the first letter of `red` alone is right."""

    def generate(self, samples, *, max_tokens, stop=()):
        return ["rosy"] * len(samples)


@BOTH
def test_a_benchmark_and_a_metric_from_outside(installed, data, tmp_path, names):
    asking = Asking(data={"colours": str(data / "asked")})
    result = evaluate(task_named(names["benchmarks"], asking), Reddish(), folder=tmp_path / "results")
    assert result.count == 6 and result.accuracy == pytest.approx(100 / 6)
    kept = json.loads((tmp_path / "results" / "settings.json").read_text())
    assert kept["plugins"] == {names["benchmarks"]: "fable 1.2", DOTTED["metrics"]: "fable 1.2"}
    assert rescore(tmp_path / "results", names["metrics"]).accuracy == result.accuracy
    assert rescore(tmp_path / "results", "exact_match").accuracy == 0


def test_results_cannot_run_code_that_nobody_named(fable, data, tmp_path):
    asking = Asking(data={"colours": str(data / "asked")})
    evaluate(task_named(DOTTED["benchmarks"], asking), Reddish(), folder=tmp_path / "results")
    kept = json.loads((tmp_path / "results" / "settings.json").read_text())["plugins"]
    assert all(code.startswith("sha256 ") for code in kept.values()), "of no installed package: a hash of the file"
    plugins.forget()
    with pytest.raises(SettingsError, match=f"names code to run, {DOTTED['metrics']}"):
        compare_folders(tmp_path / "results", tmp_path / "results")
    assert rescore(tmp_path / "results", DOTTED["metrics"]).count == 6, "now the user named it"
    assert compare_folders(tmp_path / "results", tmp_path / "results").overall.value == 0


def test_it_is_said_once_that_code_runs(installed, caplog):
    with caplog.at_level(logging.WARNING, "lorgnette"):
        for _ in range(3):
            metric_named(DOTTED["metrics"])
    assert caplog.messages == ["fable.metrics:FIRST_LETTER: runs code of fable.metrics (fable 1.2)"]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: metric_named("fable.nowhere:METRIC"), "metrics: fable.nowhere:METRIC cannot be imported"),
        (lambda: metric_named("fable.metrics:LAST_LETTER"), "cannot be imported .*LAST_LETTER.*package.module:Name"),
        (lambda: metric_named("fable.broken:METRIC"), "cannot be imported .ZeroDivisionError"),
        (lambda: metric_named(DOTTED["benchmarks"]), "is a Benchmark, not a Metric"),
        (lambda: benchmark_named(DOTTED["metrics"]), "is a Metric, not a Benchmark"),
        (lambda: metric_named("last_letter"), "unknown; use one of .*first_letter.*package.module:Name"),
        (lambda: task_named("riddles"), "no task is called 'riddles'; there are: drawings, .*colours"),
        (lambda: parse_connector({"kind": DOTTED["sources"]}), "does not derive from .*ConnectorPlugin"),
        (lambda: parse_connector({"kind": DOTTED["metrics"]}), "is a Metric, which does not derive from"),
        (lambda: parse_connector({"kind": DOTTED["connectors"], "width": 3}), "width: no such setting"),
    ],
)
def test_what_is_no_plugin_is_refused_by_name(installed, ask, said):
    (installed / "fable/broken.py").write_text("1 / 0\n")
    with pytest.raises((SettingsError, ValueError), match=said):
        ask()


def test_no_entry_point_takes_the_place_of_a_built_in_name(installed):
    points = installed / "fable-1.2.dist-info" / "entry_points.txt"
    points.write_text(
        "[lorgnette.connectors]\nlinear = fable.connectors:Average\n"
        "[lorgnette.metrics]\nanls = fable.metrics:FIRST_LETTER\n"
    )
    plugins.forget()
    assert plugins.installed("connectors").keys() == {"linear"}
    assert isinstance(parse_connector({"kind": "linear"}), LinearConfig)
    assert metric_named("anls") is METRICS["anls"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("docvqa", ("docvqa", "")),
        ("docvqa:test", ("docvqa", "test")),
        ("a.b:C", ("a.b:C", "")),
        ("a.b.c:D:validation", ("a.b.c:D", "validation")),
    ],
)
def test_a_split_stands_behind_either_form_of_name(text, parts):
    assert name_and_split(text) == parts
