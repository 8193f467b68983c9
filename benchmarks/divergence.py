"""Does training the backbones in full diverge, where adapters do not (paper, section 3.3)? Tried at micro size.

    python benchmarks/divergence.py [--seeds 0 1] [--lrs 1e-4 1e-3 1e-2] [--steps 150] [--note "..."]
    python benchmarks/divergence.py --judge     # ask today's monitor again about the losses in the rows
    python benchmarks/divergence.py --draw      # docs/images/divergence-shipped.png; needs matplotlib

Stage 1 of `recipes/micro.yaml`: the two shipped backbones, which were trained apart and have never met, a new connector
of each seed, and the stage's data. A cell trains the connector beside backbones that are frozen, adapted (with the
rank of the recipe) or trained in full, by AdamW. The divergence monitor watches and only reports. A row for each cell
goes to `benchmarks/results/divergence.jsonl`; cells that stand there are not trained again. Rows without `backbones`
are of backbones that had been trained together before, in an older architecture of the recipe.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import time
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

import PIL.Image
import torch
from rich.console import Console

from lorgnette.files import write_text
from lorgnette.run import DivergenceConfig, Run, find_recipe
from lorgnette.train.divergence import DivergenceMonitor, Finding
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer
from lorgnette.train.step import NotFiniteError
from lorgnette.version import commit

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "divergence.jsonl"
MODES = ("frozen", "lora", "full")
WARMUP = 10
WINDOW = 20
LAST = 10
"""Steps whose mean is the final loss."""


def cell_run(mode: str, lr: float, seed: int, steps: int) -> Run:
    """One cell: the first stage of the micro recipe alone, with the backbones in one mode."""
    run = Run.load(find_recipe("micro"))
    stage = run.plain()["stages"][0]
    stage |= {"lora": stage["lora"] | {"keep": False}, "optimiser": "adamw"}
    run = Run.parse(run.plain() | {"stages": [stage], "threads": torch.get_num_threads()})
    return run.override(
        f"name={mode}-{lr:g}-{seed}",
        f"seed={seed}",
        f"stages.0.steps={steps}",
        f"stages.0.warmup={WARMUP}",
        f"stages.0.lr={lr}",
        "stages.0.pack.packs_per_step=2",
        f"stages.0.vision.mode={mode}",
        f"stages.0.language.mode={mode}",
        f"divergence.window={WINDOW}",
        "loader.workers=0",
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of the cells that have been trained; none where there is no file yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def train_cell(run: Run, folder: Path) -> dict[str, Any]:
    """Train one cell. Returns what is told of it."""
    shutil.rmtree(folder, ignore_errors=True)
    before = time.process_time()
    broken = ""
    try:
        Trainer(run, folder, Console(quiet=True)).train()
    except NotFiniteError as error:
        broken = str(error)
    rows = read_log(folder / "log.jsonl")
    shutil.rmtree(folder)
    losses, norms = ([row[key] for row in rows] for key in ("loss", "grad_norm"))
    found = findings(losses, norms)
    spikes = [said for said, finding in found.items() if finding.since is None]
    smooth = [fmean(losses[max(0, end - LAST) : end]) for end in range(LAST, len(losses) + 1)]
    return {
        "finished_steps": len(rows),
        "not_finite": broken,
        "spikes": len(spikes),
        "first_spike": next(iter(spikes), ""),
        "rise": rise(losses),
        "first_loss": losses[0],
        "final_loss": smooth[-1] if smooth else losses[-1],
        "least_loss": min(smooth, default=losses[-1]),
        "grad_norm_median": median(norms),
        "grad_norm_largest": max(norms),
        "losses": [round(loss, 4) for loss in losses],
        "cpu_seconds": round(time.process_time() - before, 1),
    }


def findings(losses: list[float], norms: list[float]) -> dict[str, Finding]:
    """The monitor's findings about a cell: each message with the step that it was reported at."""
    guard = DivergenceMonitor(DivergenceConfig(window=WINDOW), WARMUP)
    found = (guard.see(step, *pair) for step, pair in enumerate(zip(losses, norms, strict=True)))
    return {f"step {step}: {one.said}": one for step, one in enumerate(found, 1) if one}


def rise(losses: list[float]) -> str:
    """The first slow rise that the monitor names; empty where there is none. It looks at losses alone."""
    found = findings(losses, [0.0] * len(losses))
    return next((said for said, finding in found.items() if finding.since is not None), "")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lrs", type=float, nargs="+", default=[1e-4, 1e-3, 3e-3, 1e-2, 3e-2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=150, help="of each cell")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/divergence"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--note", default="")
    parser.add_argument("--override", nargs="*", default=[], help="settings of all runs to change; use other --results")
    parser.add_argument("--draw", action="store_true", help="draw what stands in the results, and train nothing")
    parser.add_argument("--judge", action="store_true", help="write again which cells rise, and train nothing")
    options = parser.parse_args(arguments)
    if options.judge:
        rows = [row | {"rise": rise(row["losses"])} for row in read_rows(options.results)]
        print(*(f"{row['cell']} {row['rise'] or 'no rise'}" for row in rows), sep="\n")
        return write_text(options.results, "".join(json.dumps(row) + "\n" for row in rows))
    if options.draw:
        return draw(read_rows(options.results), ROOT / "docs" / "images" / "divergence-shipped.png")
    torch.set_num_threads(options.threads)
    done = {json.dumps(row["cell"]) for row in read_rows(options.results)}
    for seed, lr, mode in product(options.seeds, options.lrs, MODES):
        cell = {"mode": mode, "lr": lr, "seed": seed, "steps": options.steps, "backbones": "shipped"}
        if json.dumps(cell) in done:
            continue
        run = cell_run(mode, lr, seed, options.steps).override(*options.override)
        found = train_cell(run, options.folder / "cell")
        row = {"benchmark": "divergence", "cell": cell, **found, **conditions(options.note)}
        print({**cell, **{key: row[key] for key in ("final_loss", "spikes", "grad_norm_largest", "cpu_seconds")}})
        with options.results.open("a") as file:
            file.write(json.dumps(row) + "\n")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """The loss of every cell: a panel for each learning rate, a colour for each mode, a line for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row["cell"].get("backbones")]
    lrs = sorted({row["cell"]["lr"] for row in rows})
    figure, panels = plt.subplots(1, len(lrs), figsize=(3.2 * len(lrs), 3.4), sharey=True, squeeze=False)
    for panel, lr in zip(panels[0], lrs, strict=True):
        for mode, colour in zip(MODES, ("tab:gray", "tab:blue", "tab:red"), strict=True):
            cells = [row for row in rows if (row["cell"]["lr"], row["cell"]["mode"]) == (lr, mode)]
            for number, row in enumerate(cells):
                label = f"{mode}, to {fmean(one['final_loss'] for one in cells):.2f}"
                panel.plot(row["losses"], color=colour, linewidth=1, label="" if number else label)
        panel.set_title(f"learning rate {lr:g}", fontsize=10)
        panel.set_xlabel("step")
        panel.legend(fontsize=8, frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("loss")
    panels[0][0].set_yscale("log")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    PIL.Image.open(path).convert("RGB").quantize(32).save(path, optimize=True)


def conditions(note: str) -> dict[str, object]:
    """Conditions of the measurement, recorded with every figure."""
    return {
        "device": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "commit": commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "note": note,
    }


if __name__ == "__main__":
    main()
