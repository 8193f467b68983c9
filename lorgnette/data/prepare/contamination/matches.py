"""Contamination: records that show a picture of a benchmark, the same file or a near duplicate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lorgnette.data.index import Index
from lorgnette.data.prepare.contamination.benchmark_pictures import Pictures, files_of_benchmark
from lorgnette.data.prepare.contamination.near_hashes import near_pairs
from lorgnette.data.prepare.folder import digest, stamps
from lorgnette.data.prepare.image_facts import SIDE, image_facts, thumbnail
from lorgnette.errors import DataError, ImageError
from lorgnette.files import new_file, user_cache
from lorgnette.inputs.config import MAX_PIXELS
from lorgnette.inputs.image_io import glance

MOST_BITS = 7
"""Bits in which two perceptual hashes may differ for their pictures to be compared."""
LEAST_LIKENESS = 0.95
"""Correlation of thumbnails from which two pictures look the same."""
MOST_SHAPE = 1.15
"""Largest ratio of the two aspect ratios for pictures to be compared."""
LEAST_CONTRAST = 4.0
"""Grey levels of spread below which a picture is blank, and looks like nothing in particular."""

ReadPicture = Callable[[int, int], Any]
"""From a record and the number of an image in it to the image's source."""


@dataclass(frozen=True, slots=True)
class Match:
    """A picture of a record that a benchmark has too."""

    record: int
    image: int
    """Its number in the record."""
    benchmark: str
    picture: str
    """Name of the benchmark's picture."""
    match: str
    """`same file` or `looks the same`."""
    bits: int
    """Bits in which the perceptual hashes differ."""
    likeness: float
    """Correlation of the thumbnails; 1 for the same file."""


@dataclass(frozen=True, eq=False)
class HashedSet:
    """The pictures of one benchmark, hashed."""

    name: str
    labels: tuple[str, ...]
    sha_K: np.ndarray
    look_K: np.ndarray
    unreadable: tuple[str, ...] = ()
    """Pictures that could not be read, and so were compared with nothing."""


def hash_benchmark(name: str, pictures: Pictures) -> HashedSet:
    """Hash every picture of a benchmark once; the hashes of one given by its files are kept in the user's cache."""
    kept = _kept_at(name)
    if kept is not None and kept.is_file():
        table = pq.read_table(kept).to_pydict()
    else:
        table = _hashed(pictures(name))
        if kept is not None:
            with new_file(kept) as beside:
                pq.write_table(pa.table(table, schema=_HASHES), beside)
    good = [place for place, readable in enumerate(table["readable"]) if readable]
    sha_K, look_K = (np.array([table[column][place] for place in good], np.uint64) for column in ("sha", "look"))
    bad = tuple(label for label, readable in zip(table["label"], table["readable"], strict=True) if not readable)
    return HashedSet(name, tuple(table["label"][place] for place in good), sha_K, look_K, bad)


HASHING = 2
"""Raised when the pixels that are hashed change, as when transparent images came to lie on white."""
_HASHES = pa.schema([("label", pa.string()), ("readable", pa.bool_()), ("sha", pa.uint64()), ("look", pa.uint64())])


def _hashed(pictures: Iterable[tuple[str, bytes]]) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = {name: [] for name in _HASHES.names}
    for label, content in pictures:
        try:
            look = image_facts(content, label, MAX_PIXELS)
            values: tuple[Any, ...] = (label, True, look.sha, look.look)
        except ImageError:
            values = (label, False, 0, 0)
        for column, value in zip(table.values(), values, strict=True):
            column.append(value)
    return table


def _kept_at(name: str) -> Path | None:
    try:
        files = files_of_benchmark(name)
    except DataError:  # a benchmark that is known by name alone
        return None
    return user_cache() / "benchmarks" / f"{digest([name, HASHING, *(one.key for one in stamps(files))])}.parquet"


def find_matches(index: Index, benchmarks: Sequence[HashedSet], read: ReadPicture, pictures: Pictures) -> list[Match]:
    """The first picture of each record that a benchmark has, in the order of the records.

    Hashes say which pictures to compare; those are read again, on both sides, and compared as thumbnails.
    """
    owner_I = index.record_of_image()
    place_I = np.arange(len(owner_I)) - index.image_starts[owner_I]
    found: dict[int, Match] = {}
    for benchmark in benchmarks:
        first = {int(sha): place for place, sha in reversed(list(enumerate(benchmark.sha_K.tolist())))}
        for image in np.flatnonzero(np.isin(index.sha_I, benchmark.sha_K)).tolist():
            label = benchmark.labels[first[int(index.sha_I[image])]]
            record = int(owner_I[image])
            match = Match(record, int(place_I[image]), benchmark.name, label, "same file", 0, 1.0)
            found.setdefault(record, match)
        images, known = near_pairs(index.look_I, benchmark.look_K, MOST_BITS)
        open_pairs = [
            pair for pair in zip(images.tolist(), known.tolist(), strict=True) if int(owner_I[pair[0]]) not in found
        ]
        wanted = {benchmark.labels[place] for _, place in open_pairs}
        theirs = (
            {label: _thumb(content) for label, content in pictures(benchmark.name) if label in wanted} if wanted else {}
        )
        ours: tuple[int, tuple[np.ndarray, float] | None] = (-1, None)
        for image, place in open_pairs:
            record, label = int(owner_I[image]), benchmark.labels[place]
            if record in found:
                continue
            if ours[0] != image:
                ours = image, _thumb(read(record, int(place_I[image])))
            likeness = alike(ours[1], theirs.get(label))
            if likeness >= LEAST_LIKENESS:
                bits = int(np.bitwise_count(index.look_I[image] ^ benchmark.look_K[place]))
                found[record] = Match(
                    record, int(place_I[image]), benchmark.name, label, "looks the same", bits, round(likeness, 3)
                )
    return [found[record] for record in sorted(found)]


def _thumb(source: Any) -> tuple[np.ndarray, float] | None:
    """A picture's thumbnail and shape; None if it cannot be read any more."""
    try:
        grey, (width, height) = glance(source, 2 * SIDE)
    except ImageError:
        return None
    return thumbnail(grey), width / height


def alike(one: tuple[np.ndarray, float] | None, other: tuple[np.ndarray, float] | None) -> float:
    """Similarity of two pictures, from 0 to 1: the correlation of thumbnails of one shape that are not blank."""
    if one is None or other is None or max(one[1] / other[1], other[1] / one[1]) > MOST_SHAPE:
        return 0.0
    left, right = (picture.ravel() - picture.mean() for picture in (one[0], other[0]))
    if min(left.std(), right.std()) < LEAST_CONTRAST:
        return 0.0
    return max(0.0, float(left @ right / np.sqrt((left @ left) * (right @ right))))


def as_report(benchmarks: Sequence[HashedSet], matches: Sequence[Match], index: Index) -> dict[str, Any]:
    """Everything that was compared and found, as plain values."""
    return {
        "benchmarks": [
            {
                "name": one.name,
                "pictures": len(one.labels),
                "unreadable": list(one.unreadable),
                "matches": sum(match.benchmark == one.name for match in matches),
            }
            for one in benchmarks
        ],
        "images": len(index.look_I),
        "records": len(index),
        "most_bits": MOST_BITS,
        "least_likeness": LEAST_LIKENESS,
        "matches": [{"name": index.name(match.record), **asdict(match)} for match in matches],
    }
