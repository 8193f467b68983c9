"""FSDP2 on two processes: the losses of one process, whatever each rank's share holds, and checkpoints that move."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from rich.console import Console

from lorgnette.train.log import read_log
from lorgnette.train.loop import Trainer

QUIET = Console(quiet=True)
PROGRAM = """
import sys, pathlib
from rich.console import Console
from lorgnette.run import Run
from lorgnette.train.loop import Trainer
from lorgnette.train.parallel import end_world
import torch
settings, folder, out = map(pathlib.Path, sys.argv[1:])
trainer = Trainer(Run.load(settings), folder, Console(quiet=True))
model = trainer.train()
if trainer.world.is_main and str(out) != "none":
    torch.save({name: parameter.detach() for name, parameter in model.named_parameters()}, out)
end_world()
"""


def on_two_ranks(run, folder, out="none"):
    """Train `run` by torchrun on two gloo processes."""
    folder.parent.mkdir(exist_ok=True)
    program, settings = folder.parent / "program.py", folder.parent / "settings.yaml"
    program.write_text(PROGRAM)
    settings.write_text(run.to_yaml())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    done = subprocess.run(
        [*command, str(settings), str(folder), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return read_log(folder / "log.jsonl")


@pytest.fixture
def mixed(tiny, squares, tmp_path):
    """Steps of three samples: with images on both ranks, on one, on none; of unequal numbers and lengths."""
    rows = [json.loads(line) for line in (squares / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        for message in row["messages"]:
            if isinstance(message["content"], list):
                message["content"][0]["path"] = str(squares / message["content"][0]["path"])
    words = {"messages": [{"role": "user", "content": "Say green. " * 5}, {"role": "assistant", "content": "green"}]}
    source = tmp_path / "mixed.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in [rows[0], words, words, words, words, rows[1]]))
    sources = [{"kind": "messages", "path": str(source)}]
    run = tiny.plain()
    for stage in run["stages"]:
        stage |= {"sources": sources, "samples_per_step": 3, "micro_batches": 1}
    return type(tiny).parse(run)


@pytest.mark.parametrize("mode", ["full", "dora"])
def test_two_ranks_have_the_losses_of_one(mixed, tmp_path, mode):
    run = mixed.override(
        *(f"stages.{n}.{part}.mode={mode}" for n in (0, 1) for part in ("vision", "language")),
        "stages.0.lora.rank=2", "stages.1.lora.rank=2", "stages.0.lora.dropout=0", "stages.1.lora.dropout=0",
    )  # fmt: skip
    alone = Trainer(run, tmp_path / "one" / "run", QUIET).train()
    one = read_log(tmp_path / "one" / "run" / "log.jsonl")
    two = on_two_ranks(run, tmp_path / "two" / "run", tmp_path / "weights.pt")
    assert [row["data"] for row in two] == [row["data"] for row in one]
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], abs=1e-5)
    assert [row["grad_norm"] for row in two] == pytest.approx([row["grad_norm"] for row in one], rel=1e-3)
    assert [row["images"] for row in two] == [row["images"] for row in one]
    weights = torch.load(tmp_path / "weights.pt")
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(weights[name], parameter.detach(), atol=1e-4, rtol=1e-3, msg=name)


def test_a_checkpoint_goes_on_with_another_number_of_ranks(mixed, tmp_path, monkeypatch):
    from lorgnette.train.loop import Interrupted

    Trainer(mixed, tmp_path / "one" / "run", QUIET).train()
    one = read_log(tmp_path / "one" / "run" / "log.jsonl")
    advance = Trainer._advance

    def stopping(self, *arguments):
        advance(self, *arguments)
        self._stop = self.progress.total_step == 4

    monkeypatch.setattr(Trainer, "_advance", stopping)
    with pytest.raises(Interrupted):
        Trainer(mixed, tmp_path / "two" / "run", QUIET).train()
    monkeypatch.undo()
    two = on_two_ranks(mixed, tmp_path / "two" / "run")
    assert [row["total_step"] for row in two] == list(range(1, 12))
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], abs=1e-5)
    Trainer(mixed, tmp_path / "two" / "run", QUIET).train()  # a checkpoint of two ranks, opened by one
