"""Measure the shipped backbones on held-out texts, drawings and words (docs/backbones.md).

    python scripts/build_backbones.py texts                  # the n-gram model reads what the language models read
    python scripts/measure_backbones.py language vision
    make numbers                                             # carries the rows into the page

Language models: perplexity of validation texts, beside a 5-gram model's. Vision encoders, by the mean of the states of
an image's patches: linear probes of category and colour of drawings of the test split and of a rendered word, and
drawings that find their caption (R@1) through one linear map, fitted alike for each encoder. Encoders of random
weights stand beside them. Rows go to benchmarks/results/backbones.jsonl.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pyarrow.parquet as pq
import torch
from build_backbones import FOLDER, texts_of_corpus, texts_of_scenes
from contrastive_vision import mean_states, share_found, shown
from kneser_ney import KneserNey
from torch import Tensor
from torch.nn import functional

from corpus.drawn.pairs import clean_caption
from corpus.rendered.fonts import Print
from corpus.rendered.words import MONTHS, WEEKDAYS
from lorgnette.data.builtin.drawings import drawings
from lorgnette.demo.demo import conditions
from lorgnette.hub.join import VisionBackbone, build
from lorgnette.hub.source import BUILT_IN, SHIPPED, shipped_backbones
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import Patches, patchify
from lorgnette.inputs.tokenizer import Tokenizer
from lorgnette.model.batch import SequenceLengths
from lorgnette.model.context import Context
from lorgnette.model.vision import VisionEncoder

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "backbones.jsonl"
SPLITS = ("train", "validation", "test")
HELD_OUT_SCENES = 300
RANDOM = {"random-128": "builtin:vision", "random-64": "builtin:vision-clip"}
"""Names in the rows of encoders of random weights, each with the one whose sizes and pixels it has."""
GRAMS = "5-gram"
"""Name in the rows of the n-gram model."""


def chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """The names that are in `only`, all if it is empty."""
    return [name for name in names if not only or name.removeprefix(BUILT_IN) in only]


# Language models.


def held_out_texts() -> list[str]:
    """Texts of the validation split: of the corpus's rows, and of scenes."""
    return [
        text for text in (*texts_of_corpus("validation", 1), *texts_of_scenes("validation", HELD_OUT_SCENES)) if text
    ]


def ids_of(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, with the one that ends it."""
    assert tokenizer.eos is not None
    return [[*tokenizer.encode(text), tokenizer.eos] for text in texts]


@torch.no_grad()
def nats_of_model(name: str, rows: Sequence[Sequence[int]]) -> float:
    """Sum of the negative log-probabilities that a language model gives to texts, each after the beginning token."""
    model, processor = build("builtin:vision", name)
    assert processor.tokenizer.bos is not None
    nats = 0.0
    for start in range(0, len(rows), 16):
        some = [[processor.tokenizer.bos, *row] for row in rows[start : start + 16]]
        lengths = SequenceLengths(tuple(len(row) - 1 for row in some))
        read_T = torch.tensor([token for row in some for token in row[:-1]])
        positions_T = torch.cat([torch.arange(length) for length in lengths.lengths])
        states_TD = model.language(model.language.embedding(read_T), Context(positions_T, lengths))
        wanted_T = torch.tensor([token for row in some for token in row[1:]])
        nats += functional.cross_entropy(model.language.head.logits(states_TD), wanted_T, reduction="sum").item()
    return nats


def nats_of_grams(tokenizer: Tokenizer, rows: Sequence[Sequence[int]]) -> float:
    """The same of the 5-gram model of the texts that the language models were trained on."""
    assert tokenizer.bos is not None
    table = pq.read_table(FOLDER / "texts" / "texts.parquet", columns=["texts"])
    read = ids_of(tokenizer, [row[0] for row in table["texts"].to_pylist()])
    model = KneserNey(read, tokenizer.vocabulary, order=5, start=tokenizer.bos)
    return float(-np.log(model.probabilities(rows)).sum())


def measure_language(only: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each language model, and one for the n-gram model; of those named in `only`, if any are."""
    texts, tokenizer = held_out_texts(), Tokenizer.load(SHIPPED / "language")
    rows = ids_of(tokenizer, texts)
    tokens, characters = sum(map(len, rows)), sum(map(len, texts))
    names = [name for name in shipped_backbones() if name.startswith(f"{BUILT_IN}language")]
    for name in chosen((*names, GRAMS), only):
        nats = nats_of_grams(tokenizer, rows) if name == GRAMS else nats_of_model(name, rows)
        yield {
            "backbone": name.removeprefix(BUILT_IN),
            "perplexity": round(math.exp(nats / tokens), 3),
            "perplexity_of_character": round(math.exp(nats / characters), 4),
            "texts": len(texts),
            "tokens": tokens,
            "characters": characters,
        }


# Vision encoders: what they are shown.


WORDS = (*MONTHS, *WEEKDAYS, "Total")
"""Twenty words, some of which end alike."""
TYPEFACES = {
    "train": ("sans", "serif", "times", "garamond", "roboto", "poster"),
    "validation": ("mono",),
    "test": ("slab", "courier", "typewriter"),
}
EACH = {"train": 40, "validation": 10, "test": 20}
"""Pictures of each word."""
CANVAS = (128, 64)


def word_picture(rng: random.Random, word: str, typeface: str) -> PIL.Image.Image:
    """A word somewhere on a light canvas, in dark letters of some size."""
    light, dark = rng.randrange(220, 256), rng.randrange(90)
    canvas = PIL.Image.new("L", CANVAS, light)
    size = rng.randint(18, 30)
    while (pen := Print(typeface, size)).length(word) > CANVAS[0] - 6:
        size -= 1
    left, base = rng.randint(2, CANVAS[0] - 3 - pen.length(word)), rng.randint(size, CANVAS[1] - size // 3)
    pen.put(PIL.ImageDraw.Draw(canvas), (left, base), word, dark)
    return canvas.convert("RGB")


def words_of(split: str, config: ImageConfig) -> tuple[list[Patches], list[int]]:
    """Pictures of all words in the typefaces of a split, and which word each is."""
    rng = random.Random(f"words {split}")
    numbers = [number for number in range(len(WORDS)) for _ in range(EACH[split])]
    pictures = (word_picture(rng, WORDS[number], rng.choice(TYPEFACES[split])) for number in numbers)
    return [patchify(picture, config) for picture in pictures], numbers


def drawings_of(split: str, config: ImageConfig) -> list[Patches]:
    """Every drawing of a split, alone on a canvas."""
    rng, table = random.Random(f"drawings {split}"), drawings(split)
    return [shown(rng, table, index, config) for index in range(len(table))]


@cache
def captions_of(split: str) -> list[str]:
    """The sentence of every drawing of a split."""
    rng = random.Random(f"captions {split}")
    return [clean_caption(row, rng) for row in drawings(split)]


# Vision encoders: linear maps of what they see.


@dataclass(frozen=True)
class Features:
    """Features of the images of each split (N,D), each column with mean 0 and deviation 1 over the train split."""

    by_split: dict[str, Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, vision: VisionEncoder, by_split: dict[str, list[Patches]]) -> Features:
        found = {
            split: torch.cat([mean_states(vision, shown[at : at + 128]) for at in range(0, len(shown), 128)])
            for split, shown in by_split.items()
        }
        deviation, mean = torch.std_mean(found["train"], 0)
        return cls({split: (rows - mean) / (deviation + 1e-6) for split, rows in found.items()})


def accuracy_of_probe(features: Features, labels: dict[str, Sequence[Any]]) -> tuple[float, float]:
    """Accuracy on the test split of a logistic regression of the train split, and that of its most frequent label.

    labels: None where there is none; such an image is left out. The weight decay is the best on the validation split.
    """
    names = sorted({label for label in labels["train"] if label is not None})
    places = {name: place for place, name in enumerate(names)}
    known = {
        split: [(row, places[label]) for row, label in enumerate(found) if label in places]
        for split, found in labels.items()
    }
    x = {split: features.by_split[split][[row for row, _ in pairs]] for split, pairs in known.items()}
    y = {split: torch.tensor([place for _, place in pairs]) for split, pairs in known.items()}
    probes = [_logistic(x["train"], y["train"], len(names), decay) for decay in (1e-3, 1e-2, 1e-1)]
    best = max(probes, key=lambda probe: _right(probe, x["validation"], y["validation"]))
    guess = torch.full_like(y["test"], Counter(y["train"].tolist()).most_common(1)[0][0])
    return _right(best, x["test"], y["test"]), (guess == y["test"]).float().mean().item()


def _logistic(x_ND: Tensor, y_N: Tensor, classes: int, decay: float) -> tuple[Tensor, Tensor]:
    weight_DC = torch.zeros(x_ND.shape[1], classes, requires_grad=True)
    bias_C = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight_DC, bias_C], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = functional.cross_entropy(x_ND @ weight_DC + bias_C, y_N) + decay / 2 * weight_DC.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weight_DC.detach(), bias_C.detach()


def _right(probe: tuple[Tensor, Tensor], x_ND: Tensor, y_N: Tensor) -> float:
    weight_DC, bias_C = probe
    return ((x_ND @ weight_DC + bias_C).argmax(1) == y_N).float().mean().item()


def word_vectors(texts: dict[str, list[str]]) -> dict[str, Tensor]:
    """Unit vectors of the words of each text that the train split has, rare words weighing more (tf-idf)."""
    bags = {
        split: [set(text.lower().strip(".").replace(",", "").split()) for text in found]
        for split, found in texts.items()
    }
    frequencies = Counter(word for bag in bags["train"] for word in bag)
    words = {word: place for place, word in enumerate(sorted(frequencies))}
    found = {}
    for split, some in bags.items():
        table_NW = torch.zeros(len(some), len(words))
        for row, bag in enumerate(some):
            for word in bag & words.keys():
                table_NW[row, words[word]] = math.log(len(bags["train"]) / frequencies[word])
        found[split] = functional.normalize(table_NW, dim=1)
    return found


def retrieval_of_map(features: Features) -> tuple[float, float]:
    """R@1 of test drawings to captions by a ridge regression to word vectors, and that of a guess."""
    texts = {split: captions_of(split) for split in SPLITS}
    vectors, x_ND = word_vectors(texts), features.by_split["train"]
    gram_DD, target_DW = x_ND.T @ x_ND, x_ND.T @ vectors["train"]

    def found(map_DW: Tensor, split: str) -> tuple[float, float]:
        said_NW = functional.normalize(features.by_split[split] @ map_DW, dim=1)
        return share_found(said_NW @ vectors[split].T, texts[split])

    maps = [torch.linalg.solve(gram_DD + ridge * torch.eye(len(gram_DD)), target_DW) for ridge in (10.0, 100.0, 1000.0)]
    best = max(maps, key=lambda map_DW: found(map_DW, "validation")[0])
    return found(best, "test")


def measure_vision(only: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each vision encoder, and for random weights at each resolution; of those named in `only`."""
    names = [name for name in shipped_backbones() if name.startswith(f"{BUILT_IN}vision")]
    for name in chosen((*names, *RANDOM), only):
        source = RANDOM.get(name, name)
        grid, patch = (opened := VisionBackbone.open(source).config).grid, opened.patch
        config = ImageConfig(shortest=48, longest=grid * patch, patch=patch, grid=grid, keep_aspect=True)
        model, _ = build(source, "builtin:language", images=config)  # whose own choice would be SigLIP's 70 x 70
        if name in RANDOM:
            model.initialise(0)
        pictures = Features.of(model.vision, {split: drawings_of(split, config) for split in SPLITS})
        row: dict[str, Any] = {
            "backbone": name.removeprefix(BUILT_IN),
            "pixels": grid * patch,
            "width": model.config.vision.width,
        }
        row["parameters"] = sum(weight.numel() for weight in model.vision.parameters())
        for key in ("category", "colour"):
            labels = {split: [getattr(one, key) for one in drawings(split)] for split in SPLITS}
            row[key], row[f"{key}_guess"] = accuracy_of_probe(pictures, labels)
        words = {split: words_of(split, config) for split in SPLITS}
        seen = Features.of(model.vision, {split: shown for split, (shown, _) in words.items()})
        row["word"], row["word_guess"] = accuracy_of_probe(seen, {split: read for split, (_, read) in words.items()})
        row["caption_r1"], row["caption_r1_guess"] = retrieval_of_map(pictures)
        yield {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=("language", "vision"))
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="as in the rows: vision-clip, 5-gram")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    known = [*RANDOM, GRAMS, *(name.removeprefix(BUILT_IN) for name in shipped_backbones())]
    if strange := sorted(set(options.only) - set(known)):
        parser.error(f"--only {strange[0]}: there are {', '.join(known)}")
    torch.set_num_threads(options.threads)
    command = {"command": "python scripts/measure_backbones.py " + shlex.join(sys.argv[1:])}
    for what in options.what:
        began = time.process_time()
        for row in {"language": measure_language, "vision": measure_vision}[what](options.only):
            cost = {"cpu_s": round(time.process_time() - began, 1)}
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"benchmark": "backbones", **row, **cost, **conditions(), **command}) + "\n")
            print(json.dumps(row), flush=True)
            began = time.process_time()


if __name__ == "__main__":
    main()
