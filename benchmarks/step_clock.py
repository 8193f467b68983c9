"""The clock of training benchmarks: seconds, processor seconds and work of each step."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

from model_step import matmul_rate
from prepare import tree

WARM = 2
"""Steps that are not counted."""


def cpu_seconds() -> float:
    """Processor seconds so far of this process and of those that it started and that are alive."""
    ticks = 0
    for pid in tree(os.getpid()):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class StepClock:
    """Time on the clock and of the processor at the end of each step, and what each step did."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []
        self.losses: list[float] = []
        self.supervised_tokens: list[int] = []
        self.waited: list[float] = []
        self.flops: list[float] = []

    def tick(self, loss: float, supervised_tokens: int, waited: float, flops: float = 0.0) -> None:
        self.marks.append((time.perf_counter(), cpu_seconds()))
        self.losses.append(loss)
        self.supervised_tokens.append(supervised_tokens)
        self.waited.append(waited)
        self.flops.append(flops)

    def figures(self, steps: int) -> dict[str, Any]:
        """Of so many steps after the warm ones."""
        counted = slice(WARM, WARM + steps)
        (start, cpu), (end, cpu_end) = self.marks[WARM - 1], self.marks[WARM + steps - 1]
        seconds, busy, supervised_tokens = end - start, cpu_end - cpu, sum(self.supervised_tokens[counted])
        return {
            "seconds": round(seconds, 3),
            "cpu_seconds": round(busy, 2),
            "gflops": round(sum(self.flops[counted]) / 1e9, 3),
            "matmul_gflops_per_second": round(matmul_rate() / 1e9, 1),
            "busy_threads": round(busy / seconds, 2),
            "supervised_tokens_per_second": round(supervised_tokens / seconds, 1),
            "supervised_tokens_per_cpu_second": round(supervised_tokens / busy, 1),
            "supervised_tokens": supervised_tokens,
            "waited_share": round(sum(self.waited[counted]) / seconds, 5),
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
            "losses": [self.losses[0], self.losses[WARM + steps - 1]],
        }
