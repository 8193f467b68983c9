"""The dashboard of docs asks for metrics that the server has, and for all that have a panel's worth of news."""

from __future__ import annotations

import json
import re

from tests.house.source import ROOT
from tests.serve.running import QUESTION, Running

DASHBOARD = ROOT / "docs/serving/grafana.json"


def test_every_metric_of_the_dashboard_exists(tiny: Running) -> None:
    assert tiny.ask(QUESTION)[0] == 200
    assert tiny.get("/nowhere")[0] == 404  # so that there is a refusal
    samples = {line.split("{")[0].split(" ")[0] for line in tiny.get("/metrics")[2].decode().splitlines()}
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    asked = {name for panel in panels for one in panel["targets"] for name in re.findall(r"lorgnette:\w+", one["expr"])}
    assert len(asked) > 20 and asked <= samples, asked - samples
    assert len({json.dumps(panel["gridPos"]) for panel in panels}) == len(panels)
    assert len({panel["id"] for panel in panels}) == len(panels)
