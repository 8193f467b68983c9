"""The card of a trained model: what it was trained from and on, and how it scored."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.hub.card import is_own_card
from lorgnette.run import Run
from lorgnette.train.logging.run_card import facts_of_folder, run_facts
from lorgnette.train.loop import train


def test_the_card_of_a_run_names_its_stages_sources_and_losses(short: Run, tmp_path: Path) -> None:
    run = short.override("validation.every=5", "stages.0.steps=1")
    source = run.stages[0].sources[0].plain() | {"name": "held out"}
    run = Run.parse(run.plain() | {"validation": run.validation.plain() | {"sources": [source]}})
    train(run, tmp_path / "run")
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert is_own_card(card.encode())
    assert "All weights were drawn at random before training." in card
    assert "| first | 1 | 0.003 | full | full | full |" in card
    assert "| first | `rows.jsonl` | chat | not stated: the owner of the data knows it |" in card
    [loss] = [row["losses"]["held out"] for row in map(json.loads, (tmp_path / "run" / "validation.jsonl").open())]
    assert f"| held out | {loss:.4g} |" in card
    done = CliRunner().invoke(app, ["export", "--model", str(tmp_path / "run"), str(tmp_path / "out")])
    assert done.exit_code == 0, done.exception
    assert "| first | `rows.jsonl` | chat |" in (tmp_path / "out" / "README.md").read_text()


def test_what_is_on_the_hub_is_in_the_metadata(short: Run, tmp_path: Path) -> None:
    sources = [
        {"kind": "chat", "path": path}
        for path in ("owner/set@main:train", "builtin:train/chat", str(tmp_path / "mine.jsonl"))
    ]
    stage = {"name": "one", "steps": 1, "sources": sources}
    run = Run.parse({"name": "r", "init": {"model": "owner/name@v1"}, "stages": [stage]})
    facts = run_facts(run, tmp_path)
    assert facts.metadata() == "base_model:\n- owner/name\ndatasets:\n- owner/set\n"
    assert (
        "Started from `owner/name@v1`" in facts.sections
        and "`mine.jsonl`" in facts.sections
        and str(tmp_path) not in facts.sections
    )
    assert "https://huggingface.co/datasets/owner/set) says" in facts.sections
    assert "`builtin:train/chat` | chat | public domain (drawings) and Apache-2.0" in facts.sections
    assert facts_of_folder(tmp_path) is None
