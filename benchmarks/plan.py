"""How full the packs of a plan are, and how fast it is made: on lengths like OBELICS's and like The Cauldron's.

    python benchmarks/plan.py [--records 200000] [--packs 4000] [--note "..."]

Indexes are drawn by lot to have the published statistics: OBELICS has 2.5 images and 816 tokens a document, in paragraphs;
The Cauldron's sets have the images, questions and answer tokens of `SETS`, mixed by their weights. A plan with the packs of
section 4.1 (2,048 tokens) is made on one core, its packs counted from the first, with half of the samples split and half
of the images enlarged. A row for each goes to `benchmarks/results/plan.jsonl`:

    fill                of the token budget, over all packs
    samples_a_second    pieces planned in a second of the process's time, the median of five runs; `records_a_second` too
    resume_seconds      to find the last step again with nothing saved, and `resume_saved_seconds` with the counts saved
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from model_step import conditions

from lorgnette.data.config import AugmentConfig, PackConfig
from lorgnette.data.index import Index
from lorgnette.data.packed import PackedPlan, Planned
from lorgnette.inputs.config import ImageConfig

RUNS = 5
SETS = {  # weight, images, questions, answer tokens: facts of The Cauldron's sets, the largest of each of its categories
    "vqav2": (0.7, 82_772, 443_757, 1_595_929),
    "tallyqa": (0.15, 98_680, 183_986, 738_254),
    "localized_narratives": (0.04, 507_444, 507_444, 21_328_731),
    "rendered_text": (0.04, 999_000, 999_000, 27_207_774),
    "docvqa": (2, 10_189, 39_463, 337_829),
    "textcaps": (1, 21_953, 21_953, 389_658),
    "chart2text": (0.3, 26_985, 30_242, 2_852_827),
    "dvqa": (0.1, 200_000, 2_325_316, 8_346_234),
    "plotqa": (0.015, 157_070, 20_249_479, 8_478_299),
    "tabmwp": (0.25, 22_729, 23_059, 1_948_166),
    "tat_qa": (1.5, 2_199, 13_215, 283_776),
    "clevr_math": (0.2, 70_000, 788_650, 3_184_656),
    "ai2d": (4, 3_099, 9_708, 38_832),
    "nlvr2": (1, 50_426, 86_373, 259_119),
}
QUESTION_TOKENS, ROLE_TOKENS = 18, 8
"""Of a question, and of what marks two turns."""


def index_of(units_E: np.ndarray, tokens_U: np.ndarray, learned_U: np.ndarray, unit_I: np.ndarray, images_E: np.ndarray,
             draw: np.random.Generator) -> Index:
    """An index with images shaped as the web's, in row groups of a hundred records."""
    records, images = len(units_E), len(unit_I)
    side, aspect = draw.lognormal(6.55, 0.4, images), draw.lognormal(0.2, 0.35, images)
    number, whole = np.arange(records, dtype=np.int32), lambda values: np.maximum(1, values).astype(np.int32)
    shapes = whole(side * aspect**0.5), whole(side / aspect**0.5)
    hashes = np.zeros(images, np.uint64)
    return Index(("made",), np.zeros(records, np.int32), number // 100, number % 100, np.full(records, 2, np.int32),
                 units_E.astype(np.int32), images_E.astype(np.int32), whole(tokens_U), learned_U.astype(np.int32),
                 unit_I.astype(np.int32), *shapes, hashes, hashes)  # fmt: skip


def obelics(records: int) -> list[Planned]:
    """Documents of paragraphs, with images in units of their own among them; all text is learned."""
    draw = np.random.default_rng(0)
    length_E = draw.lognormal(np.log(816) - 0.5 * 0.9**2, 0.9, records)
    paragraphs_E = 1 + draw.poisson(length_E / 70)
    images_E = draw.geometric(1 / 2.5, records)
    units_E = paragraphs_E + images_E
    owner_U = np.repeat(np.arange(records), units_E)
    place_U = np.arange(len(owner_U)) - np.repeat(np.cumsum(units_E) - units_E, units_E)
    rank = np.lexsort((draw.random(len(owner_U)), owner_U))  # which units of a record are images is drawn by lot
    is_image_U = np.zeros(len(owner_U), dtype=bool)
    is_image_U[rank] = place_U < images_E[owner_U]
    share_U = np.where(is_image_U, 0, draw.gamma(1.5, 1.0, len(owner_U)))
    tokens_U = np.rint(share_U * (length_E / np.bincount(owner_U, share_U))[owner_U])
    tokens_U = np.where(is_image_U, 0, np.clip(tokens_U, 1, 1500))
    index = index_of(units_E, tokens_U, tokens_U, place_U[is_image_U], images_E, draw)
    object.__setattr__(index, "tokens_U", tokens_U.astype(np.int32))
    return [Planned("obelics-like", index)]


def cauldron(records: int) -> list[Planned]:
    """Sets of questions on images: the images are the head, a question with its answer is a unit."""
    draw = np.random.default_rng(1)
    sets, total = [], sum(images for _, images, _, _ in SETS.values())
    for title, (weight, images, questions, answers) in SETS.items():
        many = max(1000, records * images // total)
        units_E = 1 + draw.poisson(max(0.0, questions / images - 1), many)
        units = int(units_E.sum())
        answer_U = 1 + np.rint(draw.gamma(1.5, answers / questions / 1.5, units))
        question_U = QUESTION_TOKENS * draw.lognormal(0, 0.4, units) + ROLE_TOKENS
        shown_E = np.full(many, 2 if title == "nlvr2" else 1)
        unit_I = np.full(int(shown_E.sum()), -1)
        index = index_of(units_E, answer_U + np.rint(question_U), answer_U, unit_I, shown_E, draw)
        sets.append(Planned(title, index, weight * images, most_units=7))
    return sets


def plan_of(sources: list[Planned]) -> PackedPlan:
    augment = AugmentConfig(split=0.5, upscale=0.5)
    return PackedPlan(tuple(sources), PackConfig(tokens=2048, per_step=8), 0, ImageConfig(), 64, augment)


def planned(plan: PackedPlan, packs: int) -> dict[str, float]:
    """Plan `packs` packs from the first: how full they are, and the process's time."""
    start, samples, records, steps = time.process_time(), 0, set(), packs // plan.pack.per_step
    for step in range(steps):
        refs = plan.step(step)
        samples += len(refs)
        records.update((ref.source, ref.index, ref.epoch) for ref in refs)
    seconds = time.process_time() - start
    return {"samples": samples, "records": len(records), "seconds": seconds}


def measured(name: str, sources: list[Planned], packs: int) -> dict[str, object]:
    """One row's figures."""
    runs = [planned(plan_of(sources), packs) for _ in range(RUNS)]
    seconds = statistics.median(run["seconds"] for run in runs)
    plan = plan_of(sources)
    start = time.process_time()
    plan.step(packs // plan.pack.per_step)
    resumed = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        plan.save_counts(Path(folder, "counts.json"))
        again = plan_of(sources)
        again.load_counts(Path(folder, "counts.json"))
        start = time.process_time()
        again.step(packs // plan.pack.per_step)
        saved = time.process_time() - start
    fills = [plan.fill(window) for window in range(max(1, packs // 128))]
    tokens, made = sum(fill[0] for fill in fills), sum(fill[2] for fill in fills)
    return {
        "lengths": name,
        "packs": packs,
        "fill": round(tokens / made / plan.pack.tokens, 4),
        "samples_a_second": round(runs[0]["samples"] / seconds),
        "records_a_second": round(runs[0]["records"] / seconds),
        "samples_a_pack": round(runs[0]["samples"] / packs, 2),
        "runs_seconds": [round(run["seconds"], 3) for run in runs],
        "resume_seconds": round(resumed, 3),
        "resume_saved_seconds": round(saved, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--packs", type=int, default=4000)
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    for name, make in (("obelics", obelics), ("cauldron", cauldron)):
        figures = measured(name, make(options.records), options.packs)
        row: dict[str, object] = {"benchmark": "plan", **figures, **conditions(options.note)}
        print(json.dumps(row, indent=1))
        with (Path(__file__).parent / "results" / "plan.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
