"""What rounding to 8-bit integers costs: built-in benchmarks and logits, in float32 and with `quantize="int8"`.

    python benchmarks/int8.py --model FOLDER [--limit 300] [--note "..."]

Both answer the same questions, greedily, on the CPU. `answers_equal` is the share of answers that are the same to the
letter; `largest_logit_change` is of the logits at the end of each prompt, over the largest of them. A row goes to
`benchmarks/results/int8.jsonl`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from model_step import conditions

from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.eval.runner import evaluate
from lorgnette.eval.tasks import BENCHMARK_GROUPS, task_named
from lorgnette.hub.load import load
from lorgnette.sample import Sample

BATCH = 16


class Recorded(LorgnetteModel):
    """Keeps what it was asked and what it answered, and the logits at the end of each prompt."""

    samples: list[Sample]
    answers: list[str]

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        found = super().generate(samples, max_tokens=max_tokens, stop=stop)
        self.samples += samples
        self.answers += found
        return found

    @torch.no_grad()
    def logits(self) -> torch.Tensor:
        """Of each prompt asked, at its end."""
        rows = []
        for start in range(0, len(self.samples), BATCH):
            batch, visual_VD = self.image_cache.prompts(self.samples[start : start + BATCH])
            rows.append(self.model(batch, output="last", visual_VD=visual_VD).logits)
        return torch.cat(rows)


def opened(folder: str, quantize: str | None) -> Recorded:
    model = Recorded(*load(folder, quantize=quantize), batch_size=BATCH)
    model.samples, model.answers = [], []
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a trained model")
    parser.add_argument("--limit", type=int, default=300, help="questions of each benchmark")
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sides = {"float32": opened(options.model, None), "int8": opened(options.model, "int8")}
    scores: dict[str, Any] = {}
    for name in BENCHMARK_GROUPS["builtin"]:
        found = {
            side: evaluate(task_named(name), model, limit=options.limit, batch_size=BATCH)
            for side, model in sides.items()
        }
        scores[name] = {side: round(result.overall.value, 2) for side, result in found.items()}
        print(name, scores[name], flush=True)
    exact, rounded = (side.logits() for side in sides.values())
    change = (rounded - exact).abs().amax(-1) / exact.abs().amax(-1)
    pairs = list(zip(*(side.answers for side in sides.values()), strict=True))
    config = sides["float32"].model.config.language
    row = {
        "benchmark": "int8",
        "decoder": config.about,
        "questions": len(pairs),
        "scores": scores,
        "answers_equal": round(sum(one == other for one, other in pairs) / len(pairs), 4),
        "largest_logit_change": round(float(change.max()), 4),
        "median_logit_change": round(float(change.median()), 4),
    }
    row |= conditions(options.note)
    print(json.dumps(row, indent=1))
    with (Path(__file__).parent / "results" / "int8.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
