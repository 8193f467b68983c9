"""The built-in corpus: every kind of data that a model of the paper is trained and measured on, small and offline.

A *part* is one table of rows made by one function from (split, count, seed); `PARTS` lists them. `write_corpus` writes
them as parquet, to `FOLDER/<split>/<kind>/<part>.parquet`, so that a source of a kind reads one folder:

    {kind: instruct, path: corpus/train/instruct}

The same versions of Pillow and pyarrow give the same bytes. What is committed lies in `COMMITTED`, with hashes of all of
the corpus, the parts that are only written on demand too, in `MANIFEST`.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lorgnette.data.builtin.drawings import SPLITS
from lorgnette.data.sources import schemas
from lorgnette.errors import DataError
from lorgnette.files import new_file

COMMITTED = Path(__file__).with_name("corpus")
"""Where the parquet files of the package lie."""
MANIFEST = COMMITTED / "manifest.json"
"""Rows, bytes and SHA-256 of every file of the corpus, and the versions that it was made with."""
ROW_GROUP = 64
"""Rows of a row group: what a reader decodes to look at one row."""

Kind = Literal["pairs", "interleaved", "documents", "instruct", "chat", "benchmark"]
Row = dict[str, Any]
Make = Callable[[str, int, int], Iterable[Row]]
"""`make(split, count, seed)`: `count` rows. Row n hangs on (split, seed, n) alone: a larger corpus starts with a smaller
one. An image is `{"bytes": ..., "path": None}` of an RGB or grey picture without alpha; `origin` names what the row is
made of, each thing in one split only."""

ORIGIN = pa.field("origin", pa.list_(pa.string()))
"""Names of the drawings (their ids), tables and texts that a row is made of. None is in two splits. No source reads it."""
PAIRS = pa.schema([("image", schemas.IMAGE), ("alt", pa.string()), ("caption", pa.string()), ORIGIN])
INTERLEAVED = schemas.INTERLEAVED.append(ORIGIN)
DOCUMENTS = schemas.DOCUMENTS.append(ORIGIN)
INSTRUCT = schemas.INSTRUCT.append(ORIGIN)
CHAT = schemas.CHAT.append(ORIGIN)
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
    committed: bool = True
    """False where the pictures are those of drawings.parquet, which need not be kept twice: written on demand."""

    def maker(self) -> Make:
        """The function that makes the rows. Raises: DataError if it is not there."""
        module, _, name = self.make.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise DataError(f"part {self.name}: {self.make} cannot be imported ({error})") from None

    def file(self, split: str) -> str:
        """Where a split's rows lie below the folder of a corpus."""
        return f"{split}/{self.kind}/{self.name}.parquet"


def _counts(train: int, validation: int, test: int) -> dict[str, int]:
    return dict(zip(SPLITS, (train, validation, test), strict=True))


_HERE = "lorgnette.data.builtin"
_TASKS = f"{_HERE}.scene_tasks"
_RENDERED = f"{_HERE}.rendered"
_DRAWN = (
    Part("pairs", "pairs", f"{_HERE}.pairs:make_pairs", _counts(3384, 232, 650), PAIRS, committed=False),
    Part("articles", "interleaved", f"{_HERE}.articles:make_articles", _counts(600, 40, 100), INTERLEAVED),
    Part("what", "instruct", f"{_TASKS}:make_what", _counts(200, 20, 40), INSTRUCT),
    Part("category", "instruct", f"{_TASKS}:make_category", _counts(200, 20, 40), INSTRUCT),
    Part("colour", "instruct", f"{_TASKS}:make_colour", _counts(200, 20, 40), INSTRUCT),
    Part("count", "instruct", f"{_TASKS}:make_count", _counts(200, 20, 40), INSTRUCT),
    Part("place", "instruct", f"{_TASKS}:make_place", _counts(200, 20, 40), INSTRUCT),
    Part("difference", "instruct", f"{_TASKS}:make_difference", _counts(200, 20, 40), INSTRUCT),
    Part("conversations", "chat", f"{_HERE}.conversations:make_conversations", _counts(200, 20, 40), CHAT),
    Part("scene_vqa", "benchmark", f"{_HERE}.benchmarks:make_scene_vqa", _counts(64, 0, 300), ANSWERS),
    Part("knowledge_vqa", "benchmark", f"{_HERE}.benchmarks:make_knowledge_vqa", _counts(64, 0, 300), ANSWERS),
    Part("scene_captions", "benchmark", f"{_HERE}.benchmarks:make_scene_captions", _counts(64, 0, 200), CAPTIONS),
)
_OF_TEXT = (
    Part("pages", "documents", f"{_RENDERED}.pages:make_pages", _counts(200, 20, 40), DOCUMENTS),
    Part("signs", "instruct", f"{_RENDERED}.signs:make_signs", _counts(200, 20, 40), INSTRUCT),
    Part("receipts", "instruct", f"{_RENDERED}.receipts:make_receipts", _counts(200, 20, 40), INSTRUCT),
    Part("charts", "instruct", f"{_RENDERED}.charts:make_charts", _counts(200, 20, 40), INSTRUCT),
    Part("tables", "instruct", f"{_RENDERED}.tables:make_tables", _counts(200, 20, 40), INSTRUCT),
    Part("food_chains", "instruct", f"{_RENDERED}.food_chains:make_food_chains", _counts(100, 10, 20), INSTRUCT),
    Part("resumes", "instruct", f"{_RENDERED}.resumes:make_resumes", _counts(100, 10, 20), INSTRUCT),
    Part("transcription", "instruct", f"{_RENDERED}.transcription:make_transcription", _counts(200, 20, 40), INSTRUCT),
    Part("description", "instruct", f"{_RENDERED}.description:make_description", _counts(100, 10, 20), INSTRUCT),
    Part("text_only", "instruct", f"{_RENDERED}.text_only:make_text_only", _counts(1000, 50, 100), INSTRUCT),
    Part("text_vqa", "benchmark", f"{_RENDERED}.benchmarks:make_text_vqa", _counts(64, 0, 200), ANSWERS),
    Part("doc_vqa", "benchmark", f"{_RENDERED}.benchmarks:make_doc_vqa", _counts(64, 0, 200), ANSWERS),
)
PARTS: dict[str, Part] = {part.name: part for part in (*_DRAWN, *_OF_TEXT)}
"""Every part by name: those of drawings first, then those of rendered text."""


@dataclass(frozen=True)
class Written:
    """A file of a corpus."""

    file: str
    """Below the corpus' folder."""
    rows: int
    bytes: int
    sha256: str


def write_corpus(
    folder: str | Path,
    scale: float = 1,
    parts: Iterable[str] | None = None,
    splits: Sequence[str] = SPLITS,
    *,
    seed: int = 0,
    fresh: bool = False,
) -> list[Written]:
    """Write the corpus, or some parts and splits of it; say what was written. The same arguments, the same bytes.

    scale: how many times the committed number of rows, of train and validation; benchmarks keep their size, so that
        scores stay comparable. fresh: make the rows that the package carries too, instead of copying their files.
    Raises: DataError for names that there are not, DiskError where nothing can be written.
    """
    chosen = [_part(name) for name in (PARTS if parts is None else parts)]
    for split in splits:
        if split not in SPLITS:
            raise DataError(f"split {split!r} is unknown; use some of {', '.join(SPLITS)}")
    if scale <= 0:
        raise DataError(f"scale {scale} makes no rows; give a number above 0")
    counts = [(part, split, scaled(part, split, scale)) for part in chosen for split in splits]
    written = []
    with _progress() as progress:
        task = progress.add_task("rows", total=sum(count for *_, count in counts))
        for part, split, count in counts:
            if not count:
                continue
            progress.update(task, description=f"{part.name}, {split}")
            path, carried = Path(folder) / part.file(split), COMMITTED / part.file(split)
            if not fresh and seed == 0 and scale == 1 and carried.is_file():
                with new_file(path) as beside:
                    shutil.copyfile(carried, beside)
                progress.advance(task, count)
            else:
                rows = _shown(part.maker()(split, count, seed), lambda: progress.advance(task))
                write_rows(path, rows, part.columns)
            written.append(facts(folder, part.file(split)))
    return written


def _part(name: str) -> Part:
    if name not in PARTS:
        raise DataError(f"part {name!r} is unknown; use some of {', '.join(PARTS)}")
    return PARTS[name]


def scaled(part: Part, split: str, scale: float) -> int:
    """Rows of a split. Only what is trained on grows."""
    grows = part.kind != "benchmark" and split == "train"
    return max(1, round(part.counts[split] * scale)) if grows else part.counts[split]


def write_rows(path: str | Path, rows: Iterable[Row], columns: pa.Schema) -> None:
    """Rows as parquet: zstd, row groups of `ROW_GROUP`, and nothing in the file that hangs on the time or the machine."""
    waiting = iter(rows)
    with (
        new_file(path) as beside,
        pq.ParquetWriter(
            beside, columns, compression="zstd", compression_level=9, use_dictionary=False, write_statistics=False
        ) as writer,
    ):
        while group := list(itertools.islice(waiting, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=columns), row_group_size=ROW_GROUP)


def _shown(rows: Iterable[Row], count: Callable[[], None]) -> Iterator[Row]:
    for row in rows:
        yield row
        count()


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), transient=True
    )


def facts(folder: str | Path, file: str) -> Written:
    """What a file of a corpus holds."""
    path = Path(folder) / file
    content = path.read_bytes()
    return Written(file, pq.read_metadata(path).num_rows, len(content), hashlib.sha256(content).hexdigest())


@cache
def manifest() -> dict[str, Any]:
    """What `MANIFEST` says: `files` by name, and the versions `made_with`."""
    return json.loads(MANIFEST.read_text(encoding="utf-8"))


def versions() -> dict[str, str]:
    """What the bytes of a corpus hang on."""
    import PIL
    import PIL.features

    return {
        "pillow": PIL.__version__,
        "libwebp": str(PIL.features.version("webp")),
        "zlib": str(PIL.features.version("zlib")),
        "pyarrow": pa.__version__,
    }


KINDS: tuple[str, ...] = get_args(Kind)
