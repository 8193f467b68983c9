"""Make the shipped backbones: vision encoders and language models that have never met (docs/backbones.md).

    python scripts/distil_vision.py ...                     # a vision encoder: see there
    python scripts/contrastive_vision.py ...                # two more: see there
    python scripts/build_backbones.py texts                 # what language models read: runs/backbones/texts
    python scripts/build_backbones.py train language        # about 10 minutes of one core
    python scripts/build_backbones.py train language-weak   # the same recipe, an eighth of the steps
    python scripts/build_backbones.py ship language         # write lorgnette/hub/shipped; or language-weak, vision

All learn from the train split of the built-in drawings and texts alone. Training goes on where it was stopped.
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
from lorgnette.hub.formats.backbones import write_language_backbone, write_vision_backbone
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
    found = [text for text in (*texts_of_corpus("train", SCALE), *texts_of_scenes("train", SCENES)) if text]
    random.Random(0).shuffle(found)
    rows = ({"images": [None], "texts": [text]} for text in found)
    write_rows(FOLDER / "texts" / "texts.parquet", rows, pa.schema(list(schemas.INTERLEAVED)))
    run = Run.load(find_recipe("backbones/language"))
    train_tokenizer(found, vocabulary=run.model.vocabulary, special=run.special).save(FOLDER / "tokenizer")
    print(f"{len(found):,} texts, {sum(map(len, found)) / 1e6:.1f} M characters, in {FOLDER}")


def texts_of_corpus(split: str, scale: int) -> Iterator[str]:
    """Texts of the rows of all parts of the corpus but the benchmarks and scenes, `scale` times as many."""
    for part in PARTS.values():
        if part.kind not in ("benchmark", "scenes"):  # of scenes there are others below
            for row in part.maker()(split, scale * part.counts[split], 1):
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


def texts_of_scenes(split: str, count: int) -> Iterator[str]:
    """Questions with their answers, and descriptions, of scenes that are not shown."""
    source = SceneSource(split, seed=1, tasks=("tell", "what", "category", "colour", "count", "place"), brief=0.25)
    for index in range(count):
        yield "\n".join(_texts_of(source.row(index)))


LANGUAGE_MODELS: dict[str, tuple[str, ...]] = {"language": (), "language-weak": ("stages.0.steps=150",)}
"""What each changes of the recipe `backbones/language`."""


def train(name: str) -> None:
    """Train a language model by its recipe, in a process of its own."""
    command = [sys.executable, "-m", "lorgnette.cli", "train", "backbones/language"]
    sys.exit(subprocess.run([*command, "--folder", str(FOLDER / name), *LANGUAGE_MODELS[name]]).returncode)


def ship(name: str) -> None:
    """Put a backbone into a whole model of its sizes, and cut it out of that at half precision."""
    model, processor = load(FOLDER / (name if name in LANGUAGE_MODELS else "language"))
    if name == "vision":
        VisionBackbone.open(FOLDER / "distilled" / "vision").give_to(model)
    write = write_vision_backbone if name == "vision" else write_language_backbone
    write(model, processor, SHIPPED / name, torch.float16)
    size = sum(file.stat().st_size for file in (SHIPPED / name).iterdir())
    print(f"{SHIPPED / name}: {size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="what", required=True)
    steps.add_parser("texts")
    steps.add_parser("train").add_argument("name", choices=LANGUAGE_MODELS)
    steps.add_parser("ship").add_argument("name", choices=("vision", *LANGUAGE_MODELS))
    options = parser.parse_args()
    if options.what == "texts":
        texts()
    else:
        {"train": train, "ship": ship}[options.what](options.name)


if __name__ == "__main__":
    main()
