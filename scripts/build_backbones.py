"""Make the two shipped backbones: a vision encoder and a language model that have never met.

    python scripts/distil_vision.py ...         # the vision encoder: see there
    python scripts/build_backbones.py texts     # what the language model reads: runs/backbones/texts
    python scripts/build_backbones.py train     # about 10 minutes of one core
    python scripts/build_backbones.py ship      # write lorgnette/hub/shipped

Both learn from the train split of the built-in drawings and texts alone. Training goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from corpus.drawn.scene_rows import SceneSource
from corpus.parts import PARTS
from lorgnette.data.parquet import write_rows
from lorgnette.data.sources.reading import schemas
from lorgnette.hub.backbones import write_language_backbone, write_vision_backbone
from lorgnette.hub.join import VisionBackbone
from lorgnette.hub.load import load
from lorgnette.hub.source import SHIPPED
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.run import Run, find_recipe

FOLDER = Path("runs/backbones")
SCALE = 4
"""Times the rows of the built-in corpus, and another seed."""
SCENES = 12_000


def texts() -> None:
    """Write the texts as interleaved documents without images, and a tokenizer made from them."""
    found = [text for text in (*_of_corpus(), *_of_scenes()) if text]
    random.Random(0).shuffle(found)
    rows = ({"images": [None], "texts": [text]} for text in found)
    write_rows(FOLDER / "texts" / "texts.parquet", rows, pa.schema(list(schemas.INTERLEAVED)))
    run = Run.load(find_recipe("backbones/language"))
    train_tokenizer(found, vocabulary=run.model.vocabulary, special=run.special).save(FOLDER / "tokenizer")
    print(f"{len(found):,} texts, {sum(map(len, found)) / 1e6:.1f} M characters, in {FOLDER}")


def _of_corpus() -> Iterator[str]:
    for part in PARTS.values():
        if part.kind not in ("benchmark", "scenes"):  # of scenes there are others below
            for row in part.maker()("train", SCALE * part.counts["train"], 1):
                yield "\n".join(_texts_of(row))


def _texts_of(row: dict[str, Any]) -> Iterator[str]:
    """All texts of a row of any part; questions and answers as a chat that has lost its markers."""
    if "messages" in row:
        for message in row["messages"]:
            said = " ".join(piece["text"] for piece in message["content"] if piece["text"])
            yield f"{message['role'].capitalize()}: {said}"
        return
    for key in ("caption", "text"):
        if row.get(key):
            yield row[key]
    for text in row.get("texts") or ():
        if isinstance(text, str):
            yield text
        elif text:
            yield f"User: {text['user']}\nAssistant: {text['assistant']}"


def _of_scenes() -> Iterator[str]:
    source = SceneSource(seed=1, tasks=("tell", "what", "category", "colour", "count", "place"), brief=0.25)
    for index in range(SCENES):
        yield "\n".join(_texts_of(source.row(index)))


def train() -> None:
    """Train the language model by its recipe, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "lorgnette.cli",
        "train",
        "backbones/language",
        "--folder",
        str(FOLDER / "language"),
    ]
    sys.exit(subprocess.run(command).returncode)


def ship() -> None:
    """Put both into one model of their sizes, and cut them out of it at half precision."""
    model, processor = load(FOLDER / "language")
    VisionBackbone.open(FOLDER / "distilled" / "vision").give_to(model)
    for name, write in (("vision", write_vision_backbone), ("language", write_language_backbone)):
        write(model, processor, SHIPPED / name, torch.float16)
        size = sum(file.stat().st_size for file in (SHIPPED / name).iterdir())
        print(f"{SHIPPED / name}: {size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = {"texts": texts, "train": train, "ship": ship}
    parser.add_argument("what", choices=steps)
    steps[parser.parse_args().what]()


if __name__ == "__main__":
    main()
