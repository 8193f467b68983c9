"""Mutated inputs by the thousand for every reader of untrusted input, counted; a row of benchmarks/results.

    python scripts/mutate.py [READER ...] [--count 5000] [--seed 0] [--note "..."]

The readers, their good inputs and the mutations are those of tests/fuzz, which reads 300 of each at every change.
Outcomes: accepted, refused (by an error of lorgnette's), traceback (another error), hang (10 processor seconds), death
of the process, over_memory (512 MiB over the start). The row goes to `benchmarks/results/mutate.jsonl`; each kind of
failure is printed with its smallest input. The exit status is 1 if there was one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the tests

from lorgnette.version import commit  # noqa: E402
from tests.fuzz.harness import OUTCOMES, Harness  # noqa: E402
from tests.fuzz.readers import READERS  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*", help=f"of {', '.join(READERS)}; all if none is named")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--note", default="")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    if unknown := set(options.readers) - READERS.keys():
        parser.error(f"no such reader: {', '.join(sorted(unknown))}; there are {', '.join(READERS)}")
    started, tallies = time.perf_counter(), []
    with Harness() as harness:
        for name in options.readers or READERS:
            tallies.append(harness.run(name, options.count, options.seed))
            print(tallies[-1].said(), flush=True)
    row = {
        "benchmark": "mutate",
        "count": options.count,
        "seed": options.seed,
        "readers": {tally.reader: {name: tally.counts[name] for name in OUTCOMES} for tally in tallies},
        "failures": sum(tally.failures for tally in tallies),
        "most_mib_over_start": {tally.reader: round(tally.most_grown / 2**20, 1) for tally in tallies},
        "seconds": round(time.perf_counter() - started, 1),
        "device": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "commit": commit(),
        "command": " ".join(["python", *sys.argv]),
        "versions": {"python": platform.python_version()},
        "note": options.note,
    }
    with open(options.results / "mutate.jsonl", "a", encoding="utf-8") as results:
        results.write(json.dumps(row) + "\n")
    sys.exit(1 if row["failures"] else 0)


if __name__ == "__main__":
    main()
