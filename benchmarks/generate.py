"""Generating 64 tokens for 16 prompts with unequal images and lengths: lorgnette beside transformers' Idefics2.

    python benchmarks/generate.py [--images step|web] [--threads 2] [--repeats 3] [--note "..."]

The model is that of `model_step.py`, and so are the 14 images of `step`; `web` has 18 images, all of shapes as the web
has them, for which upstream pads less. Both sides start from pictures and messages and end with text, greedily, in
float32 on the CPU, with the same weights from the same files. transformers pads the prompts to the left and the images
to the largest. Each side runs in a process of its own, so that its peak memory is its own; a row goes to
`benchmarks/results/generate.jsonl`. `memory_share` of ours: the bytes of weights and cached keys and values that
decoding reads in a second, over those that a copy moves, measured in the same process. On a machine shared with other
work, `cpu_speedup` (processor seconds) is the steadier ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from model_step import MODEL, clock_ratio, conditions, memory_rate, shapes

from lorgnette.hub.export import export
from lorgnette.hub.load import load
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.config import VLMConfig
from lorgnette.model.flops import ModelCost
from lorgnette.model.vlm import VLM
from lorgnette.sample import Sample

IMAGES_PER_PROMPT = {
    "step": (1, 0, 2, 1, 1, 3, 1, 0, 1, 0, 1, 1, 0, 1, 1, 0),
    "web": (1, 0, 2, 1, 1, 3, 1, 0, 1, 2, 1, 1, 0, 1, 1, 2),
}
TOKENS = 64
Message = dict[str, Any]


def words(count: int, seed: int) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(count))


def conversations(prompts: int, mix: str) -> list[list[Message]]:
    """Messages with none to three images in each, and texts of 8 to 120 words."""
    draw = random.Random(0)
    sizes = iter(shapes()) if mix == "step" else web_sizes(draw)
    made: list[list[Message]] = []
    for number, images in enumerate(IMAGES_PER_PROMPT[mix][:prompts]):
        content: list[Message] = [{"type": "image", "image": picture(draw, next(sizes))} for _ in range(images)]
        content.append({"type": "text", "text": words(draw.randint(8, 120), seed=number)})
        made.append([{"role": "user", "content": content}])
    return made


def web_sizes(draw: random.Random) -> Iterator[tuple[int, int]]:
    while True:
        side, aspect = draw.lognormvariate(6.55, 0.4), draw.lognormvariate(0.2, 0.35)
        yield round(side * aspect**0.5), round(side / aspect**0.5)


def picture(draw: random.Random, size: tuple[int, int]) -> PIL.Image.Image:
    small = PIL.Image.frombytes("RGB", (16, 16), draw.randbytes(16 * 16 * 3))
    return small.resize(size, PIL.Image.Resampling.BICUBIC)


def write_model(folder: Path, config: VLMConfig = MODEL, images: ImageConfig | None = None) -> None:
    """The model with random weights and a tokenizer of its size, as a folder that both sides open."""
    tokenizer = train_tokenizer([words(20_000, seed=-1)], vocabulary=config.vocabulary)
    assert tokenizer.vocabulary == config.vocabulary
    export(VLM(config).initialise(0), Processor(tokenizer, images or ImageConfig(), config.slots), folder)


class Ours:
    def __init__(self, folder: Path) -> None:
        self.pair = load(folder)

    def answer(self, asked: list[list[Message]]) -> list[tuple[int, ...]]:
        samples = [Sample.from_messages(messages) for messages in asked]
        return [answer.tokens for answer in generate(*self.pair, samples, GenerationConfig(max_tokens=TOKENS))]

    def memory_share(self, asked: list[list[Message]], seconds: float) -> float:
        """Share of the memory's bandwidth in decoding: all of `seconds` but what it takes to the first tokens."""
        samples, (model, processor) = [Sample.from_messages(messages) for messages in asked], self.pair
        before = time.perf_counter()
        generate(model, processor, samples, GenerationConfig(max_tokens=1))
        decoding, cost = seconds - (time.perf_counter() - before), ModelCost(model.config)
        rows = model.config.vocabulary * model.config.language.width  # of the embedding, of which a few are read
        weights = 4 * (cost.parameters["language"] + cost.parameters["extra_vocabulary"] - rows)
        prompts = sum(len(processor.render(sample).tokens_T) for sample in samples)
        cached = sum(cost.cache_bytes(prompts + len(samples) * step, 4) for step in range(1, TOKENS))
        return round(((TOKENS - 1) * weights + cached) / decoding / memory_rate(), 3)


class Theirs:
    def __init__(self, folder: Path) -> None:
        sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]  # not needed, and slow or broken to import
        import transformers

        self.model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.processor = transformers.AutoProcessor.from_pretrained(folder)

    @torch.no_grad()
    def answer(self, asked: list[list[Message]]) -> list[tuple[int, ...]]:
        texts = [self.processor.apply_chat_template(messages, add_generation_prompt=True) for messages in asked]
        images = [[part["image"] for part in messages[0]["content"] if part["type"] == "image"] for messages in asked]
        inputs = self.processor(text=texts, images=images, padding=True, padding_side="left", return_tensors="pt")
        tokens = self.model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        self.processor.batch_decode(new, skip_special_tokens=True)
        return [tuple(row) for row in new.tolist()]


def measure(side: str, folder: Path, options: argparse.Namespace) -> None:
    """Print the figures of one side as JSON. A small batch first, so that nothing is timed that happens once."""
    torch.set_num_threads(options.threads)
    engine = {"ours": Ours, "theirs": Theirs}[side](folder)
    engine.answer(conversations(2, options.images))
    asked, seconds, busy = conversations(16, options.images), [], []
    for _ in range(options.repeats):
        start, cpu = time.perf_counter(), time.process_time()
        answers = engine.answer(asked)
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - cpu)
    count = sum(map(len, answers))
    median, cpu = statistics.median(seconds), statistics.median(busy)
    figures = {
        "seconds": round(median, 2),
        "cpu_seconds": round(cpu, 2),  # what a machine shared with others leaves as it is
        "busy_threads": round(cpu / median, 2),  # far fewer than `threads`: others took the machine
        "tokens": count,
        "tokens_per_second": round(count / median, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "answers": answers,
    }
    if isinstance(engine, Ours):
        figures["memory_share"] = engine.memory_share(asked, median)
    print(json.dumps(figures))


def run_side(side: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    command += ["--threads", str(options.threads), "--repeats", str(options.repeats), "--images", options.images]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", choices=sorted(IMAGES_PER_PROMPT), default="step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--note", default="")
    parser.add_argument("--side", choices=["ours", "theirs"], help="measure one side in this process and print it")
    parser.add_argument("--folder", type=Path, help="with --side: the model")
    options = parser.parse_args()
    if options.side:
        return measure(options.side, options.folder, options)
    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name) / "model")
        ours, theirs = (run_side(side, Path(name) / "model", options) for side in ("ours", "theirs"))
    assert ours["tokens"] == theirs["tokens"], "both sides do the same work"
    same = [mine == other for mine, other in zip(ours.pop("answers"), theirs.pop("answers"), strict=True)]
    row = {
        "benchmark": "generate",
        "prompts": 16,
        "mix": options.images,
        "images": sum(IMAGES_PER_PROMPT[options.images]),
        "threads": options.threads,
        "ours": ours,
        "theirs": theirs,
        "equal_answers": sum(same),
        "speedup": clock_ratio(ours, theirs),
        "cpu_speedup": round(theirs["cpu_seconds"] / ours["cpu_seconds"], 2),
        "memory": round(ours["peak_gib"] / theirs["peak_gib"], 3),
    }
    row |= conditions(options.note)
    print(json.dumps(row, indent=1))
    with (Path(__file__).parent / "results" / "generate.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
