"""Shared code of the GPU benchmarks: models of two sizes, batches, clocks, a card's peaks, and rows of results."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.model_step import cpu_name, shapes
from lorgnette.inputs.image import patch_positions
from lorgnette.model.batch import IGNORE_INDEX, Batch, SequenceLengths
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.initialise import deviation
from lorgnette.model.vlm import VLM

MODELS = {
    "8b": VLMConfig.parse({"preset": "idefics2"}),
    "tiny": VLMConfig(
        vision=VisionConfig(width=32, layers=2, heads=2, mlp_width=48, patch=4, grid=8),
        connector=PerceiverConfig(projection_width=96, latents=8, depth=2, heads=4, head_width=16, kv_heads=2),
        language=LanguageConfig(
            vocabulary=61, width=64, layers=2, heads=4, kv_heads=2, head_width=16, mlp_width=96, max_positions=256
        ),
        image_token=62,
    ),
}
"""Idefics2 as published (SigLIP-SO400M, perceiver, Mistral-7B), and one for a CPU to run the same code on."""

PEAKS = {"H100": (989e12, 3.35e12), "H200": (989e12, 4.8e12), "A100": (312e12, 2.04e12)}
"""By a part of the card's name: dense bf16 FLOP/s and bytes a second of memory, of the SXM cards' data sheets."""

Shape = tuple[int, int]
"""Rows and columns of patches of an image."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that all of them have."""
    made = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    made.add_argument("--size", choices=MODELS, default="8b")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--peak-tflops", type=float, help="of a card that is not in PEAKS")
    made.add_argument("--peak-gbs", type=float, help="GB/s of a card that is not in PEAKS")
    made.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "results")
    made.add_argument("--note", default="")
    return made


def peaks(options: argparse.Namespace) -> tuple[float | None, float | None]:
    """FLOP/s and bytes a second that the device can reach: as given, else as its name says, else unknown."""
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else ""
    flops, memory = next((both for key, both in PEAKS.items() if key in name), (None, None))
    given = options.peak_tflops, options.peak_gbs
    return given[0] * 1e12 if given[0] else flops, given[1] * 1e9 if given[1] else memory


def share(reached: float, peak: float | None) -> float | None:
    """Of the peak, where it is known."""
    return None if peak is None else float(f"{reached / peak:.3g}")


def random_model(config: VLMConfig, device: str, dtype: torch.dtype) -> VLM:
    """Weights drawn on the device: `initialise` draws on the CPU, which takes minutes at 8B."""
    with torch.device("meta"):
        model = VLM(config).to(dtype)
    model.to_empty(device=device)
    depths = {name: len(list(getattr(part, "layers", ()))) for name, part in model.named_children()}
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "norm.weight")):
                parameter.fill_(float(name.endswith("weight")))
            else:
                std = deviation(name, parameter.shape[-1], depths[name.split(".")[0]])
                parameter.normal_(std=std, generator=generator)
    return model


def image_shapes(size: str, count: int) -> list[Shape]:
    """So many of the 14 images of `model_step.py`, over and over; small ones for the tiny model."""
    patch = MODELS["8b"].vision.patch
    large = [(height // patch, width // patch) for width, height in shapes()]
    some = large if size == "8b" else [(3, 5), (8, 8), (5, 2), (4, 4)]
    return [some[number % len(some)] for number in range(count)]


def make_batch(config: VLMConfig, documents: Sequence[tuple[Sequence[Shape], int]]) -> Batch:
    """A document per pair of images and words: each image between fake tokens, then so many random words."""
    draw, base, grid = random.Random(0), config.language.vocabulary, config.vision.grid
    slots = [base, *[config.image_token] * config.connector.latents, base]
    # no document holds a row of the vocabulary that is an image's by accident
    texts = [slots * len(images) + [draw.randrange(3, base) for _ in range(words)] for images, words in documents]
    flat = [shape for images, _ in documents for shape in images]
    targets = [token for text in texts for token in [*text[1:], IGNORE_INDEX]]
    tokens_T, targets_T = torch.tensor([token for text in texts for token in text]), torch.tensor(targets)
    images = SequenceLengths(tuple(rows * columns for rows, columns in flat))
    generator = torch.Generator().manual_seed(0)
    positions = [torch.tensor(patch_positions(*shape, grid, "parity"), dtype=torch.int64) for shape in flat]
    return Batch(
        tokens_T=tokens_T,
        targets_T=targets_T.where(targets_T < base, IGNORE_INDEX),
        positions_T=torch.cat([torch.arange(len(text)) for text in texts]),
        documents=SequenceLengths(tuple(map(len, texts))),
        patches_PC=torch.randint(0, 256, (images.total, config.vision.patch_width), generator=generator).byte(),
        patch_positions_P=torch.cat([torch.empty(0, dtype=torch.int64), *positions]),
        grids=tuple(flat),
        visual_positions_V=(tokens_T == config.image_token).nonzero()[:, 0],
    )


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def timed(run: Callable[[], object], device: str) -> float:
    """Seconds that a call takes, until the device is done."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def peak_gib(device: str) -> float:
    """The most memory held so far: by torch on the card, by the process on a CPU."""
    if device.startswith("cuda"):
        return round(torch.cuda.max_memory_allocated() / 2**30, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)


def write_row(name: str, figures: dict[str, object], options: argparse.Namespace) -> dict[str, object]:
    """Print a row of results with its conditions, and add it to the file of its benchmark. Returns it."""
    row = {"benchmark": name, "size": options.size} | figures | conditions(options)
    print(json.dumps(row, indent=1))
    with (options.results / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def conditions(options: argparse.Namespace) -> dict[str, object]:
    """Conditions of the measurement, recorded with every figure."""
    on_card = options.device.startswith("cuda")
    installed = {one.metadata["Name"] for one in importlib.metadata.distributions()}
    found = {name: importlib.metadata.version(name) for name in ("transformers", "peft") if name in installed}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "device": torch.cuda.get_device_name() if on_card else f"{platform.machine()}, {cpu_name()}",
        "commit": commit,
        "command": " ".join(["python", *sys.argv]),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
        | found,
        "note": options.note,
    }
