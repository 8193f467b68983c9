"""One picture and a question to a model of SmolVLM-256M's sizes: lorgnette beside transformers, in turn.

    python benchmarks/smolvlm.py [--tiles 0|2] [--tokens 32] [--threads 2] [--repeats 5] [--note "..."]

Weights are random, in float32, the same on both sides from the same files. Both start from a picture and messages
and end with text, greedily, in one process, each repeat one after the other, so that what else runs on the machine
strikes both alike. `--tiles 0` shows the whole picture in one crop of 512 pixels; `--tiles 2` two tiles and the whole.
A row goes to `benchmarks/results/smolvlm.jsonl`: medians of the time to the first token (image processing and encoding
included), of a token after it, and of the whole answer.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from generate import picture, words
from model_step import conditions

from lorgnette.hub.export import export
from lorgnette.hub.load import load
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.config import VLMConfig
from lorgnette.model.configs.connector_config import PixelShuffleConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.configs.vision_config import VisionConfig
from lorgnette.model.vlm import VLM
from lorgnette.sample import Sample

ROWS = 49_280
"""Rows of SmolVLM-256M's embedding."""


def write_model(folder: Path, tiles: int) -> None:
    """A model of SmolVLM-256M's sizes with random weights, as a folder that both sides open."""
    tokenizer = train_tokenizer([words(5_000, seed=-1)], vocabulary=2_000)
    language = LanguageConfig.parse({"preset": "smollm2-135m", "vocabulary": ROWS, "tied_embeddings": False})
    config = VLMConfig(
        vision=VisionConfig.parse({"preset": "siglip-base-16-224", "grid": 32}),
        connector=PixelShuffleConfig(side=4),
        language=language,
        extra_vocabulary=0,
        image_token=tokenizer.id("<image>"),
    )
    sides = {"shortest": 512, "longest": 512 * max(tiles, 1), "patch": 16, "grid": 32}
    images = ImageConfig(**sides, policy="tiles", split=tiles > 0, resample="lanczos")
    processor = Processor(tokenizer, images, config.slots)
    export(VLM(config).initialise(0), processor, folder, format="idefics3")


class Ours:
    def __init__(self, folder: Path) -> None:
        self.pair = load(folder)

    def answer(self, messages: list[dict[str, Any]], tokens: int) -> tuple[int, ...]:
        settings = GenerationConfig(max_tokens=tokens)
        return generate(*self.pair, [Sample.from_messages(messages)], settings)[0].tokens


class Theirs:
    def __init__(self, folder: Path) -> None:
        import transformers

        self.model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.processor = transformers.AutoProcessor.from_pretrained(folder)

    @torch.no_grad()
    def answer(self, messages: list[dict[str, Any]], tokens: int) -> tuple[int, ...]:
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        images = [part["image"] for part in messages[0]["content"] if part["type"] == "image"]
        inputs = self.processor(text=[text], images=[images], return_tensors="pt")
        found = self.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        new = found[:, inputs["input_ids"].shape[1] :]
        self.processor.batch_decode(new, skip_special_tokens=True)
        return tuple(new[0].tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, choices=[0, 2], default=2)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shown: PIL.Image.Image = picture(random.Random(0), (1200, 600))
    question = {"type": "text", "text": words(24, seed=1)}
    messages = [{"role": "user", "content": [{"type": "image", "image": shown}, question]}]
    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name) / "model", options.tiles)
        sides: dict[str, Any] = {"ours": Ours(Path(name) / "model"), "theirs": Theirs(Path(name) / "model")}
        answers = {side: engine.answer(messages, options.tokens) for side, engine in sides.items()}  # not timed
        spent: dict[str, list[tuple[float, float, float]]] = {side: [] for side in sides}
        for _ in range(options.repeats):
            for side, engine in sides.items():
                first, whole = (_timed(engine, messages, tokens) for tokens in (1, options.tokens))
                spent[side].append((first[0], whole[0], first[1] + whole[1]))
    figures = {side: _figures(times, options.tokens) for side, times in spent.items()}
    ours, theirs = figures["ours"], figures["theirs"]
    row = {
        "benchmark": "smolvlm",
        "parameters": "256M",
        "crops": 3 if options.tiles else 1,
        "tokens": options.tokens,
        "threads": options.threads,
        **figures,
        "equal_answers": answers["ours"] == answers["theirs"],
        "speedup": {key: round(theirs[key] / ours[key], 2) for key in ours},
    }
    row |= conditions(options.note)
    print(json.dumps(row, indent=1))
    with (Path(__file__).parent / "results" / "smolvlm.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def _timed(engine: Any, messages: list[dict[str, Any]], tokens: int) -> tuple[float, float]:
    """Seconds on the clock and of the processor for an answer of so many tokens."""
    start, busy = time.perf_counter(), time.process_time()
    engine.answer(messages, tokens)
    return time.perf_counter() - start, time.process_time() - busy


def _figures(times: list[tuple[float, float, float]], tokens: int) -> dict[str, float]:
    first, whole, busy = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "first_token_seconds": round(first, 3),
        "later_token_ms": round(1000 * (whole - first) / (tokens - 1), 2),
        "answer_seconds": round(whole, 3),
        "cpu_seconds": round(busy, 2),
    }


if __name__ == "__main__":
    main()
