"""Reads mutated inputs in a process apart: time and memory of each input are bounded, and outcomes counted."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.child import one_input

OUTCOMES = ("accepted", "refused", "traceback", "hang", "death", "over_memory")
MOST_BYTES = 512 * 2**20
"""Resident memory over the start that an input may take."""
MOST_SECONDS = 10.0
"""Processor seconds of one input; on the clock it may take six times as long."""
GIVEN_UP = 40
"""Hangs, deaths and inputs over the memory after which a reader's batch is given up, as each costs a new process."""
MOST_SECONDS_TO_BEGIN = 300.0
"""Seconds on the clock in which a process makes and reads the good inputs."""
ROOT = Path(__file__).parents[2]


@dataclass
class Tally:
    """Tally of the outcomes of a reader's inputs."""

    reader: str
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    smallest: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Kind of failure -> number and bytes of the smallest input that has it."""
    most_grown: int = 0
    """Bytes over the start at the worst input."""
    most_seconds: float = 0.0

    @property
    def failures(self) -> int:
        return sum(count for outcome, count in self.counts.items() if outcome not in ("accepted", "refused"))

    def note(self, outcome: str, number: int, detail: str = "") -> None:
        self.counts[outcome] += 1
        if outcome not in ("accepted", "refused"):
            size = len(one_input(self.reader, self.seed, number))
            kind = f"{outcome}: {detail}" if detail else outcome
            if kind not in self.smallest or size < self.smallest[kind][1]:
                self.smallest[kind] = (number, size)

    def said(self) -> str:
        """The counts and, for each kind of failure, its smallest input."""
        lines = [f"{self.reader}: " + ", ".join(f"{self.counts[name]} {name}" for name in OUTCOMES)]
        for kind, (number, size) in sorted(self.smallest.items()):
            content = one_input(self.reader, self.seed, number)
            shown = repr(content if size <= 160 else content[:157] + b"...")
            lines.append(f"  {kind}\n    input {number} of seed {self.seed} ({size} bytes): {shown}")
        return "\n".join(lines)


class Harness:
    """The process that reads, started once for all readers. A context manager.

    Batches are numbered, and answers to another batch than the last are dropped: one that was left, because the
    harness raised, cannot be taken for a later one.
    """

    def __init__(self, most_seconds: float = MOST_SECONDS) -> None:
        self.most_seconds, self._batches = most_seconds, 0

    def __enter__(self) -> Harness:
        self._files = tempfile.TemporaryDirectory(prefix="lorgnette-harness-")  # of processes that are killed, too
        try:
            self._start()
        except BaseException:
            self._files.cleanup()
            raise
        return self

    def _start(self) -> None:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
            "TMPDIR": self._files.name,
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.fuzz.child"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._left = b""

    def __exit__(self, *exception: object) -> None:
        self._stop()
        self._files.cleanup()

    def _stop(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def run(self, reader: str, count: int, seed: int = 0) -> Tally:
        """Read `count` mutated inputs. After a hang, a death or too much memory another process goes on behind it."""
        tally, next_one, lost = Tally(reader, seed), 0, 0
        while next_one < count and lost < GIVEN_UP:
            next_one = self._batch(tally, next_one, count)
            lost = sum(tally.counts[name] for name in ("hang", "death", "over_memory"))
        return tally

    def _batch(self, tally: Tally, start: int, count: int) -> int:
        """Read inputs until all are read or one ends the process. Returns the number of the next one."""
        if self._process.poll() is not None:
            self._stop()
            self._start()
        self._batches += 1
        asked = {"reader": tally.reader, "seed": tally.seed, "start": start, "count": count - start}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"batch": self._batches, **asked}).encode() + b"\n")
        self._process.stdin.flush()
        watch = _Watch(self.most_seconds)
        try:
            return self._answers(tally, start, count, watch)
        except BaseException:
            watch.kill()  # else the next batch would wait for this one
            raise

    def _answers(self, tally: Tally, start: int, count: int, watch: _Watch) -> int:
        killed, broken, at, counted = "", "", start - 1, start - 1
        while True:
            for said in self._lines(0.05):
                if said["batch"] != self._batches or (killed and "end" not in said):
                    continue  # after the kill nothing counts: the inputs behind `at` are read once more
                if "pid" in said:
                    watch.pid = said["pid"]
                elif "ready" in said:
                    watch.least = said["ready"]
                elif "begun" in said:
                    at = said["begun"]
                    watch.begin()
                elif "input" in said:
                    self._count(tally, said, watch)
                    watch.end()
                    counted = said["input"]
                elif "broken" in said:
                    broken = said["broken"]
                elif "end" in said:
                    watch.pid = 0
                    if not (killed or said["end"]):
                        return count
                    to_blame = at if killed or counted < at else at + 1  # a process may die between two inputs
                    if broken or at < start or to_blame >= count:
                        reason = broken or killed or f"status {said['end']} behind input {at}"
                        raise RuntimeError(f"the harness itself fails on {tally.reader}:\n{reason}")
                    tally.note(killed or "death", to_blame, "" if killed else f"status {said['end']}")
                    return to_blame + 1
            killed = killed or watch.trouble()

    def _count(self, tally: Tally, said: dict[str, Any], watch: _Watch) -> None:
        outcome, detail = said["outcome"], said["detail"]
        tally.most_grown = max(tally.most_grown, said["grown"])
        tally.most_seconds = max(tally.most_seconds, watch.seconds())
        if said["grown"] > MOST_BYTES:
            outcome, detail = "over_memory", f"{said['grown'] >> 20} MiB"
        tally.note(outcome, said["input"], detail)

    def _lines(self, seconds: float) -> Sequence[dict[str, Any]]:
        """Lines that the process has printed, after waiting at most that long."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        if not select.select([descriptor], [], [], seconds)[0]:
            return ()
        more = os.read(descriptor, 1 << 20)
        if not more:
            raise RuntimeError(f"the process of the harness ended with status {self._process.wait()}")
        *lines, self._left = (self._left + more).split(b"\n")
        return [json.loads(line) for line in lines]


class _Watch:
    """Time and memory of the input that a process reads."""

    def __init__(self, most_seconds: float) -> None:
        self.most_seconds, self.pid, self.least, self._clock, self._used = most_seconds, 0, 0, 0.0, 0.0
        self._made = time.monotonic()

    def begin(self) -> None:
        self._clock, self._used = time.monotonic(), self._cpu()

    def end(self) -> None:
        self._clock = 0.0

    def seconds(self) -> float:
        return time.monotonic() - self._clock if self._clock else 0.0

    def trouble(self) -> str:
        """`hang` or `over_memory`, after ending the process; nothing while all is well."""
        if self.pid and not self.least and time.monotonic() - self._made > MOST_SECONDS_TO_BEGIN:
            self.kill()
            return "hang"
        if not (self.pid and self._clock):
            return ""
        hung = self._cpu() - self._used > self.most_seconds or self.seconds() > 6 * MOST_SECONDS
        grown = self.least and self._resident() - self.least > MOST_BYTES
        if not (hung or grown):
            return ""
        self.kill()
        return "over_memory" if grown else "hang"

    def kill(self) -> None:
        if self.pid:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has ended by itself
                return

    def _cpu(self) -> float:
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:  # gone, or a system without /proc
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _resident(self) -> int:
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0
