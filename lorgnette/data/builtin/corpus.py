"""The built-in corpus: every kind of data that a model of the paper is trained and measured on, small and offline.

`PARTS` lists its tables, and `write_corpus` writes them as parquet, to `FOLDER/<split>/<kind>/<part>.parquet`, so that
a source of a kind reads one folder:

    {kind: instruct, path: corpus/train/instruct}

Where a path starts with `builtin:` (`builtin:train/instruct`), `resolve` says where the files lie, and writes them
first if the package does not carry them.

The same versions of Pillow and pyarrow give the same bytes. What is committed lies in `COMMITTED`, with hashes of all
of the corpus, the parts that are only written on demand too, in `MANIFEST`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lorgnette.data.builtin.drawings import SPLITS
from lorgnette.data.builtin.parts import PARTS, Part, Row
from lorgnette.errors import DataError
from lorgnette.files import check_own, new_file, user_cache

__all__ = ["PARTS", "Part", "facts", "manifest", "resolve", "write_corpus"]

COMMITTED = Path(__file__).with_name("corpus")
"""Where the parquet files of the package lie."""
MANIFEST = COMMITTED / "manifest.json"
"""Rows, bytes and SHA-256 of every file of the corpus, and the versions that it was made with."""
PREFIX = "builtin:"
"""How a path starts that names a place in the built-in corpus."""
ROW_GROUP = 64
"""Rows of a row group: what a reader decodes to look at one row."""


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
    as_carried = not fresh and seed == 0 and scale == 1
    written = []
    with _progress() as progress:
        task = progress.add_task("rows", total=sum(count for *_, count in counts))
        for part, split, count in counts:
            if not count:
                continue
            progress.update(task, description=f"{part.name}, {split}")
            path, carried = Path(folder) / part.file(split), COMMITTED / part.file(split)
            if as_carried and carried.is_file():
                check_own(path, partial(_has_columns, columns=part.columns))
                with new_file(path) as beside:
                    shutil.copyfile(carried, beside)
                progress.advance(task, count)
            else:
                rows = _shown(part.maker()(split, count, seed), lambda: progress.advance(task))
                write_rows(path, rows, part.columns)
            written.append(facts(folder, part.file(split)))
    return written


def resolve(path: str) -> str:
    """The folder or file that `builtin:train/instruct` or `builtin:test/chat/conversations.parquet` means.

    What the package does not carry is written to the user's cache folder, once: a minute at most for all of it.
    Raises: DataError if the corpus has no such place, DiskError if the cache cannot be written.
    """
    wanted = path.removeprefix(PREFIX).strip("/")
    places = {part.file(split): (part, split) for part in PARTS.values() for split in SPLITS if part.counts[split]}
    files = [file for file in places if f"{file}/".startswith(f"{wanted}/" if wanted else "")]
    if not files:
        there = sorted({file.rpartition("/")[0] for file in places})
        raise DataError(f"{path}: the built-in corpus has no such folder or file; use one of {', '.join(there)}")
    if all((COMMITTED / file).is_file() for file in files):
        return str(COMMITTED / wanted)
    folder = cache_folder()
    for file in files:
        if not (folder / file).is_file():
            part, split = places[file]
            write_corpus(folder, 1, [part.name], [split])
    return str(folder / wanted)


def cache_folder() -> Path:
    """Where parts that are written on demand lie: another folder for each make of the corpus."""
    made_of = [MANIFEST.read_bytes() if MANIFEST.is_file() else b"", json.dumps(versions()).encode()]
    key = hashlib.sha256(b"".join(made_of)).hexdigest()[:12]
    return user_cache() / f"corpus-{key}"


def _part(name: str) -> Part:
    if name not in PARTS:
        raise DataError(f"part {name!r} is unknown; use some of {', '.join(PARTS)}")
    return PARTS[name]


def scaled(part: Part, split: str, scale: float) -> int:
    """Rows of a split. Only what is trained on grows."""
    grows = part.kind != "benchmark" and split == "train"
    return max(1, round(part.counts[split] * scale)) if grows else part.counts[split]


def write_rows(path: str | Path, rows: Iterable[Row], columns: pa.Schema) -> None:
    """Rows as parquet: zstd, row groups of `ROW_GROUP`, and nothing that hangs on the time or the machine.

    Raises: DiskError, if the file is there and holds other columns too.
    """
    check_own(path, partial(_has_columns, columns=columns))
    waiting = iter(rows)
    with (
        new_file(path) as beside,
        pq.ParquetWriter(
            beside, columns, compression="zstd", compression_level=9, use_dictionary=False, write_statistics=False
        ) as writer,
    ):
        while group := list(itertools.islice(waiting, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=columns), row_group_size=ROW_GROUP)


def _has_columns(content: bytes, columns: pa.Schema) -> bool:
    """Whether a file is parquet of just these columns."""
    try:
        return bool(pq.read_schema(pa.BufferReader(content)).remove_metadata().equals(columns.remove_metadata()))
    except (pa.ArrowException, OSError):
        return False


def _shown(rows: Iterable[Row], count: Callable[[], None]) -> Iterator[Row]:
    for row in rows:
        yield row
        count()


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
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
