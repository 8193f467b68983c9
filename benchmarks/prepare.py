"""Speed and memory of preparing a source: rows of instructions about JPEGs, in The Cauldron's format.

    python benchmarks/prepare.py [--rows 100000] [--note "..."]

Rows are written to a temporary folder, in shards of 10,000 and row groups of 100; the JPEGs are photograph-like, of six
sizes from 320 to 1,024 pixels, repeated. `prepare` runs in a process of its own, whose memory and that of its workers
is read from /proc every tenth of a second. A row goes to `benchmarks/results/prepare.jsonl`:

    rows_a_second       from start to end, the start of Python and of the workers included
    peak_gib            of the resident memory of the process and its workers together (shared pages counted in each)
    peak_unshared_gib   the same by proportional set size: shared pages counted once
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
from model_step import conditions

from lorgnette.data.builtin.questions import tokenizer_texts
from lorgnette.data.sources.reading import schemas
from lorgnette.inputs.tokenizer import train_tokenizer

SIZES = ((320, 240), (480, 360), (640, 480), (640, 640), (800, 600), (1024, 768))
SHARD_ROWS, GROUP_ROWS = 10_000, 100

PROGRAM = """
import json, sys
from lorgnette.data.config import InstructConfig
from lorgnette.data.prepare import prepare
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import Tokenizer
path, tokenizer = sys.argv[1:]
prepared = prepare(InstructConfig(path=path, merge=False), Processor(Tokenizer.load(tokenizer)))
print(json.dumps({name: prepared.facts[name] for name in ("rows", "kept", "images", "tokens")}))
"""


def jpeg(number: int) -> bytes:
    """Soft shapes with some grain, which compress as photographs do."""
    width, height = SIZES[number % len(SIZES)]
    draw = np.random.default_rng(number)
    small = PIL.Image.fromarray(draw.integers(0, 255, (9, 12, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((width, height), PIL.Image.Resampling.BICUBIC)).astype(np.int16)
    pixels = np.clip(pixels + draw.normal(0, 6, (height, width, 1)), 0, 255).astype(np.uint8)
    sink = io.BytesIO()
    PIL.Image.fromarray(pixels).save(sink, "JPEG", quality=85)
    return sink.getvalue()


def write_rows(folder: Path, rows: int) -> int:
    """Write the source; give the bytes of its images."""
    jpegs = [jpeg(number) for number in range(60)]
    texts = [text for text, _ in zip(tokenizer_texts(), range(997), strict=False)]
    total = 0
    for first in range(0, rows, SHARD_ROWS):
        with pq.ParquetWriter(folder / f"{first:08d}.parquet", schemas.INSTRUCT, use_dictionary=False) as writer:
            for start in range(first, min(rows, first + SHARD_ROWS), GROUP_ROWS):
                group = []
                for number in range(start, min(rows, start + GROUP_ROWS)):
                    content = jpegs[number * 7 % len(jpegs)]
                    total += len(content)
                    turns = [
                        {"user": texts[(number * 3 + n) % len(texts)], "assistant": texts[(number + n) % len(texts)]}
                        for n in range(1 + number % 4)
                    ]
                    group.append({"images": [{"bytes": content}], "texts": turns})
                writer.write_table(pa.Table.from_pylist(group, schema=schemas.INSTRUCT))
    return total


def tree(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def memory(pid: int) -> tuple[int, int]:
    """Resident and proportional bytes of a process and those below it."""
    resident = proportional = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines[1:] if ":" in line}
            resident, proportional = resident + values["Rss"], proportional + values["Pss"]
    return resident, proportional


def measured(rows: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source").mkdir()
        size = write_rows(folder / "source", rows)
        train_tokenizer(tokenizer_texts(), vocabulary=4000).save(folder / "tokenizer")
        command = [sys.executable, "-c", PROGRAM, str(folder / "source"), str(folder / "tokenizer")]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peaks = (0, 0)
        while process.poll() is None:
            peaks = tuple(map(max, peaks, memory(process.pid)))  # type: ignore[assignment]
            time.sleep(0.1)
        seconds = time.perf_counter() - start
        assert process.stdout is not None
        facts = json.loads(process.stdout.read())
    return {
        **facts,
        "image_gib": round(size / 2**30, 2),
        "seconds": round(seconds, 1),
        "rows_a_second": round(rows / seconds),
        "workers": len(os.sched_getaffinity(0)),
        "peak_gib": round(peaks[0] / 2**30, 3),
        "peak_unshared_gib": round(peaks[1] / 2**30, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    row: dict[str, object] = {"benchmark": "prepare", **measured(options.rows), **conditions(options.note)}
    print(json.dumps(row, indent=1))
    with (Path(__file__).parent / "results" / "prepare.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
