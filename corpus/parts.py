"""The table of the built-in corpus: its parts, who makes each, how many rows, and the rows' columns.

A *part* is one table of rows made by one function from (split, count, seed).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from lorgnette.data.builtin.drawings import SPLITS
from lorgnette.data.parquet import ROW_GROUP
from lorgnette.data.sources.reading import schemas
from lorgnette.errors import DataError

Kind = Literal["pairs", "interleaved", "documents", "instruct", "scenes", "chat", "benchmark"]
Row = dict[str, Any]
Make = Callable[[str, int, int], Iterable[Row]]
"""`make(split, count, seed)`: `count` rows. Row n depends on (split, seed, n) alone: a larger corpus starts with a
smaller one. An image is `{"bytes": ..., "path": None}` of an RGB or grey picture (drawings: RGBA); `origin` names what
the row is made of, each thing in one split only."""

ORIGIN = pa.field("origin", pa.list_(pa.string()))
"""Names of the drawings (ids), tables and texts that a row is made of. None is in two splits; no source reads it."""
DRAWINGS = pa.schema(
    [
        ("image", schemas.IMAGE),
        ("alt", pa.string()),
        ("caption", pa.string()),
        ("id", pa.string()),
        ("name", pa.string()),
        ("keywords", pa.list_(pa.string())),
        ("category", pa.string()),
        ("colour", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("path", pa.string()),
        ("licence", pa.string()),
        ("sha256", pa.string()),
        ("whole", pa.bool_()),
        ("group", pa.string()),
        ORIGIN,
    ]
)
"""A pair of image and captions (`alt` is the title that the drawing came with), and what is known about the drawing."""
INTERLEAVED = schemas.INTERLEAVED.append(ORIGIN)
DOCUMENTS = schemas.DOCUMENTS.append(ORIGIN)
INSTRUCT = schemas.INSTRUCT.append(ORIGIN)
_TURN = pa.struct(
    [("role", pa.string()), ("content", pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())])))]
)
SCENES = schemas.SCENES.append(pa.field("kind", pa.string())).append(pa.field("form", pa.string()))
"""Scenes, with the kind and form of the first question or the task. Their `drawings` are their origin."""
CHAT = pa.schema([("images", pa.list_(schemas.IMAGE)), ("messages", pa.list_(_TURN)), ORIGIN])
"""Conversations whose answers are all learned: without the weights of `schemas.CHAT`."""
ANSWERS = pa.schema(
    [
        ("question_id", pa.int64()),
        ("image_id", pa.string()),
        ("image", schemas.IMAGE),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("question_type", pa.string()),
        ORIGIN,
    ]
)
"""Benchmarks of short answers, as the public files have them: `answers` are ten people's."""
CAPTIONS = pa.schema([("image_id", pa.string()), ("image", schemas.IMAGE), ("captions", pa.list_(pa.string())), ORIGIN])
"""A benchmark of captions: several references for an image."""


@dataclass(frozen=True)
class Part:
    """One table of the corpus."""

    name: str
    kind: Kind
    make: str
    """`module:function`, imported when rows are made. The function is a `Make`."""
    counts: Mapping[str, int]
    """Rows of each split at scale 1."""
    columns: pa.Schema
    about: str = ""
    """A few words for the card."""

    @property
    def row_group(self) -> int:
        """Rows of a row group: more where a row holds no picture."""
        return SCENES_OF_GROUP if self.kind == "scenes" else ROW_GROUP

    def maker(self) -> Make:
        """The function that makes the rows. Raises: DataError if it is not there."""
        module, _, name = self.make.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise DataError(f"part {self.name}: {self.make} cannot be imported ({error})") from None

    def file(self, split: str) -> str:
        """Path of a split's rows, relative to the folder of a corpus."""
        return f"{split}/{self.kind}/{self.name}.parquet"


SCENES_OF_GROUP = 1024
"""Rows of a row group of scenes, at some 50 bytes each."""

_COLUMNS = {
    "pairs": DRAWINGS,
    "interleaved": INTERLEAVED,
    "documents": DOCUMENTS,
    "instruct": INSTRUCT,
    "scenes": SCENES,
    "chat": CHAT,
    "benchmark": ANSWERS,
}


def _part(name: str, kind: Kind, module: str, counts: tuple[int, int, int], about: str) -> Part:
    """The part that `make_<name>` of a module of this package makes."""
    columns = CAPTIONS if name == "scene_captions" else _COLUMNS[kind]
    make = f"corpus.{module}:make_{name}"
    return Part(name, kind, make, dict(zip(SPLITS, counts, strict=True)), columns, about)


_DRAWN = (
    _part(
        "drawings", "pairs", "drawn.pairs", (3384, 232, 650), "every drawing with its raw title and a clean sentence"
    ),
    _part(
        "articles", "interleaved", "drawn.articles", (150, 15, 45), "articles whose text refers to the images before it"
    ),
    _part("what", "instruct", "drawn.instructions", (150, 16, 32), "what is it; what is where"),
    _part("category", "instruct", "drawn.instructions", (150, 16, 32), "what kind of thing"),
    _part("colour", "instruct", "drawn.instructions", (150, 16, 32), "main colours"),
    _part("count", "instruct", "drawn.instructions", (150, 16, 32), "how many: of all, of a colour, of a thing"),
    _part("place", "instruct", "drawn.instructions", (150, 16, 32), "where; left, right, above, below"),
    _part("difference", "instruct", "drawn.instructions", (150, 16, 32), "two pictures with one change, or none"),
    _part(
        "scene_questions", "scenes", "drawn.scene_rows", (24_576, 256, 0), "up to six questions about a scene by colour"
    ),
    _part("scene_positions", "scenes", "drawn.scene_rows", (4096, 64, 0), "where drawings lie in a scene"),
    _part(
        "named_scenes", "scenes", "drawn.scene_rows", (12_288, 128, 0), "questions about things by name, and numbers"
    ),
    _part("scene_tasks", "scenes", "drawn.scene_rows", (3072, 64, 0), "the questions of the parts before, in turn"),
    _part("scene_descriptions", "scenes", "drawn.scene_rows", (4096, 64, 0), "a scene described thing by thing"),
    _part(
        "drawing_questions", "scenes", "drawn.scene_rows", (0, 0, 1000), "one question to a scene, asked in the demo"
    ),
    _part("conversations", "chat", "drawn.conversations", (150, 16, 32), "several turns about one to three images"),
    _part(
        "scene_vqa", "benchmark", "drawn.benchmarks", (64, 0, 300), "the role of VQAv2: yes or no, numbers, the rest"
    ),
    _part("knowledge_vqa", "benchmark", "drawn.benchmarks", (64, 0, 300), "the role of OKVQA: what no picture tells"),
    _part(
        "scene_captions", "benchmark", "drawn.benchmarks", (64, 0, 200), "the role of COCO captions: five references"
    ),
)
_OF_TEXT = (
    _part("pages", "documents", "rendered.pages", (150, 16, 32), "letters, forms, receipts, tables, with their text"),
    _part("signs", "instruct", "rendered.signs", (150, 16, 32), "what does the sign say"),
    _part("receipts", "instruct", "rendered.receipts", (150, 16, 32), "totals and other fields of receipts"),
    _part("charts", "instruct", "rendered.charts", (150, 16, 32), "values of bar and line charts"),
    _part("tables", "instruct", "rendered.tables", (150, 16, 32), "table look-up, and arithmetic with its steps"),
    _part("food_chains", "instruct", "rendered.food_chains", (80, 10, 20), "questions about food-chain diagrams"),
    _part("resumes", "instruct", "rendered.resumes", (80, 10, 20), "resumes as JSON"),
    _part("transcription", "instruct", "rendered.transcription", (150, 16, 32), "all text of a picture"),
    _part("description", "instruct", "rendered.description", (80, 10, 20), "charts, tables and pages in words"),
    _part("text_only", "instruct", "rendered.text_only", (1000, 50, 100), "instructions without an image"),
    _part("text_vqa", "benchmark", "rendered.benchmarks", (64, 0, 200), "the role of TextVQA: reading in scenes"),
    _part("doc_vqa", "benchmark", "rendered.benchmarks", (64, 0, 200), "the role of DocVQA: questions about pages"),
)
PARTS: dict[str, Part] = {part.name: part for part in (*_DRAWN, *_OF_TEXT)}
"""Every part by name: those of drawings first, then those of rendered text."""
