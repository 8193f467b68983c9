"""Writes the corpus as parquet: every kind of data that a model of the paper is trained and measured on, in small.

`parts.PARTS` lists its tables, and `write_corpus` writes them to `FOLDER/<split>/<kind>/<part>.parquet`, so that a
source of a kind reads one folder:

    {kind: instruct, path: corpus/train/instruct}

The same versions of Pillow and pyarrow give the same bytes.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from corpus.parts import PARTS, Part, Row
from lorgnette.data.builtin.drawings import SPLITS
from lorgnette.data.builtin.shipped import SHIPPED_CORPUS
from lorgnette.data.parquet import has_columns, write_rows
from lorgnette.errors import DataError
from lorgnette.files import check_own, new_file


@dataclass(frozen=True)
class WrittenFile:
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
) -> list[WrittenFile]:
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
    as_shipped = not fresh and seed == 0 and scale == 1
    written = []
    with _progress() as progress:
        task = progress.add_task("rows", total=sum(count for *_, count in counts))
        for part, split, count in counts:
            if not count:
                continue
            progress.update(task, description=f"{part.name}, {split}")
            path, shipped = Path(folder) / part.file(split), SHIPPED_CORPUS / part.file(split)
            if as_shipped and shipped.is_file():
                check_own(path, partial(has_columns, columns=part.columns))
                with new_file(path) as beside:
                    shutil.copyfile(shipped, beside)
                progress.advance(task, count)
            else:
                rows = _shown(part.maker()(split, count, seed), lambda: progress.advance(task))
                write_rows(path, rows, part.columns, part.row_group)
            written.append(facts(folder, part.file(split)))
    return written


def _part(name: str) -> Part:
    if name not in PARTS:
        raise DataError(f"part {name!r} is unknown; use some of {', '.join(PARTS)}")
    return PARTS[name]


def scaled(part: Part, split: str, scale: float) -> int:
    """Rows of a split. Only what is trained on grows."""
    grows = part.kind != "benchmark" and split == "train" and part.counts[split]
    return max(1, round(part.counts[split] * scale)) if grows else part.counts[split]


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


def facts(folder: str | Path, file: str) -> WrittenFile:
    """Rows, bytes and SHA-256 of a file of a corpus."""
    path = Path(folder) / file
    content = path.read_bytes()
    return WrittenFile(file, pq.read_metadata(path).num_rows, len(content), hashlib.sha256(content).hexdigest())


def versions() -> dict[str, str]:
    """Digest of everything that the bytes of a corpus depend on."""
    import PIL
    import PIL.features

    return {
        "pillow": PIL.__version__,
        "libwebp": str(PIL.features.version("webp")),
        "zlib": str(PIL.features.version("zlib")),
        "pyarrow": pa.__version__,
    }
