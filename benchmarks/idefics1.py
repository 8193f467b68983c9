"""Generating 64 tokens after four images with an Idefics1: lorgnette beside transformers' Idefics.

    python benchmarks/idefics1.py [--threads 1] [--repeats 3] [--note "..."]

The model has Idefics1's proportions scaled down (decoder 768 x 8 with a block for every second layer, CLIP tower of 224
pixels 1024 x 3, perceiver 64 latents x 2 layers), random weights and open gates, in float32 on the CPU. Both sides have
the same weights from the same files, the same token ids and the same pictures, and run in turn in one process, so that
what else the machine does falls on both. `decode` is the time of 64 tokens less that of one: transformers projects the
latents of all images again for every token, and lorgnette keeps the keys and values of the one that is seen.
`kept_bytes` are what stays for the next token: keys and values of the text, and of images (ours) or latents (theirs);
`made_bytes` are keys and values of images that every token computes again. A row goes to
`benchmarks/results/idefics1.jsonl`. On a machine shared with other work, processor time is the steadier figure.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from generate import picture, words
from model_step import conditions

from lorgnette.hub.export import export
from lorgnette.hub.formats.idefics1_parity import their_idefics1_features
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.config import ImageConfig, SpecialTokens
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.config import VLMConfig
from lorgnette.model.kv_cache import KVCache
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, Sample, Text, Turn

TOKENS, ROWS = 64, 4000
CONFIG: dict[str, Any] = {
    "preset": "idefics1",
    "vision": {"width": 1024, "layers": 3, "mlp_width": 4096},
    "connector": {"depth": 2},
    "language": {"width": 768, "layers": 8, "heads": 12, "kv_heads": 12, "head_width": 64, "mlp_width": 2048}
    | {"vocabulary": ROWS - 3},
    "fusion": {"kind": "cross_attention", "every": 2, "kv_heads": 12, "gate_init": 0.5},
    "extra_vocabulary": 3,
}
Side = Callable[[int], tuple[int, ...]]
"""From a number of tokens to an answer of as many."""


def asked(images: int) -> Sample:
    draw = random.Random(0)
    pictures = [Image(picture(draw, (320, 240))) for _ in range(images)]
    return Sample((Turn("user"), *pictures, Text(words(24, seed=1))))


def pair() -> tuple[VLM, Processor]:
    special = SpecialTokens(space_after_image=False)
    tokenizer = train_tokenizer([words(20_000, seed=-1)], vocabulary=ROWS, special=special)
    config = VLMConfig.parse(CONFIG | {"image_token": tokenizer.id("<image>")})
    images = ImageConfig(policy="square", shortest=224, longest=224, grid=16, resample="bicubic")
    pixels = {"mean": config.vision.mean, "std": config.vision.std}
    return VLM(config).initialise(0).eval(), Processor(tokenizer, images, config.slots, **pixels)


def ours(model: VLM, processor: Processor, sample: Sample) -> tuple[Side, dict[str, int]]:
    def answer(tokens: int) -> tuple[int, ...]:
        return generate(model, processor, [sample], GenerationConfig(max_tokens=tokens))[0].tokens

    batch, cache = processor.prompts([sample]), KVCache(model.config, reserve=0)
    with torch.no_grad():
        model(batch, output="last", cache=cache)
    text = sum(table.nbytes for table in (*cache.keys, *cache.values))
    images = sum(one.k_SGN.nbytes + one.v_SGN.nbytes for one in cache.images.values())
    return answer, {"kept_bytes": text + images, "kept_for_images": images, "made_bytes": 0}


def theirs(folder: Path, model: VLM, processor: Processor, sample: Sample) -> tuple[Side, dict[str, int]]:
    sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]  # not needed, and slow or broken to import
    import transformers
    from transformers.models.idefics.processing_idefics import (
        image_attention_mask_for_packed_input_ids,
        incremental_to_binary_attention_mask,
    )

    oracle = transformers.IdeficsForVisionText2Text.from_pretrained(folder).eval()
    words_of = transformers.AutoTokenizer.from_pretrained(folder)
    pixels = transformers.IdeficsImageProcessorPil.from_pretrained(folder)
    ids = processor.prompts([sample]).tokens_T[None]
    seen, _ = image_attention_mask_for_packed_input_ids(ids.clone(), words_of, "pt")
    images = len(sample.images)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "image_attention_mask": incremental_to_binary_attention_mask(seen, "pt", num_classes=images),
    }

    @torch.no_grad()
    def answer(tokens: int) -> tuple[int, ...]:
        pictures = pixels([one.source for one in sample.images], return_tensors="pt")[None]
        out = oracle.generate(**inputs, pixel_values=pictures, max_new_tokens=tokens, do_sample=False)
        return tuple(out[0, ids.shape[1] :].tolist())

    with torch.no_grad():
        pictures = pixels([one.source for one in sample.images], return_tensors="pt")[None]
        first = oracle(**inputs, pixel_values=pictures, use_cache=True)
        _, latents = their_idefics1_features(oracle, pictures[0])
    text = sum(layer.keys.nbytes + layer.values.nbytes for layer in first.past_key_values.layers)
    made = len(oracle.model.gated_cross_attn_layers) * 2 * latents[..., 0].numel() * model.config.language.width * 4
    return answer, {"kept_bytes": text + latents.nbytes, "kept_for_images": latents.nbytes, "made_bytes": made}


def timed(side: Side, tokens: int) -> tuple[float, float, tuple[int, ...]]:
    seconds, cpu = time.perf_counter(), time.process_time()
    answer = side(tokens)
    return time.perf_counter() - seconds, time.process_time() - cpu, answer


def measure(sides: dict[str, Side], repeats: int) -> dict[str, Any]:
    """Both sides in turn; the first round is for warmth."""
    taken: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in sides}
    answers: dict[str, tuple[int, ...]] = {}
    for repeat in range(repeats + 1):
        for name, side in sides.items():
            one, one_cpu, _ = timed(side, 1)
            whole, whole_cpu, answers[name] = timed(side, TOKENS)
            if repeat:
                taken[name].append((whole, whole_cpu, whole - one, whole_cpu - one_cpu))
    figures: dict[str, Any] = {"equal_tokens": sum(a == b for a, b in zip(*answers.values(), strict=True))}
    for name, runs in taken.items():
        columns = ("seconds", "cpu_seconds", "decode_seconds", "decode_cpu_seconds")
        medians = map(statistics.median, zip(*runs, strict=True))
        figures[name] = dict(zip(columns, (round(one, 3) for one in medians), strict=True))
    for column in ("seconds", "cpu_seconds", "decode_seconds", "decode_cpu_seconds"):
        figures[f"{column}_ratio"] = round(figures["theirs"][column] / figures["ours"][column], 2)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    (model, processor), sample = pair(), asked(options.images)
    with tempfile.TemporaryDirectory() as name:
        folder = export(model, processor, Path(name) / "model", format="idefics1")
        (mine, my_memory), (their, their_memory) = (
            ours(model, processor, sample),
            theirs(folder, model, processor, sample),
        )
        figures = measure({"ours": mine, "theirs": their}, options.repeats)
    figures["ours"] |= my_memory
    figures["theirs"] |= their_memory
    figures["kept_ratio"] = round(my_memory["kept_bytes"] / their_memory["kept_bytes"], 3)
    row = {"benchmark": "idefics1", "images": options.images, "threads": options.threads, "tokens": TOKENS}
    row |= {"repeats": options.repeats} | figures | conditions(options.note)
    print(json.dumps(row, indent=1))
    with (Path(__file__).parent / "results" / "idefics1.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
