"""Fill of a plan's packs and speed of planning, on lengths like OBELICS's and like The Cauldron's.

    python benchmarks/plan.py [--records 200000] [--packs 8192] [--note "..."]

Indexes are those of `lengths.py`. A plan with the default packs (2,048 tokens, as section 4.1 has) is made on one core,
its packs counted from the first, with half of the samples split and half of the images enlarged. A row for each goes
to `benchmarks/results/plan.jsonl`:

    fill                of the token budget, over all packs; `fill_patches` of the patch budget
    samples_a_second    planned in a second of the process's time, the median of the runs (`runs_samples_a_second`)
    resume_seconds      to find the last step again with nothing saved, and `resume_saved_seconds` with the counts saved
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import count
from pathlib import Path

from lengths import cauldron, obelics, plan_of
from model_step import conditions

from lorgnette.data.plan.mixture import PlannedSource
from lorgnette.data.plan.pack_plan import PackedPlan

RUNS = 7


def planned(plan: PackedPlan, packs: int) -> tuple[int, float]:
    """Samples in the first packs of a plan, and the seconds of this process's time that planning them took."""
    start = time.process_time()
    samples = sum(len(plan.step(step)) for step in range(packs // plan.pack.packs_per_step))
    return samples, time.process_time() - start


def resumed(plan: PackedPlan, packs: int) -> float:
    """Seconds to find the step that follows so many packs."""
    start = time.process_time()
    plan.step(packs // plan.pack.packs_per_step)
    return time.process_time() - start


def fills(plan: PackedPlan, packs: int) -> tuple[float, float]:
    """Share of the token and of the patch budget that is used, over the windows of the first `packs` packs."""
    tokens = patches = made = 0
    for window in map(plan.sequence.window, count()):
        tokens, patches, made = tokens + window.tokens, patches + window.patches, made + len(window.packs)
        if made >= packs:
            break
    return tokens / made / plan.pack.tokens, patches / made / plan.pack.patches


def measured(name: str, sources: tuple[PlannedSource, ...], packs: int) -> dict[str, object]:
    """One row's figures."""
    runs = [planned(plan_of(sources), packs) for _ in range(RUNS)]
    rates = [samples / seconds for samples, seconds in runs]
    plan = plan_of(sources)
    unaided = resumed(plan, packs)
    with tempfile.TemporaryDirectory() as folder:
        plan.save_counts(Path(folder, "counts.json"))
        again = plan_of(sources)
        again.load_counts(Path(folder, "counts.json"))
        saved = resumed(again, packs)
    fill, fill_patches = fills(plan, packs)
    return {
        "lengths": name,
        "packs": packs,
        "fill": round(fill, 4),
        "fill_patches": round(fill_patches, 4),
        "samples_a_second": round(statistics.median(rates)),
        "runs_samples_a_second": [round(rate) for rate in rates],
        "samples_a_pack": round(runs[0][0] / packs, 2),
        "resume_seconds": round(unaided, 3),
        "resume_saved_seconds": round(saved, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--packs", type=int, default=8192)
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    for name, make in (("obelics", obelics), ("cauldron", cauldron)):
        row: dict[str, object] = {"benchmark": "plan", **measured(name, make(options.records), options.packs)}
        row |= conditions(options.note)
        print(json.dumps(row, indent=1))
        with (Path(__file__).parent / "results" / "plan.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
