"""From JPEGs in a parquet file on disk to a packed batch, one worker on one core: lorgnette beside transformers.

    python benchmarks/loader.py [--records 120] [--rounds 7] [--note "..."]

The records are instructions as The Cauldron has them: a picture, each in a shape as the web has them, and one to five
questions. Ours is what a worker does for each pack of a plan: read rows, decode, size, cut in patches, write as tokens,
check, pack. Theirs is transformers' `Idefics2Processor` with its default settings: the same rows read the same way, the
same conversations written by its chat template, each pack's samples as one padded batch. Both sides take turns. A
figure is the median over the rounds, of this process's processor seconds and of seconds on the clock; a ratio is the
median of the rounds' ratios. A row goes to `benchmarks/results/loader.jsonl`:

    exact, fast     samples a second of ours, by `resize: exact` (the default) and `resize: fast`
    transformers    samples a second of theirs
    sent            milliseconds of a batch's way from a worker to the trainer, and its size
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import pickle
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from model_step import conditions

from lorgnette.data.builtin.questions import tokenizer_texts
from lorgnette.data.config import InstructConfig, PackConfig
from lorgnette.data.loader.batches import BatchBuilder
from lorgnette.data.loader.workers import _received, _sent
from lorgnette.data.plan.mixture import PlannedSource
from lorgnette.data.plan.pack_plan import PackedPlan
from lorgnette.data.prepare import Prepared, prepare
from lorgnette.data.sources.reading import schemas
from lorgnette.inputs.config import ImageConfig, SpecialTokens
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.sample import Image, Sample, Text, Turn

Side = Callable[[int], int]
"""Makes one pack, by its number; returns how many samples are in it."""
QUESTIONS = ("What is the colour of the coat in this picture?", "How many medals can be seen?", "Who is it?",
             "What is in the background of the photograph, and on which side?", "Is this a drawing?")  # fmt: skip
ANSWERS = ("It is dark blue, nearly black.", "Four rows of ribbons.", "An officer of the navy.", "A flag, on the left.",
           "No, it is a photograph that was repeated until the picture was full.")  # fmt: skip


def shapes(count: int) -> list[tuple[int, int]]:
    """Widths and heights, drawn as those of `model_step.py` are."""
    draw = random.Random(0)
    found = []
    for _ in range(count):
        side, aspect = draw.lognormvariate(6.55, 0.4), draw.lognormvariate(0.2, 0.35)
        found.append((round(side * aspect**0.5), round(side / aspect**0.5)))
    return found


OPERATORS: list[torch.library.Library] = []
"""Kept as long as this process lives."""


def backend() -> str:
    """The image backend that transformers chooses on this machine; its import is forced where it is installed."""
    if not importlib.util.find_spec("torchvision"):
        return "pil"
    # torchvision may be built for another torch; its resizing needs none of the operators that are then missing.
    OPERATORS.append(torch.library.Library("torchvision", "DEF"))
    for operator in ("nms", "qnms"):
        OPERATORS[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return "torchvision"


def jpeg(width: int, height: int, seed: int) -> bytes:
    """A picture with shapes of all sizes and some grain, as photographs have: about two bits a pixel."""
    draw = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), dtype=np.float32)
    for cells in (4, 12, 40, 120):
        small = PIL.Image.fromarray(draw.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        picture += (
            np.asarray(small.resize((width, height), PIL.Image.Resampling.BICUBIC), dtype=np.float32) / cells**0.5
        )
    picture *= 255 / picture.max()
    picture += draw.normal(0, 3, picture.shape)
    sink = io.BytesIO()
    PIL.Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(sink, "JPEG", quality=85)
    return sink.getvalue()


def write(folder: Path, records: int) -> None:
    """The records, in row groups of a hundred, as image data sets are written."""
    rows = []
    for number, shape in enumerate(shapes(records)):
        turns = [{"user": QUESTIONS[(number + turn) % 5], "assistant": ANSWERS[(number + turn) % 5], "source": "made"}
                 for turn in range(1 + number % 5)]  # fmt: skip
        rows.append({"images": [{"bytes": jpeg(*shape, number), "path": None}], "texts": turns})
    pq.write_table(pa.Table.from_pylist(rows, schema=schemas.INSTRUCT), folder / "0.parquet", row_group_size=100)


def steps_of(source: Prepared, processor: Processor) -> BatchBuilder:
    planned = PlannedSource("made", source.index, 1.0, 7)
    plan = PackedPlan((planned,), PackConfig(packs_per_step=1), 0, processor.images, processor.connector)
    return BatchBuilder(plan, (source,), processor)


def ours(source: Prepared, processor: Processor) -> Side:
    steps = steps_of(source, processor)
    return lambda pack: sum(len(batch.documents) for batch in steps.part(pack, 0))


def theirs(source: Prepared, processor: Processor, folder: Path) -> Side:
    """transformers' processor on the samples of the same packs."""
    from transformers import AutoProcessor

    processor.save(folder)
    upstream, steps = AutoProcessor.from_pretrained(folder), steps_of(source, processor)

    def make(pack: int) -> int:
        refs = steps.refs(pack, 0)
        samples = [source.record(ref.record).piece(ref.start, ref.end) for ref in refs]
        texts = [upstream.apply_chat_template(messages_of(sample)) for sample in samples]
        images = [[opened(image) for image in sample.images] for sample in samples]
        upstream(text=texts, images=images, padding=True, return_tensors="pt")
        return len(samples)

    return make


def messages_of(sample: Sample) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for segment in sample.segments:
        if isinstance(segment, Turn):
            messages.append({"role": segment.role, "content": []})
        elif isinstance(segment, Text):
            messages[-1]["content"].append({"type": "text", "text": segment.text})
        else:
            messages[-1]["content"].append({"type": "image"})
    return messages


def opened(image: Image) -> Any:
    assert isinstance(image.source, bytes)
    return PIL.Image.open(io.BytesIO(image.source))


def timed(side: Side, packs: int) -> tuple[float, float, int]:
    """Processor seconds, seconds on the clock, and samples of so many packs."""
    clock, processor = time.perf_counter(), time.process_time()
    samples = sum(side(pack) for pack in range(packs))
    return time.process_time() - processor, time.perf_counter() - clock, samples


def sending(source: Prepared, processor: Processor) -> dict[str, float]:
    """Cost of handing a pack over, without the pipe itself."""
    batches = steps_of(source, processor).part(0, 0)
    start = time.process_time()
    content = pickle.dumps(_sent(batches))
    _received(pickle.loads(content))
    return {"ms": round(1e3 * (time.process_time() - start), 2), "MiB": round(len(content) / 2**20, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    theirs_by = backend()
    tokenizer = train_tokenizer(tokenizer_texts(), vocabulary=4000, special=SpecialTokens())
    exact = Processor(tokenizer)
    fast = replace(exact, images=ImageConfig(resize="fast"))
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.records)
        source = prepare(InstructConfig(path=folder), exact, workers=1)
        sides = {"exact": ours(source, exact), "fast": ours(source, fast),
                 "transformers": theirs(source, exact, Path(folder) / "processor")}  # fmt: skip
        packs = max(2, options.records // 15)
        for side in sides.values():
            side(0)
        rounds = [{name: timed(side, packs) for name, side in sides.items()} for _ in range(options.rounds)]
        sent = sending(source, exact)
    samples = rounds[0]["exact"][2]
    row: dict[str, object] = {"benchmark": "loader", "backend": theirs_by, "packs": packs, "samples": samples}
    for which, name in ((0, "processor"), (1, "clock")):
        rates = {side: statistics.median(samples / one[side][which] for one in rounds) for side in sides}
        ratios = {side: statistics.median(one["transformers"][which] / one[side][which] for one in rounds) for side in
                  ("exact", "fast")}  # fmt: skip
        row[f"samples_a_second_{name}"] = {side: round(rate, 1) for side, rate in rates.items()}
        row[f"speedup_{name}"] = {side: round(ratio, 2) for side, ratio in ratios.items()}
    row["sent"] = sent
    row |= conditions(options.note)
    print(json.dumps(row, indent=1))
    with (Path(__file__).parent / "results" / "loader.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
