"""Training through all stages of recipes/micro.yaml: lorgnette beside transformers' Idefics2 with PEFT.

    python benchmarks/train_recipe.py [--steps 12] [--threads 2] ...

Takes what `train.py` takes, measures each stage by it (and keeps its row), and adds up what the whole recipe would
take: each stage as often as the recipe has steps of it. The row goes to `benchmarks/results/train.jsonl` too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import train

from lorgnette.run import Run, find_recipe


def added_up(rows: dict[str, dict[str, Any]], times: dict[str, int]) -> dict[str, Any]:
    """Processor seconds of the whole recipe on our side, and of each way of the other in relation to it.

    rows: of each stage, as `train.compare` makes them. times: how many steps the recipe has of each.
    """

    def whole(of_stage: dict[str, float]) -> float:
        return sum(times[name] / rows[name]["steps"] * seconds for name, seconds in of_stage.items())

    ours = whole({name: row["ours"]["cpu_seconds"] for name, row in rows.items()})
    ways = next(iter(rows.values()))["cpu_speedups"]
    speedups = {
        way: whole({name: row["ours"]["cpu_seconds"] * row["cpu_speedups"][way] for name, row in rows.items()}) / ours
        for way in ways
    }
    supervised_tokens = whole({name: row["ours"]["supervised_tokens"] for name, row in rows.items()})
    return {
        "cpu_seconds": round(ours, 1),
        "supervised_tokens_per_cpu_second": round(supervised_tokens / ours, 1),
        "cpu_speedups": {way: round(value, 2) for way, value in speedups.items()},
        "cpu_speedup": round(speedups[next(iter(ways))], 2),
        "least_cpu_speedup": round(min(speedups.values()), 2),
        "stages": {name: row["cpu_speedups"] for name, row in rows.items()},
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = train.parser().parse_args(given)
    times = {stage.name: stage.steps for stage in Run.load(find_recipe("micro")).stages}
    rows = {name: train.main([*given, "--data", name]) for name in times}
    row: dict[str, Any] = {"benchmark": "train", "size": options.size, "data": "recipe", "threads": options.threads}
    return train.keep(row | {"repeats": options.repeats, "steps": options.steps} | added_up(rows, times), options)


if __name__ == "__main__":
    main()
