"""A training step of Idefics2 at 8B with random weights in bf16: LoRA on both backbones, the connector in full.

    python -m benchmarks.gpu.train_step [--images 14] [--text 256] [--checkpointing vision language] [--trace FILE]

Prints and keeps tokens, images and patches a second, peak memory, and model FLOPs utilisation: the operations that
`lorgnette.model.flops` counts (recomputation not among them) over the card's dense bf16 peak. Once as it is, once
with each layer compiled. All weights and AdamW's moments are bf16. `--trace` writes a profile of one step, for Perfetto
or chrome://tracing. `--size tiny --device cpu` runs the same code in float32 without a card. Needs PEFT.
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.gpu import common
from lorgnette.model.batch import Batch
from lorgnette.model.flops import Mode, ModelCost
from lorgnette.model.vlm import VLM
from lorgnette.run import LoraConfig
from lorgnette.train.adapters.peft import add_adapters
from lorgnette.train.parallel import compile_layers

MODES: dict[str, Mode] = {"vision": "lora", "connector": "full", "language": "lora"}
PARTS = tuple(MODES)
Step = Callable[[], float]


def prepare(options: argparse.Namespace, compiled: bool) -> VLM:
    """The model as a stage of training has it."""
    dtype = torch.bfloat16 if options.device.startswith("cuda") else torch.float32
    model = common.random_model(common.MODELS[options.size], options.device, dtype).train()
    model.requires_grad_(False)
    for part in (name for name, mode in MODES.items() if mode == "lora"):
        add_adapters(getattr(model, part), LoraConfig(rank=options.rank), dora=False, seed=0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name or name.startswith("connector.") or name.endswith(".extra"))
    for part in PARTS:
        getattr(model, part).checkpointed = part in options.checkpointing
    if compiled:
        compile_layers(model)
    return model


def make_step(model: VLM, batch: Batch) -> Step:
    """Forward, backward, and AdamW on what trains. A step returns its loss, for which it waits."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    def step() -> float:
        out = model(batch, output="loss")
        loss = out.loss_sum / out.supervised_tokens
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def trace(step: Step, path: Path) -> None:
    """A profile of one step."""
    with torch.profiler.profile() as profile:  # of all that the machine has: the CPU, and CUDA where it is
        step()
    profile.export_chrome_trace(str(path))


def measure(options: argparse.Namespace, compiled: bool) -> dict[str, object]:
    """The figures of one way to run it; the first steps, which compile and allocate, are not counted."""
    if options.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    config = common.MODELS[options.size]
    documents = [((shape,), options.text) for shape in common.image_shapes(options.size, options.images)]
    batch = common.make_batch(config, documents).to(options.device)
    step = make_step(prepare(options, compiled), batch)
    losses = [step() for _ in range(options.warmup)]
    seconds = [common.timed(lambda: losses.append(step()), options.device) for _ in range(options.steps)]
    if options.trace:
        trace(step, options.trace.with_suffix(f".{'compiled' if compiled else 'eager'}.json"))
    supervised_tokens, middle = batch.supervised_tokens, statistics.median(seconds)
    flops = ModelCost(config).step_flops(batch.images, batch.documents, supervised_tokens, MODES, options.rank)
    return {
        "seconds": round(middle, 5),
        "slowest": round(max(seconds), 5),
        "tokens_per_second": round(batch.documents.total / middle, 1),
        "images_per_second": round(len(batch.images) / middle, 3),
        "patches_per_second": round(batch.images.total / middle, 1),
        "tflop_per_step": float(f"{flops / 1e12:.4g}"),
        "mfu": common.share(flops / middle, common.peaks(options)[0]),
        "peak_gib": common.peak_gib(options.device),
        "losses": [round(loss, 4) for loss in losses],
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, object]:
    parser = common.parser(__doc__)
    parser.add_argument("--images", type=int, default=14, help="each is a document with its text")
    parser.add_argument("--text", type=int, default=256, help="tokens of text after each image")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--checkpointing", nargs="*", choices=PARTS, default=list(PARTS), help="parts to recompute")
    parser.add_argument("--compile", choices=["both", "on", "off"], default="both")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--trace", type=Path, help="write the profile of one step beside this name")
    options = parser.parse_args(arguments)
    figures: dict[str, object] = {
        "images": options.images,
        "text": options.text,
        "rank": options.rank,
        "checkpointing": options.checkpointing,
    }
    for name, compiled in (("eager", False), ("compiled", True)):
        if options.compile in ("both", "on" if compiled else "off"):
            figures[name] = measure(options, compiled)
            gc.collect()  # the model before it has gone when the next is made
    return common.write_row("gpu_train_step", figures, options)


if __name__ == "__main__":
    main()
