"""A prepared source of coloured rectangles, with questions about them, for tests of what is trained on."""

from __future__ import annotations

import io
from pathlib import Path

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from lorgnette.data.config import AugmentConfig, InstructConfig, PackConfig
from lorgnette.data.loader.batches import BatchBuilder
from lorgnette.data.plan.mixture import PlannedSource
from lorgnette.data.plan.pack_plan import PackedPlan
from lorgnette.data.prepare import Prepared, prepare
from lorgnette.data.sources.reading import schemas
from lorgnette.inputs.config import ImageConfig, SpecialTokens
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.configs.connector_config import PerceiverConfig

COLOURS = ("red", "green", "blue", "yellow", "black")
IMAGES = ImageConfig(shortest=16, longest=64, patch=8, grid=8)


def processor() -> Processor:
    texts = ["What colour is it? Answer briefly.", "Describe the image.", "It is a rectangle.", *COLOURS] * 5
    tokenizer = train_tokenizer(texts, vocabulary=320, special=SpecialTokens())
    return Processor(tokenizer, IMAGES, connector=PerceiverConfig(latents=2))


def jpeg(number: int) -> bytes:
    sink = io.BytesIO()
    size = 20 + number * 7 % 50, 20 + number * 11 % 40
    PIL.Image.new("RGB", size, COLOURS[number % len(COLOURS)]).save(sink, "JPEG")
    return sink.getvalue()


def row(number: int) -> dict:
    """A picture with one to four questions; every seventh row is text only."""
    texts = [
        {"user": f"What colour is it, {turn}? Answer briefly.", "assistant": COLOURS[number % 5], "source": "made"}
        for turn in range(1 + number % 4)
    ]
    texts.append({"user": "Describe the image.", "assistant": f"It is rectangle {number}.", "source": "made"})
    images = [] if number % 7 == 3 else [{"bytes": jpeg(number), "path": None}]
    return {"images": images, "texts": texts}


def write(folder: Path, rows: list[dict], name: str = "0.parquet") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schemas.INSTRUCT), folder / name, row_group_size=5)
    return folder


def prepared(folder: Path, rows: int = 40) -> Prepared:
    write(folder, [row(number) for number in range(rows)])
    return prepare(InstructConfig(path=str(folder), most_turns=3), processor(), workers=1)


def spoil(source: Prepared, number: int) -> None:
    """Cut the picture of a row short, behind the back of its index."""
    path = Path(source.index.shards[0])
    rows = pq.read_table(path).to_pylist()
    rows[number]["images"][0]["bytes"] = rows[number]["images"][0]["bytes"][:200]
    write(path.parent, rows, path.name)


def steps_of(source: Prepared, rank: int = 0, world: int = 1, **augment) -> BatchBuilder:
    """Steps of six packs, everything varied that can be."""
    config = AugmentConfig(**({"split": 0.5, "upscale": 0.5, "templates": True} | augment))
    planned = PlannedSource("squares", source.index, 1.0, source.config.most_turns)
    pack, connector = PackConfig(tokens=200, patches=2000, packs_per_step=6), processor().connector
    plan = PackedPlan((planned,), pack, 7, IMAGES, connector, config)
    return BatchBuilder(plan, (source,), processor(), rank=rank, world=world)
