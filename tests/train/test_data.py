"""From a run's stage to its steps: packs of prepared sources end to end, proven by `lorgnette data plan`."""

import io
import json
import os
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.data.loader.batches import BatchBuilder
from lorgnette.data.plan.sample_ref import digest_of, joined
from lorgnette.errors import DataError, SettingsError
from lorgnette.run import Run, find_recipe
from lorgnette.train.data import build_data
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer
from lorgnette.train.planner import dry_run
from lorgnette.train.setup import build_processor
from lorgnette.train.validation import unseen_sources
from tests.data.squares import row, spoil, write

PACK = {"tokens": 200, "patches": 400, "packs_per_step": 2}


@pytest.fixture
def packs(tiny, tmp_path) -> Run:
    """The tiny run, its first stage on varied packs of questions and its second on packs of four conversations."""
    folder = write(tmp_path / "data", [row(number) for number in range(30)])
    values = tiny.plain()
    source = {"kind": "instruct", "path": str(folder), "most_turns": 3}
    values["stages"][0] |= {"sources": [source], "pack": PACK, "steps": 6, "augment": {"split": 0.3, "upscale": 0.3}}
    values["stages"][1] |= {"steps": 3}
    return Run.parse(values)


def said(arguments: list[object]) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, f"{result.output} {result.exception!r}"
    return result.output


def test_a_run_on_packs_is_listed_trained_and_verified(packs, tmp_path):
    (tmp_path / "run.yaml").write_text(packs.to_yaml())
    listed = said(["data", "plan", tmp_path / "run.yaml", "--steps", "0:6"])
    Trainer(packs, tmp_path / "run", Console(quiet=True)).train()
    rows = [one for one in read_log(tmp_path / "run" / "log.jsonl") if "data" in one]
    assert len(rows) == 9
    for number, one in enumerate(rows[:6]):
        assert f"step {number}  {one['data']}  2 packs" in listed
    assert f"steps 0:6  {joined(one['data'] for one in rows[:6])}" in listed
    assert "data/0.parquet, group" in listed and "pack 1: at most" in listed
    assert (tmp_path / "run" / "packs-first.json").exists()
    verified = said(["data", "plan", tmp_path / "run", "--verify", tmp_path / "run"])
    assert "6 steps trained as planned" in verified and "3 steps trained as planned" in verified


def test_large_steps_are_looked_at_in_part(packs, monkeypatch):
    told = []
    for most in (16, 1):
        monkeypatch.setattr(dry_run, "MOST_PARTS", most)
        console = Console(record=True, file=io.StringIO(), width=200)
        dry_run.dry_run(packs, console)
        told.append(console.export_text())
    found = [re.search(r"about ([\d,]+) tokens .* and 2 packs", text) for text in told]
    whole, part = (int(one[1]) for one in found)
    assert part == pytest.approx(whole, rel=0.5)
    assert "two steps of first with 1 of their 2 packs took" in told[1] and "of their" not in told[0]


def test_what_is_left_out_or_hardly_meant_is_said_before_the_first_step(packs, tmp_path):
    run = packs.override("stages.0.pack.tokens=64", "model.connector.latents=20", "stages.1.warmup=4")
    console = Console(record=True, file=io.StringIO(), width=400)
    Trainer(run, tmp_path / "run", console).train()
    before = console.export_text().partition("first: 6 steps")[0]
    assert re.search(
        r"stage 'first': instruct .*data: of 103 units in 30 records 89 do not fit a pack of 64 tokens", before
    )
    assert "stage 'second': its 3 steps end before its warm-up of 4" in before
    with_images = write(tmp_path / "other", [row(number) for number in range(3)])
    with pytest.raises(DataError, match=r"of \d+ units in 3 records \d+ do not fit.*; make the packs larger, or leave"):
        Trainer(run.override(f"stages.0.sources.0.path={with_images}"), tmp_path / "small", console).train()
    assert not read_log(tmp_path / "small" / "log.jsonl")


def test_samples_longer_than_a_pack_are_left_out_and_packs_longer_than_the_model_reads_refused(tiny, short, tmp_path):
    with pytest.raises(SettingsError, match="documents longer than the language model's 8 positions"):
        tiny.override("model.language.max_positions=8")
    steps = build_data(tiny, 0, build_processor(tiny))
    lengths = [len(steps.processor.render(steps.sources[0].record(n).piece()).tokens_T) for n in range(32)]
    assert max(lengths) < 64
    run = short.override("stages.0.pack.tokens=64", "model.connector.latents=60")  # the one text alone fits
    console = Console(record=True, file=io.StringIO(), width=400)
    Trainer(run, tmp_path / "some", console).train()
    assert re.search(r"rows\.jsonl: of 32 units in 32 records 31 do not fit a pack of 64 tokens", console.export_text())
    rows = read_log(tmp_path / "some" / "log.jsonl")
    assert len(rows) == 5 and not any(row["replaced"] for row in rows)


def test_conversations_of_kind_messages_are_packed_too(tiny, tmp_path):
    run = tiny.override(f"stages.0.pack={PACK}", "stages.0.steps=8", "stages.1.steps=1")
    Trainer(run, tmp_path, Console(quiet=True)).train()
    rows = read_log(tmp_path / "log.jsonl")
    assert [row["stage"] for row in rows] == ["first"] * 8 + ["second"]
    plan = build_data(run, 0, build_processor(run)).plan
    assert [row["data"] for row in rows[:8]] == [plan.digest(step) for step in range(8)]
    refs = [ref for step in range(8) for ref in plan.step(step)]
    assert {ref.record for ref in refs} == set(range(32)) and rows[0]["samples"] > 4


def test_asking_for_validation_needs_something_to_validate_on(tiny):
    run = Run.load(find_recipe("micro"), ["validation.every=5"])
    unseen = [source.path for stage in run.stages for source in unseen_sources(run, stage)]
    kinds = ("interleaved", "pairs", "interleaved", "pairs", "documents", "instruct", "chat")
    assert unseen == [f"builtin:validation/{kind}" for kind in kinds]
    assert unseen_sources(tiny, tiny.stages[0]) == ()
    with pytest.raises(SettingsError, match=r"stage 'first': validation\.every is set, but only built-in sources"):
        unseen_sources(tiny.override("validation.every=5"), tiny.stages[0])


def test_a_log_that_differs_from_the_plan_is_found(packs, tmp_path):
    Trainer(packs, tmp_path / "run", Console(quiet=True)).train()
    log = tmp_path / "run" / "log.jsonl"
    rows = read_log(log)
    rows[3]["data"] = "0" * 16
    log.write_text("".join(json.dumps(one) + "\n" for one in rows))
    result = CliRunner().invoke(app, ["data", "plan", str(tmp_path / "run"), "--verify", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert "step 3 of stage first was trained on 0000000000000000, but the plan has" in str(result.exception)


def test_replaced_rows_are_listed_and_the_run_is_still_as_planned(packs, tmp_path):
    steps = build_data(packs, 0, build_processor(packs))
    before = steps.sources[0]
    index = before.index
    broken = next(ref.record for ref in steps.plan.step(0) if index.images_E[ref.record])
    spoil(before, broken)
    spoiled = BatchBuilder(steps.plan, (type(before)(before.config, before.index, before.folder),), steps.processor)
    log = tmp_path / "run" / "log.jsonl"
    log.parent.mkdir()
    rows = []
    for step in range(6):
        batches = spoiled.batches(step)
        data = digest_of(ref for batch in batches for ref in batch.refs)
        replaced = [sentence for batch in batches for sentence in batch.replaced]
        rows.append({"total_step": step + 1, "stage": "first", "step": step + 1, "data": data, "replaced": replaced})
    assert sum(len(one["replaced"]) for one in rows) > 0
    log.write_text("".join(json.dumps(one) + "\n" for one in rows))
    (tmp_path / "run" / "run.yaml").write_text(packs.to_yaml())
    write(tmp_path / "data", [row(number) for number in range(30)])  # mended, so that it is prepared to the same index
    verified = said(["data", "plan", tmp_path / "run", "--verify", tmp_path / "run"])
    assert index.name(broken) in verified and "cannot be read as an image" in verified
    assert "6 steps trained as planned" in verified and "samples could not be used" in verified


def test_packs_of_a_number_of_samples_are_listed_too(tiny, tmp_path):
    (tmp_path / "run.yaml").write_text(tiny.to_yaml())
    listed = said(["data", "plan", tmp_path / "run.yaml", "--stage", "second", "--steps", "1:3"])
    steps = build_data(tiny, 1, build_processor(tiny))
    assert f"step 2  {steps.plan.digest(2)}  1 packs, 4 samples" in listed and "00000.parquet, group 0, row" in listed
    batches = steps.batches(1)
    assert len(batches) == 2
    assert digest_of(ref for batch in batches for ref in batch.refs) == steps.plan.digest(1)


def test_counts_are_kept_in_the_folder_of_the_run(packs, tmp_path):
    processor = build_processor(packs)
    steps = build_data(packs, 0, processor, folder=tmp_path)
    steps.refs(0, 0)
    kept = json.loads((tmp_path / "packs-first.json").read_text())
    assert kept["plan"] == steps.plan.key and kept["packs"]
    assert build_data(packs, 0, processor, folder=tmp_path).plan.sequence.counts == kept["packs"]


WRONG = {
    "samples": ({"samples_per_step": 8}, r"now called pack.samples: write pack: \{samples: 8, packs_per_step: 1\}"),
    "micro_batches": ({"micro_batches": 5, "pack": {"samples": 4}}, "a pack of 4 samples cannot fill 5 batches"),
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_do_not_go_together_are_refused(packs, name):
    change, sentence = WRONG[name]
    values = packs.plain()
    values["stages"][0] |= change
    with pytest.raises(SettingsError, match=sentence):
        Run.parse(values)


def test_settings_of_a_run_on_packs_of_the_version_before_still_open(packs):
    values = packs.plain()
    values["stages"][0]["samples_per_step"] = 32  # a default that was written beside `pack`, and not obeyed
    assert Run.parse(values, stored=True) == packs
    values["stages"][0]["pack"] = None
    with pytest.raises(SettingsError, match=r"now called pack\.samples"):
        Run.parse(values, stored=True)


@pytest.mark.parametrize(("count", "batches"), [(3, 3), (4, 4)])
def test_a_pack_is_computed_in_several_batches_of_the_same_samples(tiny, count, batches):
    processor = build_processor(tiny)
    whole, cut = (build_data(tiny.override(f"stages.0.micro_batches={one}"), 0, processor) for one in (1, count))
    for step in range(3):
        [batch], made = whole.batches(step), cut.batches(step)
        assert len(made) == batches and [name for one in made for name in one.names] == list(batch.names)
        assert [ref for one in made for ref in one.refs] == list(batch.refs)


def test_weights_may_be_shares_of_epochs(packs):
    values = packs.plain()
    values["stages"][0]["weights"] = "epochs"
    run = Run.parse(values)
    assert build_data(run, 0, build_processor(run)).plan.by == "epochs"


def test_a_run_killed_with_its_workers_trains_on_every_step_once(packs, tmp_path):
    values = packs.plain() | {"loader": {"workers": 2, "prefetch": 2}, "checkpoints": {"every": 4}}
    values["stages"] = values["stages"][:1]
    values["stages"][0]["steps"] = 24
    run, folder = Run.parse(values), tmp_path / "run"
    (tmp_path / "run.yaml").write_text(run.to_yaml())
    command = [sys.executable, "-m", "lorgnette.cli", "train", str(tmp_path / "run.yaml"), "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.time() + 120
        while len(read_log(folder / "log.jsonl")) < 7 and time.time() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    Trainer(run, folder, Console(quiet=True)).train()
    rows = [one for one in read_log(folder / "log.jsonl") if "data" in one]
    plan = build_data(run, 0, build_processor(run)).plan
    assert [(one["step"], one["data"]) for one in rows] == [(step + 1, plan.digest(step)) for step in range(24)]
