"""The engine beside static `generate`: tokens a second and milliseconds of a decode step, at 1, 4 and 16 answers.

    python benchmarks/engine.py [--threads 1] [--repeats 5] [--tokens 64] [--note "..."]

The model is that of `model_step.py` with random weights, in float32 on the CPU; the prompts are texts of 8 to 120 words
that all come at once, so that both sides do the same work, and answers are compared. The sides run in turn, in one
process. A step is the time of `--tokens` tokens less that of one, divided by the steps between: prompts and images are
not in it. A row goes to `benchmarks/results/engine.jsonl`. On a machine shared with other work, processor time
(`step_cpu_ms`) is the steadier figure.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from generate import words
from model_step import MODEL, conditions

from lorgnette.infer.engine.config import EngineConfig
from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.request import Request, SamplingParams
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.vlm import VLM
from lorgnette.sample import Sample, Text, Turn

ROWS = (1, 4, 16)
Answers = list[tuple[int, ...]]
Side = Callable[[list[Sample], int], Answers]
"""Prompts and the number of tokens of each answer, to the answers."""


def prompts(count: int) -> list[Sample]:
    draw = random.Random(0)
    texts = [words(draw.randint(8, 120), seed=number) for number in range(count)]
    return [Sample((Turn("user"), Text(text))) for text in texts]


def static(model: VLM, processor: Processor) -> Side:
    def answer(samples: list[Sample], tokens: int) -> Answers:
        return [one.tokens for one in generate(model, processor, samples, GenerationConfig(max_tokens=tokens))]

    return answer


def continuous(model: VLM, processor: Processor) -> Side:
    """A fresh engine each time: nothing is found in its caches."""

    def answer(samples: list[Sample], tokens: int) -> Answers:
        engine = Engine(model, processor, EngineConfig(kv_bytes=2**27, tokens_per_step=2048))
        for number, sample in enumerate(samples):
            engine.add(Request(str(number), sample, SamplingParams(max_tokens=tokens)))
        found: dict[str, tuple[int, ...]] = {}
        while not engine.is_idle:
            found |= {one.request: one.generation.tokens for one in engine.step() if one.generation}
        return [found[str(number)] for number in range(len(samples))]

    return answer


def timed(side: Side, samples: list[Sample], tokens: int) -> tuple[float, float, Answers]:
    seconds, cpu = time.perf_counter(), time.process_time()
    answers = side(samples, tokens)
    return time.perf_counter() - seconds, time.process_time() - cpu, answers


def measure(sides: dict[str, Side], rows: int, tokens: int, repeats: int) -> dict[str, Any]:
    """Both sides in turn, so that what else the machine does falls on both."""
    samples = prompts(rows)
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
    answers: dict[str, Answers] = {}
    for repeat in range(repeats + 1):  # the first is for warmth
        for name, side in sides.items():
            one, one_cpu, _ = timed(side, samples, 1)
            whole, whole_cpu, answers[name] = timed(side, samples, tokens)
            if repeat:
                taken[name].append(
                    (whole, 1000 * (whole - one) / (tokens - 1), 1000 * (whole_cpu - one_cpu) / (tokens - 1))
                )
    same = [mine == other for mine, other in zip(*answers.values(), strict=True)]
    figures: dict[str, Any] = {"rows": rows, "equal_answers": sum(same)}
    for name, runs in taken.items():
        count = sum(map(len, answers[name]))
        seconds, step, cpu = (statistics.median(column) for column in zip(*runs, strict=True))
        figures[name] = {
            "tokens_per_second": round(count / seconds, 1),
            "step_ms": round(step, 2),
            "step_cpu_ms": round(cpu, 2),
            "step_cpu_ms_range": [round(pick(run[2] for run in runs), 2) for pick in (min, max)],
        }
    figures["step_cpu_ratio"] = round(figures["engine"]["step_cpu_ms"] / figures["generate"]["step_cpu_ms"], 3)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = train_tokenizer([words(20_000, seed=-1)], vocabulary=MODEL.vocabulary)
    model, processor = VLM(MODEL).initialise(0).eval(), Processor(tokenizer)
    sides = {"generate": static(model, processor), "engine": continuous(model, processor)}
    row = {
        "benchmark": "engine",
        "threads": options.threads,
        "tokens": options.tokens,
        "repeats": options.repeats,
        "measured": [measure(sides, rows, options.tokens, options.repeats) for rows in ROWS],
    }
    row |= conditions(options.note)
    print(json.dumps(row, indent=1))
    with (Path(__file__).parent / "results" / "engine.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
