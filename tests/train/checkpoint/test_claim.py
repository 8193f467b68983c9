"""One training at a time in a folder: another is refused by name, and a killed one stops nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from lorgnette.errors import SettingsError
from lorgnette.train.checkpoint.claim import BusyError, claim
from lorgnette.train.loop import Trainer
from lorgnette.train.parallel import DistributedContext

QUIET = Console(quiet=True)
TRAINS = """
import os, sys, pathlib
from rich.console import Console
from lorgnette.run import Run
from lorgnette.train.callbacks import Callback
from lorgnette.train.loop import Trainer
from lorgnette.train.parallel import end_distributed
folder = pathlib.Path(sys.argv[1])
class Waits(Callback):
    def on_step_end(self, run, state, metrics):
        if metrics.total_step == 4 and state.world.is_main:
            print(os.getpid(), flush=True)
            sys.stdin.read()
try:
    Trainer(Run.load(folder.parent / "settings.yaml"), folder, Console(quiet=True), callbacks=[Waits()]).train()
finally:
    end_distributed()
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_second_training_is_refused_and_a_killed_one_stops_nobody(tiny, tmp_path, ranks):
    tiny = tiny.override(*(f"stages.{stage}.pack.packs_per_step=2" for stage in range(2)))  # one for each rank
    (tmp_path / "settings.yaml").write_text(tiny.to_yaml())
    program = tmp_path / "trains.py"
    program.write_text(TRAINS)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if ranks > 1 else []
    command = [sys.executable, *torchrun, str(program), str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, env=environment) as first:
        main = int(first.stdout.readline())
        before = (tmp_path / "run" / "log.jsonl").read_bytes()
        with pytest.raises(BusyError, match="run: another process trains in this folder"):
            Trainer(tiny, tmp_path / "run", QUIET)
        assert (tmp_path / "run" / "log.jsonl").read_bytes() == before
        os.kill(main, signal.SIGKILL)  # torchrun ends the other ranks then
    left = tmp_path / "run" / "checkpoints" / ".step-000007.tmp"
    left.mkdir()
    (left / "__0_0.distcp").touch()
    Trainer(tiny, tmp_path / "run", QUIET).train()
    assert not left.exists()


def test_a_refused_run_and_one_that_has_ended_hold_nothing(tiny, short, tmp_path):
    Trainer(short, tmp_path, QUIET).train()
    with pytest.raises(SettingsError, match="holds a run of other settings"):
        Trainer(tiny, tmp_path, QUIET)
    asks = f"from lorgnette.files import hold; hold({str(tmp_path / '.lock')!r}, 'held')"
    assert subprocess.run([sys.executable, "-c", asks]).returncode == 0
    release = claim(tmp_path, short, DistributedContext())
    assert subprocess.run([sys.executable, "-c", asks], stderr=subprocess.DEVNULL).returncode == 1
    release()
