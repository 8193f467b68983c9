"""Forward and backward over a batch of images of mixed shapes: lorgnette beside transformers' Idefics2.

    python benchmarks/model_step.py [--threads 2] [--repeats 1] [--note "..."]

The model has Idefics2's proportions scaled down (vision 192 x 6, decoder 384 x 6, perceiver 64 latents x 2 layers).
Both sides have the same weights, the same images and texts, float32 on the CPU, and their own default attention. Each
runs in a process of its own, so that its peak memory is its own; a row goes to `benchmarks/results/model_step.jsonl`.
`matmul_share` is the model's FLOPs a second over those of float32 matrix products, measured in the same process, both
of processor time. On a machine shared with other work, `cpu_speedup` (processor seconds) is the steadier ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lorgnette.hub import config_map, weight_map
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import patch_positions, target_size
from lorgnette.model.batch import IGNORE_INDEX, Batch, SequenceLengths
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.flops import ModelCost
from lorgnette.model.vlm import VLM
from lorgnette.version import commit

MODEL = VLMConfig(
    vision=VisionConfig(width=192, layers=6, heads=3, mlp_width=768),
    connector=PerceiverConfig(projection_width=1344, latents=64, depth=2, heads=4, head_width=36, kv_heads=1),
    language=LanguageConfig(
        vocabulary=4000, width=384, layers=6, heads=6, kv_heads=2, head_width=64, mlp_width=1344, max_positions=2048
    ),
    image_token=4001,
)
Step = Callable[[], float]
"""One forward and backward pass; it returns the loss."""
TEXT = 40
"""Tokens of text after each image."""

MATRIX = 1024
"""Rows and columns of the matrices whose product says what the machine can compute."""
COPIED = 2**26
"""Bytes of the copy that says what its memory can deliver: far more than a cache."""


def shapes() -> list[tuple[int, int]]:
    """Width and height of the 14 images as the model sees them: four corner cases, and ten as the web has them."""
    draw = random.Random(0)
    given = [(980, 420), (420, 980), (378, 378), (980, 980)]
    for _ in range(10):
        side, aspect = draw.lognormvariate(6.55, 0.4), draw.lognormvariate(0.2, 0.35)
        given.append((round(side * aspect**0.5), round(side / aspect**0.5)))
    return [target_size(width, height, ImageConfig()) for width, height in given]


def real_share() -> float:
    """Real pixels over those of the batch padded to its largest image."""
    sizes = shapes()
    largest = max(width for width, _ in sizes) * max(height for _, height in sizes)
    return round(sum(width * height for width, height in sizes) / (len(sizes) * largest), 3)


def make_batch(sizes: list[tuple[int, int]]) -> Batch:
    """One document per image: fake token, visual tokens, fake token, text."""
    generator = torch.Generator().manual_seed(0)
    patch, grid, base = MODEL.vision.patch, MODEL.vision.grid, MODEL.language.vocabulary
    slots = [base, *[MODEL.image_token] * MODEL.connector.visual_tokens(1, 1), base]
    grids = [(height // patch, width // patch) for width, height in sizes]
    images = SequenceLengths(tuple(rows * columns for rows, columns in grids))
    words = torch.randint(0, base, (len(sizes), TEXT), generator=generator)
    tokens_BT = torch.cat([torch.tensor(slots).repeat(len(sizes), 1), words], 1)
    targets_BT = torch.cat([tokens_BT[:, 1:], torch.full((len(sizes), 1), IGNORE_INDEX)], 1)
    targets_BT[targets_BT == MODEL.image_token] = IGNORE_INDEX
    count, length = tokens_BT.shape
    return Batch(
        tokens_T=tokens_BT.flatten(),
        targets_T=targets_BT.flatten(),
        positions_T=torch.arange(length).repeat(count),
        documents=SequenceLengths((length,) * count),
        patches_PC=torch.randint(0, 256, (images.total, MODEL.vision.patch_width), generator=generator).byte(),
        patch_positions_P=torch.cat([torch.tensor(patch_positions(*shape, grid, "parity")) for shape in grids]),
        grids=tuple(grids),
        visual_positions_V=(tokens_BT.flatten() == MODEL.image_token).nonzero()[:, 0],
    )


def ours(sizes: list[tuple[int, int]]) -> Step:
    model, batch = VLM(MODEL).initialise(0).train(), make_batch(sizes)

    def step() -> float:
        out = model(batch, output="loss")
        loss = out.loss_sum / out.supervised_tokens
        loss.backward()
        return float(loss.detach())

    return step


def theirs(sizes: list[tuple[int, int]]) -> Step:
    sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]  # not needed, and slow or broken to import
    import transformers

    kind = transformers.Idefics2ForConditionalGeneration
    oracle = kind(transformers.Idefics2Config(**config_map.write_idefics2(MODEL))).train()
    weights = dict(VLM(MODEL).initialise(0).named_parameters())
    oracle.load_state_dict({rule.theirs: rule.to_theirs(weights) for rule in weight_map.idefics2_rules(MODEL)})
    batch = make_batch(sizes)
    inputs = padded(batch, sizes)

    def step() -> float:
        loss = F.cross_entropy(oracle(**inputs).logits.flatten(0, 1), batch.targets_T)
        loss.backward()
        return float(loss.detach())

    return step


def padded(batch: Batch, sizes: list[tuple[int, int]]) -> dict[str, Tensor]:
    """The batch as transformers takes it: every image padded to the largest sides."""
    patch, count = MODEL.vision.patch, len(sizes)
    width, height = max(width for width, _ in sizes), max(height for _, height in sizes)
    pixels = torch.zeros(count, 1, 3, height, width)
    real = torch.zeros(count, 1, height, width, dtype=torch.bool)
    for index, patches in enumerate(batch.patches_PC.split(batch.images.lengths)):
        rows, columns = sizes[index][1] // patch, sizes[index][0] // patch
        high, wide = rows * patch, columns * patch
        pieces = (patches.float() / 255 - 0.5).div(0.5).view(rows, columns, 3, patch, patch)
        pixels[index, 0, :, :high, :wide] = pieces.permute(2, 0, 3, 1, 4).reshape(3, high, wide)
        real[index, 0, :high, :wide] = True
    tokens = batch.tokens_T.view(count, -1)
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "pixel_values": pixels,
        "pixel_attention_mask": real,
    }


def measure(side: str, threads: int, repeats: int) -> None:
    """Print the figures of one side as JSON. A small step first, so that nothing is timed that happens once."""
    torch.set_num_threads(threads)
    prepare = {"ours": ours, "theirs": theirs}[side]
    prepare([(378, 378)])()
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step, loss, seconds, busy = prepare(shapes()), 0.0, [], []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        loss = step()
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rate, batch = matmul_rate(), make_batch(shapes())
    flops = ModelCost(MODEL).step_flops(batch.images, batch.documents, batch.supervised_tokens)
    figures = {
        "seconds": round(min(seconds), 2),
        "cpu_seconds": round(min(busy), 2),  # what a machine shared with others leaves as it is
        "busy_threads": round(min(busy) / min(seconds), 2),  # far fewer than `threads`: others took the machine
        "matmul_gflops": round(rate / 1e9, 1),
        "matmul_share": round(flops / min(busy) / rate, 3),  # the same work for both sides: real pixels alone
        "images_per_second": round(len(shapes()) / min(seconds), 4),
        "peak_gib": round(peak / 2**20, 3),
        "base_gib": round(base / 2**20, 3),  # before the batch: the imports, the model and a small step
        "loss": loss,
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--note", default="")
    parser.add_argument("--side", choices=["ours", "theirs"], help="measure one side in this process and print it")
    options = parser.parse_args()
    if options.side:
        return measure(options.side, options.threads, options.repeats)
    row: dict[str, object] = {
        "benchmark": "model_step",
        "images": len(shapes()),
        "real_pixels": real_share(),
        "threads": options.threads,
    }
    for side in ("ours", "theirs"):
        command = [sys.executable, __file__, "--side", side, "--threads", str(options.threads)]
        command += ["--repeats", str(options.repeats)]
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": str(options.threads)}, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stderr)
        row[side] = json.loads(done.stdout.splitlines()[-1])
    mine, other = row["ours"], row["theirs"]
    assert isinstance(mine, dict)
    assert isinstance(other, dict)
    row["speedup"] = clock_ratio(mine, other)
    row["cpu_speedup"] = round(other["cpu_seconds"] / mine["cpu_seconds"], 2)
    row["memory"] = round(mine["peak_gib"] / other["peak_gib"], 3)
    row |= conditions(options.note)
    print(json.dumps(row, indent=1))
    with (Path(__file__).parent / "results" / "model_step.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def clock_ratio(mine: dict[str, float], other: dict[str, float]) -> float | None:
    """Speed-up in wall-clock time; None if other work left the two sides unequal shares of the machine."""
    shares = [side["cpu_seconds"] / side["seconds"] for side in (mine, other)]
    return round(other["seconds"] / mine["seconds"], 2) if max(shares) <= 1.25 * min(shares) else None


def matmul_rate() -> float:
    """FLOPs of float32 matrix products in a second of the processor's time, on torch's threads."""
    left, right = torch.rand(MATRIX, MATRIX), torch.rand(MATRIX, MATRIX)
    return 2 * MATRIX**3 / _seconds(lambda: torch.mm(left, right))


def memory_rate() -> float:
    """Bytes that are read or written in a second by the clock, in copies: what bounds decoding."""
    source = torch.zeros(COPIED // 4)
    into = torch.empty_like(source)
    return 2 * COPIED / _seconds(lambda: into.copy_(source), time.perf_counter)


def _seconds(work: Callable[[], object], clock: Callable[[], float] = time.process_time, repeats: int = 10) -> float:
    """The fewest seconds of several repeats, after one that warms up."""
    work()
    fewest = float("inf")
    for _ in range(repeats):
        before = clock()
        work()
        fewest = min(fewest, clock() - before)
    return fewest


def conditions(note: str) -> dict[str, object]:
    """Conditions of the measurement, recorded with every figure."""
    import transformers

    return {
        "device": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {cpu_name()}",
        "load": os.getloadavg()[0],
        "commit": commit(),
        "command": " ".join(["python", *sys.argv]),
        "versions": {"python": platform.python_version(), "torch": torch.__version__}
        | {"transformers": transformers.__version__},
        "note": note,
    }


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")


if __name__ == "__main__":
    main()
