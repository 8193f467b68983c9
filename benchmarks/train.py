"""Training with adapters on the backbones and the connector in full: lorgnette beside transformers' Idefics2 with PEFT.

    python benchmarks/train.py [--size micro|100m] [--data stage2|instruct|...] [--adapters lora|dora] [--steps 50] ...
    python benchmarks/train.py --memory [--size micro]

A stage of recipes/micro.yaml on its built-in data, as augmented there: images enlarged by chance (stage2), or half of
them split in crops and requests reworded (instruct). Adapters are the stage's own, with its rank and what it unfreezes
beside them, or with `--adapters` of another kind and alone. float32 on the CPU, AdamW (no decay), clipping at 1, no
noise on tokens. Both sides start from the same files, adapters too, and learn the same tokens of the same samples in
the same steps, read from the same image files by one worker ahead of the model; the first losses may differ by 1e-4,
the last by 2 %, and are in the row. Ours is the `Trainer` with its packs. The other is in `train_peer.py`: the samples
of a step as one padded batch, and as micro-batches, which pad less; 8 in the given order are what transformers' Trainer
does by default. `cpu_speedups` has all of them, `least_cpu_speedup` is over the fastest. Each runs in a process of its
own; the sides take turns `repeats` times. Processor seconds are of the process and its worker: on a shared machine,
`cpu_speedup` is the steadier ratio. `matmul_share` is the FLOPs of the steps' mathematics, ours for all sides, in a
processor second, over those of float32 matrix products in the same process.

`--memory` counts the bytes of tensors in a step of both sides, for vocabularies of 4,096 and 131,072 rows.
Rows go to `benchmarks/results/train.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from model_step import clock_ratio, conditions
from rich.console import Console
from step_clock import WARM, StepClock
from torch import Tensor, nn
from train_peer import Peer, find_torchvision, pictures

from lorgnette.cli import SPINS
from lorgnette.data.builtin.questions import tokenizer_texts
from lorgnette.data.loader.batches import BatchBuilder, Drawn
from lorgnette.hub.export import export
from lorgnette.hub.formats.format import IDEFICS2
from lorgnette.hub.weight_map import idefics2_rules
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.templates.template import Special
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.vlm import VLM
from lorgnette.run import Run, find_recipe
from lorgnette.sample import Image
from lorgnette.train.adapters.peft import save_adapters
from lorgnette.train.callbacks import Callback, StepMetrics, TrainerState
from lorgnette.train.data import build_data, stage_processor
from lorgnette.train.loop import Trainer
from lorgnette.train.optim import build_optimiser
from lorgnette.train.planner.memory import TensorBytes
from lorgnette.train.setup import build, resolve
from lorgnette.train.stages import prepare_parts
from lorgnette.train.step import train_step

M100: dict[str, Any] = {
    "vision": {"width": 512, "layers": 9, "heads": 8, "mlp_width": 2048, "grid": 35},
    "connector": {"projection_width": 1536, "latents": 64, "depth": 2, "heads": 8, "head_width": 64, "kv_heads": 2},
    "language": {"family": "llama", "width": 576, "layers": 16, "heads": 9, "kv_heads": 3, "head_width": 64}
    | {"mlp_width": 1536, "vocabulary": 2045, "tied_embeddings": True, "max_positions": 2048},
    "image_token": 2046,
}
"""Idefics2's proportions at 99 million parameters: 29 in the vision encoder, 58 in the decoder, 12 between them."""
IMAGES_M100 = {"shortest": 196, "longest": 490, "patch": 14, "grid": 35}
PACKS = {
    "tiny": {"tokens": 512, "patches": 1024, "packs_per_step": 1},
    "micro": {"tokens": 1024, "patches": 2048, "packs_per_step": 4},
    "100m": {"tokens": 1024, "patches": 8192, "packs_per_step": 4},
}
WAYS = {
    "tiny": ("all", "4"),
    "micro": ("all", "8", "4", "8 by length"),
    "100m": ("2", "2 by length"),
}
"""Batchings that the other side is measured with: a step in one batch, or micro-batches of so many.
At 100m eight do not fit in 24 GiB, nor do four of the instruction stage; of stage 2, four do (`--ways 4`)."""
ADAPTERS = ("lora", "dora")
VOCABULARIES = (4096, 131072)


def settings(size: str, data: str, adapters: str | None = None) -> Run:
    """The model of a size, and one stage on it, with the data and augmentation of that stage of the recipe."""
    values = Run.load(find_recipe("micro"), ["images.keep_aspect=false"]).plain()  # which is not known elsewhere
    if size == "100m":
        values |= {"init": {}, "model": M100, "images": IMAGES_M100}
    [stage] = [one for one in values["stages"] if one["name"] == data]
    stage |= {"pack": PACKS[size], "optimiser": "adamw", "lr": 1e-4, "schedule": "constant", "warmup": 0}
    stage |= {"betas": (0.9, 0.999), "weight_decay": 0.0}
    kind = adapters or (stage["language"]["mode"] if stage["language"]["mode"] in ADAPTERS else "lora")
    stage |= {"vision": {"mode": kind}, "language": {"mode": kind}, "neftune": 0.0}
    stage["lora"] = stage["lora"] | {"dropout": 0.0, "keep": False} | ({"unfreeze": []} if adapters else {})
    if size == "tiny":  # of splits that are soon prepared
        stage["sources"] = [one | {"path": one["path"].replace("train", "validation")} for one in stage["sources"]]
    return Run.parse(values | {"stages": [stage]}, size)


def write_model(folder: Path, options: argparse.Namespace, vocabulary: int | None = None) -> None:
    """Weights and adapters, as folders that both sides open: the shipped backbones or, at 100m, random ones.

    vocabulary: rows of the token table, where there shall be more than the tokenizer has.
    """
    run = settings(options.size, options.data, options.adapters)
    if options.size == "100m":
        tokenizer = train_tokenizer(list(tokenizer_texts()), vocabulary=run.model.vocabulary)
        model, processor = VLM(run.model), Processor(tokenizer, run.images, run.model.connector)
    else:
        model, processor = build(run)
    if vocabulary is not None:
        rows = vocabulary - run.model.extra_vocabulary
        model = VLM(run.model.override(f"language.vocabulary={rows}"))
    export(model, processor, folder / "model")
    prepare_parts(model, run.stages[0], seed=run.seed)
    save_adapters(model, run.stages[0], folder / "adapters", IDEFICS2)
    parameters = {name.replace(".base_layer", ""): one for name, one in model.named_parameters()}
    beside = [rule.theirs for rule in idefics2_rules(run.model) if parameters[rule.ours[0]].requires_grad]
    (folder / "trained.json").write_text(json.dumps(beside))


def our_run(folder: Path, options: argparse.Namespace) -> Run:
    """The run of our side, which starts from the folder's model."""
    run = settings(options.size, options.data, options.adapters)
    stage = run.stages[0].plain() | {"steps": all_steps(options)}
    values = {"name": options.size, "threads": options.threads, "stages": [stage]}
    return resolve(Run.parse(values | {"init": {"model": str(folder / "model")}}, options.size))


def all_steps(options: argparse.Namespace) -> int:
    """Warm steps, counted ones, and one more, so that the worker has work to the end of what is counted."""
    return WARM + int(options.steps) + 1


def write_samples(folder: Path, run: Run) -> None:
    """The samples of each step as they are shown: what the other side reads.

    Each crop of an image is a picture of its own there. Files are decoded and sized by both sides, to the same pixels.
    """
    processor = stage_processor(build(run)[1], run, run.stages[0])
    steps = build_data(run, 0, processor)
    assert isinstance(steps, BatchBuilder)
    made = []
    for step in range(run.steps):
        drawn = [steps.read(ref) for part in range(steps.parts) for ref in steps.refs(step, part)]
        made.append(
            [
                {
                    "text": rendered_prompt(one, processor),
                    "images": pictures(one, steps),
                    "tokens": one.rendered.tokens_T,
                    "learn": one.rendered.loss_mask_T,
                }
                for one in drawn
            ]
        )
    (folder / "samples.pickle").write_bytes(pickle.dumps(made))


def rendered_prompt(drawn: Drawn, processor: Processor) -> str:
    """A sample as transformers' processor takes it: `<image>` for each crop. It writes the first special token."""
    sample, ending = drawn.sample, processor.tokenizer.named_tokens.get("eos_token", "")
    pieces: Sequence[Any] = sample.segments
    if sample.is_chat:
        pieces, ending = processor.template.pieces(sample), ""
    crops = "<image>" * (len(drawn.rendered.images) // max(len(sample.images), 1))
    texts = [crops if isinstance(one, Image) else one.token if isinstance(one, Special) else one.text for one in pieces]
    return "".join(texts) + ending


def measure(side: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one side: `ours`, or a way of the other."""
    torch.set_num_threads(options.threads)
    run = our_run(folder, options)
    if options.memory:
        return our_bytes(run) if side == "ours" else their_bytes(Peer(folder, side, run.stages[0].lr))
    clock = StepClock()
    if side == "ours":

        class Tick(Callback):
            def on_step_end(self, run: Run, state: TrainerState, metrics: StepMetrics) -> None:
                clock.tick(metrics.loss, metrics.supervised_tokens, metrics.waited, metrics.flops)

        with tempfile.TemporaryDirectory() as name:
            Trainer(run, Path(name), Console(quiet=True), callbacks=[Tick()]).train()
        return clock.figures(options.steps)
    peer, start = Peer(folder, side, run.stages[0].lr), time.perf_counter()
    for batches in peer.batches():
        waited = time.perf_counter() - start
        clock.tick(*peer.step(batches), waited)
        start = time.perf_counter()
    return clock.figures(options.steps) | {"processor": peer.backend}


def our_bytes(run: Run) -> dict[str, int]:
    """Bytes of tensors in a step of ours."""
    model, processor = build(run)
    stage = run.stages[0]
    prepare_parts(model.train(), stage, seed=run.seed)
    optimiser = build_optimiser(model, stage)
    batches = build_data(run, 0, stage_processor(processor, run, stage)).batches(0)
    return counted(model, optimiser, lambda: train_step(model, batches, optimiser, stage.max_grad_norm))


def their_bytes(peer: Peer) -> dict[str, int]:
    """Bytes of tensors in a step of the other side."""
    batches = peer.collate(peer.samples[0])
    return counted(peer.model, peer.optimiser, lambda: peer.step(batches))


def counted(model: nn.Module, optimiser: torch.optim.Optimizer, step: Callable[[], object]) -> dict[str, int]:
    """Bytes of what stays, and the most of what comes and goes in a step: activations, logits and the like."""
    step()  # from here on the optimiser has its moments
    state = [value for entry in optimiser.state.values() for value in entry.values() if torch.is_tensor(value)]
    optimiser.zero_grad(set_to_none=True)
    counter = TensorBytes(0)
    counter.know([*model.parameters(), *state])
    with counter:
        step()
    gradients = sum(size(one) for one in model.parameters() if one.requires_grad)
    return {
        "parameters": sum(map(size, model.parameters())),
        "gradients": gradients,
        "optimiser": sum(map(size, state)),
        "activations": counter.peak - gradients,
    }


def size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def run_side(side: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one side, measured in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder), "--size", options.size]
    command += ["--threads", str(options.threads), "--steps", str(options.steps), "--data", options.data]
    command += ["--adapters", options.adapters] if options.adapters else []
    command += ["--memory"] if options.memory else []
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    environment["GOMP_SPINCOUNT"] = SPINS  # as the command line has it, for both sides
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side}: exit status {done.returncode} (-9: killed, as where memory ends)\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """The row of throughput: both sides, and how they relate."""
    ways = options.ways or WAYS[options.size]
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in ("ours", *ways)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder, options)
        write_samples(folder, our_run(folder, options))
        for _ in range(options.repeats):
            for side, done in runs.items():
                done.append(run_side(side, folder, options))
    found = {side: middle(done) for side, done in runs.items()}
    work = found["ours"]["gflops"]  # the same for all sides: the step's mathematics on real pixels and tokens
    for figures in found.values():
        figures["matmul_share"] = round(work / figures["cpu_seconds"] / figures["matmul_gflops_per_second"], 3)
    ours = found.pop("ours")
    theirs = found[ways[0]]
    assert all(other["supervised_tokens"] == ours["supervised_tokens"] for other in found.values()), "equal tokens"
    gap = max(abs(other["losses"][0] - ours["losses"][0]) for other in found.values())
    assert gap < 1e-4, f"the same work: the losses of the first step differ by {gap}"
    last = max(abs(other["losses"][1] / ours["losses"][1] - 1) for other in found.values())
    assert last < 0.02, f"the same steps: the losses of the last differ by {last:.1%}"
    speedups = {way: round(other["cpu_seconds"] / ours["cpu_seconds"], 2) for way, other in found.items()}
    return {
        "ours": ours,
        "theirs": {"way": ways[0], **theirs},
        "supervised_tokens_per_cpu_second": {
            way: other["supervised_tokens_per_cpu_second"] for way, other in found.items()
        },
        "cpu_speedups": speedups,
        "least_cpu_speedup": min(speedups.values()),
        "first_loss_gap": gap,
        "speedup": clock_ratio(ours, theirs),
        "cpu_speedup": speedups[ways[0]],
        "memory": round(ours["peak_gib"] / theirs["peak_gib"], 3),
    }


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run in the middle by processor seconds."""
    return sorted(runs, key=lambda run: run["cpu_seconds"])[(len(runs) - 1) // 2]


def compare_memory(options: argparse.Namespace) -> dict[str, Any]:
    """The row of memory: bytes by kind, for each size of the vocabulary, on both sides."""
    way = WAYS[options.size][1]
    sides: dict[str, dict[int, dict[str, int]]] = {"ours": {}, way: {}}
    for rows in VOCABULARIES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_model(folder, options, rows)
            write_samples(folder, our_run(folder, options))
            for side, found in sides.items():
                found[rows] = run_side(side, folder, options)
    growth = {
        side: round(found[VOCABULARIES[-1]]["activations"] / found[VOCABULARIES[0]]["activations"], 3)
        for side, found in sides.items()
    }
    return {"bytes": sides, "activations_growth": growth}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--size", choices=sorted(PACKS), default="micro")
    made.add_argument("--data", choices=["stage1", "stage2", "instruct", "chat"], default="stage2")
    made.add_argument("--adapters", choices=ADAPTERS, help="if not those of the stage")
    made.add_argument("--memory", action="store_true", help="count bytes by the size of the vocabulary")
    made.add_argument("--steps", type=int, default=50)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--repeats", type=int, default=1)
    made.add_argument("--ways", nargs="*", help="of the other side: samples of a micro-batch, or such as '8 by length'")
    made.add_argument("--note", default="")
    made.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    made.add_argument("--side", help="measure this side in this process and print it: ours, or a way of the other")
    made.add_argument("--folder", type=Path, help="with --side: what both sides start from")
    return made


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = parser().parse_args(arguments)
    find_torchvision()
    if options.side:
        figures = measure(options.side, options.folder, options)
        print(json.dumps(figures))
        return figures
    [stage] = settings(options.size, options.data, options.adapters).stages
    row: dict[str, Any] = {
        "benchmark": "train_memory" if options.memory else "train",
        "size": options.size,
        "data": options.data,
        "adapters": stage.language.mode,
        "rank": stage.lora.rank,
    }
    row |= {"threads": options.threads, "repeats": options.repeats, "steps": options.steps}
    row |= compare_memory(options) if options.memory else compare(options)
    return keep(row, options)


def keep(row: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Tell and store a row with its conditions."""
    row |= conditions(options.note)
    print(json.dumps(row, indent=1))
    with (options.results / "train.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    return row


if __name__ == "__main__":
    main()
