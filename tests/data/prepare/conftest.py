"""Small sources of every kind, and a processor whose tokenizer was trained in a moment."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorgnette.data.sources.reading import schemas
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.configs.connector_config import PerceiverConfig

SENTENCES = ["A red star on a hill.", "Two cats and 12 dogs.", "What is it? It is a boat."]


def picture(seed: int, size: tuple[int, int] = (40, 30), form: str = "PNG") -> bytes:
    """A picture of a few soft blobs: each seed another one."""
    small = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), dtype=np.uint8)
    sink = io.BytesIO()
    PIL.Image.fromarray(small).resize(size, PIL.Image.Resampling.BICUBIC).save(sink, form)
    return sink.getvalue()


def image(seed: int) -> dict:
    return {"bytes": picture(seed), "path": None}


def instruct_row(number: int, questions: int = 2) -> dict:
    texts = [
        {"user": f"What is number {number} {n}?", "assistant": f"It is {n}.", "source": "made"}
        for n in range(questions)
    ]
    return {"images": [image(number)], "texts": texts}


def write_parquet(path: Path, rows: list[dict], schema: pa.Schema, group: int = 5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=group)
    return path


def instruct(folder: Path, rows: int = 12, shards: int = 2) -> Path:
    for shard in range(shards):
        made = [instruct_row(shard * rows + number) for number in range(rows)]
        write_parquet(folder / f"{shard}.parquet", made, schemas.INSTRUCT)
    return folder


def interleaved(folder: Path, rows: int = 12) -> Path:
    made = [
        {
            "images": [image(number), None, image(number + 100), None],
            "texts": [None, SENTENCES[number % 3], None, "And more."],
        }
        for number in range(rows)
    ]
    write_parquet(folder / "0.parquet", made, schemas.INTERLEAVED)
    return folder


def pairs(folder: Path, rows: int = 12) -> Path:
    """A folder of images with texts beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(rows):
        (folder / f"{number:02d}.png").write_bytes(picture(number))
        (folder / f"{number:02d}.txt").write_text(SENTENCES[number % 3])
    return folder


def chat(folder: Path, rows: int = 12) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "chat.jsonl").open("w") as file:
        for number in range(rows):
            turns = [{"role": "user", "content": f"Say {number}."}, {"role": "assistant", "content": f"{number}!"}]
            file.write(json.dumps({"messages": turns * (1 + number % 3)}) + "\n")
    return folder


SOURCES: dict[str, Callable[[Path], Path]] = {
    "instruct": instruct,
    "interleaved": interleaved,
    "pairs": pairs,
    "chat": chat,
}
"""Kind -> what writes a source of it into a folder."""


@pytest.fixture(scope="session")
def processor() -> Processor:
    return Processor(
        train_tokenizer(SENTENCES * 10, vocabulary=400),
        ImageConfig(shortest=28, longest=56, grid=4),
        PerceiverConfig(latents=4),
    )


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder
