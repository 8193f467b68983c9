"""Parquet files wherever they are: found by a path, folder, glob or URL, and read row by row in any order."""

from __future__ import annotations

import fnmatch
import glob
import io
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lorgnette.data.sources.reading.hub_sets import fetch_set, files_of_part, is_hub_set
from lorgnette.data.sources.reading.nested import any_starts
from lorgnette.errors import DataError
from lorgnette.inputs.access import is_below, read_file, within
from lorgnette.untrusted import quoted, reason_of

log = logging.getLogger("lorgnette")

FOLDER = "__folder__"
"""The key under which a row says in which folder (or below which URL) its shard lies: relative paths start there."""
_KEEP_BYTES = 256 * 2**20
"""Decoded row groups that a reader keeps, in bytes; the newest one is kept whatever its size."""
KEEP_FILES = 16
"""Files that a reader keeps open."""


def is_url(path: str) -> bool:
    return "://" in path


def list_shards(path: str) -> tuple[str, ...]:
    """The parquet files of a path, in the order of their names; see `list_files`."""
    return list_files(path, (".parquet",))


def list_files(path: str, suffixes: Sequence[str]) -> tuple[str, ...]:
    """The files with one of these suffixes (lower case; "" for any) that a path means, in the order of their names.

    path: a file, a folder (searched to any depth, hidden files left out), a glob, a URL of these that fsspec opens, or
        a place of the built-in corpus (`builtin:train/instruct`), or the id of a data set on the hub (`owner/name`, or
        `owner/name:train` for the files of a split alone).
    A file that is named itself is taken whatever its suffix.
    Raises: DataError if nothing is found, or the place cannot be listed.
    """
    if path.startswith("builtin:"):
        from lorgnette.data.builtin.shipped import resolve

        path = resolve(path)
    elif is_hub_set(path):
        named, path = path, fetch_set(path)
        part = files_of_part(named)
        files = [one for one in _list_local(path, suffixes) if part is None or _below_folder(one, path) in part]
        return _checked(files, named, suffixes)
    found = _list_url(path, suffixes) if is_url(path) else _list_local(path, suffixes)
    return _checked(found, path, suffixes)


def _below_folder(name: str, folder: str) -> str:
    return Path(os.path.relpath(name, folder)).as_posix()


def _checked(found: Sequence[str], path: str, suffixes: Sequence[str]) -> tuple[str, ...]:
    """The files that were found. Raises: DataError if there are none."""
    if not found:
        endings = " or ".join(filter(None, suffixes))
        raise DataError(f"{path}: holds no file{endings and f' that ends with {endings}'}; check the path")
    return tuple(found)


def _list_local(path: str, suffixes: Sequence[str]) -> list[str]:
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        passed_over: list[str] = []
        found = sorted(name for name in _walk(path, passed_over) if _wanted(os.path.relpath(name, path), suffixes))
        if passed_over:
            advice = "links that lead nowhere or outside of the folder; name what they lead to, or a glob, to read it"
            log.warning("%s: %d passed over, %s first: %s", path, len(passed_over), quoted(passed_over[0]), advice)
        return found
    found = [name for name in _matches(path) if os.path.isfile(name)]
    if not found:
        raise DataError(f"{path}: no such file or folder, and no file matches it as a glob")
    return sorted(found)


def _walk(top: str, passed_over: list[str]) -> Iterator[str]:
    """The regular files below a folder; each real folder once, however many links lead to it.

    Links are followed within the folder (and to the files of the hub's cache); others are added to `passed_over`.
    Pipes and devices are none of the source's files.
    """
    roots = (os.path.realpath(top), *map(os.path.realpath, hub_blobs(top)))
    seen = {roots[0]}
    for folder, folders, names in os.walk(top, followlinks=True):
        kept = []
        for name in sorted(folders):
            inner = os.path.join(folder, name)
            real = os.path.realpath(inner)
            if not any(is_below(real, root) for root in roots):
                passed_over.append(inner)
            elif real not in seen:
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        for name in names:
            file = os.path.join(folder, name)
            if os.path.islink(file):
                real = os.path.realpath(file)
                if not os.path.exists(real) or not any(is_below(real, root) for root in roots):
                    passed_over.append(file)
                    continue
            if os.path.isfile(file):
                yield file


def _matches(pattern: str) -> Iterator[str]:
    """Expand a glob as `glob.glob` does, but `**` enters each real folder once."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    place = parts.index("**")
    head = os.sep.join([*parts[:place], ""])
    for top in glob.iglob(head) if head else [""]:
        for name in _walk(top or os.curdir, []):
            below = os.path.relpath(name, top or os.curdir)
            if _fits(below.split(os.sep), parts[place:]):
                yield os.path.join(top, below)


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a glob. Only a dot matches a dot at the start of a name."""
    if not parts or not names:
        return not (parts or names)
    name, part, last = names[0], parts[0], len(parts) == 1
    if name.startswith(".") and not part.startswith("."):
        return False
    if part == "**":
        return (not last and _fits(names, parts[1:])) or (len(names) == 1 and last) or _fits(names[1:], parts)
    return fnmatch.fnmatchcase(name, part) and _fits(names[1:], parts[1:])


def hub_blobs(folder: str) -> list[str]:
    """Folder of the hub's cached files, for a folder of links to them (`snapshots/<revision>`); nothing for others."""
    head, snapshots, _ = os.path.abspath(folder).partition(f"{os.sep}snapshots{os.sep}")
    return [os.path.join(head, "blobs")] if snapshots and os.path.isdir(os.path.join(head, "blobs")) else []


def _list_url(path: str, suffixes: Sequence[str]) -> list[str]:
    files, inner = open_url(path)
    try:
        if glob.has_magic(inner):
            found = [name for name, about in files.glob(inner, detail=True).items() if about["type"] == "file"]
        elif files.isfile(inner):
            return [path]
        else:
            found = [str(name) for name in files.find(inner)]
            found = [name for name in found if _wanted(_below(name, inner), suffixes)]
    except Exception as error:  # every fsspec implementation raises errors of its own
        raise DataError(f"{path}: cannot be listed ({reason_of(error)})") from None
    return sorted(str(files.unstrip_protocol(name)) for name in found)


def _below(name: str, folder: str) -> str:
    return name.removeprefix(folder.rstrip("/")).lstrip("/")


def _wanted(relative: str, suffixes: Sequence[str]) -> bool:
    parts = PurePosixPath(Path(relative).as_posix()).parts
    return parts[-1].lower().endswith(tuple(suffixes)) and not any(part.startswith((".", "_")) for part in parts)


def open_url(path: str) -> tuple[Any, str]:
    """The fsspec file system behind a URL, and the path within it. Raises: DataError."""
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]
    except ImportError:
        raise DataError(f"{path}: reading a URL needs `pip install 'lorgnette[data]'`") from None
    try:
        files, inner = url_to_fs(path)
    except Exception as error:  # an unknown protocol, or one whose package is not installed
        raise DataError(f"{path}: cannot be opened ({reason_of(error)})") from None
    return files, inner


def local_path(url: str) -> str | None:
    """The path that a `file://` URL means, or a path itself; None for other URLs."""
    scheme, sign, path = url.partition("://")
    if not sign:
        return url
    return path if scheme.lower() in ("file", "local") and "::" not in url else None


def read_bytes(path: str, most_bytes: int | None = None, seconds: float | None = None) -> bytes:
    """The whole of a regular file or of what a URL leads to. Raises: DataError naming it.

    most_bytes, seconds: refuse what is larger, or takes longer; None for no limit.
    """
    try:
        if not is_url(path):
            return read_file(path, most_bytes)
        if seconds is None:
            return _read_url(path, most_bytes)
        return within(seconds, _read_url, path, most_bytes)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except TimeoutError:
        raise DataError(f"{path}: takes longer than {seconds:.3g} seconds") from None
    except Exception as error:  # every fsspec implementation raises errors of its own
        raise DataError(f"{path}: cannot be read ({reason_of(error)})") from None


def _read_url(url: str, most_bytes: int | None) -> bytes:
    files, inner = open_url(url)
    if most_bytes is None:
        return bytes(files.cat_file(inner))
    if int(files.info(inner).get("size") or 0) <= most_bytes:
        with files.open(inner, "rb") as stream:
            content = bytes(stream.read(most_bytes + 1))
        if len(content) <= most_bytes:
            return content
    raise DataError(f"{url}: has more than {most_bytes >> 20} MiB")


def _is_utf8(path: str) -> bool:
    """Return whether a name is UTF-8, which pyarrow asks of paths."""
    return not any("\udc80" <= char <= "\udcff" for char in path)


def folder_of(path: str) -> str:
    """The folder of a file, or the URL above it."""
    return path.rpartition("/")[0] if is_url(path) else os.path.dirname(path)


class Shards:
    """Random access to the rows of parquet files. Rows come as dicts of plain values, with their folder at `FOLDER`.

    Made for one process at a time: a copy in another process (pickled or forked) opens the files itself.
    """

    def __init__(self, paths: Sequence[str], columns: Sequence[str] | None = None) -> None:
        """columns: those to read, as far as a file has them; None for all."""
        self.paths = tuple(paths)
        self.columns = None if columns is None else tuple(columns)
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._tables: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "columns": self.columns}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def groups(self, shard: int) -> tuple[int, ...]:
        """Rows in each row group of a shard. Raises: DataError naming the file if it is not parquet."""
        metadata = self._file(shard).metadata
        return tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))

    def schema(self, shard: int) -> pa.Schema:
        """The types of a shard's columns. Raises: DataError naming the file if it is not parquet."""
        return self._file(shard).schema_arrow

    def leaves(self, shard: int) -> list[str]:
        """The paths of a shard's columns and of what they hold (`images.list.element.path`). Raises: as `schema`."""
        schema = self._file(shard).schema
        return [schema.column(number).path for number in range(len(schema))]

    def read(self, shard: int, group: int, row: int) -> dict[str, Any]:
        """One row. Raises: DataError naming the file and place."""
        table = self._table(shard, group)
        if not 0 <= row < table.num_rows:
            raise DataError(
                f"{self.paths[shard]}, group {group}: has no row {row}, only {table.num_rows}; prepare again"
            )
        return self._plain(table, shard, row)

    def rows(self, shard: int, group: int) -> Iterator[dict[str, Any]]:
        """All rows of a row group, in order."""
        table = self._table(shard, group)
        return (self._plain(table, shard, row) for row in range(table.num_rows))

    def batches(self, shard: int, group: int, rows: int = 64) -> Iterator[pa.RecordBatch]:
        """A row group a few rows at a time, of which nothing is kept. Raises: DataError naming the file and group."""
        file = self._file(shard)
        columns = self._present(file, shard, group)
        try:
            yield from file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False)
        except Exception as error:  # damaged pages raise OSError, ArrowInvalid, and what fsspec adds
            raise DataError(f"{self.paths[shard]}, group {group}: cannot be read ({reason_of(error)})") from None

    def holds(self, shard: int, wanted: Callable[[str], bool], start: str) -> bool:
        """Return whether a string column, at any depth, holds a value that starts like this. Reads no other column.

        wanted: whether a column is looked at, by its path in the file (`images.list.element.path`).
        """
        file = self._file(shard)
        leaves = [file.schema.column(number) for number in range(len(file.schema))]
        names = [leaf.path for leaf in leaves if leaf.logical_type.type == "STRING" and wanted(leaf.path)]
        groups = range(file.metadata.num_row_groups) if names else ()
        return any(any_starts(self._decode(file, shard, group, names), start) for group in groups)

    def _plain(self, table: pa.Table, shard: int, row: int) -> dict[str, Any]:
        try:
            (values,) = table.slice(row, 1).to_pylist(maps_as_pydicts="lossy")
        except (ValueError, TypeError, OverflowError, KeyError, pa.ArrowException) as error:
            raise DataError(f"{self.paths[shard]}, row {row} of a group: cannot be read ({reason_of(error)})") from None
        return {**values, FOLDER: folder_of(self.paths[shard])}

    def _file(self, shard: int) -> pq.ParquetFile:
        if self._process != os.getpid():
            self._forget()
        if shard not in self._files:
            self._files[shard] = self._open(self.paths[shard])
            if len(self._files) > KEEP_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(shard)
        return self._files[shard]

    def _open(self, path: str) -> pq.ParquetFile:
        try:
            if is_url(path):
                files, inner = open_url(path)
                file = pq.ParquetFile(files.open(inner, "rb"), pre_buffer=True)
            else:
                file = pq.ParquetFile(path if _is_utf8(path) else io.FileIO(path))
            _ = file.schema_arrow.names  # which fails where they are no text
            return file
        except DataError:
            raise
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; prepare the source again if it was moved") from None
        except Exception as error:  # every fsspec implementation raises errors of its own
            raise DataError(f"{path}: cannot be read as parquet ({reason_of(error)})") from None

    def _table(self, shard: int, group: int) -> pa.Table:
        file, key = self._file(shard), (shard, group)
        if key not in self._tables:
            self._tables[key] = self._decode(file, shard, group)
            size = sum(table.nbytes for table in self._tables.values())
            while size > _KEEP_BYTES and len(self._tables) > 1:
                size -= self._tables.popitem(last=False)[1].nbytes
        self._tables.move_to_end(key)
        return self._tables[key]

    def _decode(self, file: pq.ParquetFile, shard: int, group: int, leaves: list[str] | None = None) -> pa.Table:
        path, columns = self.paths[shard], leaves or self._present(file, shard, group)
        try:
            return file.read_row_group(group, columns=columns, use_threads=False)
        except Exception as error:  # damaged pages raise OSError, ArrowInvalid, and what fsspec adds
            raise DataError(f"{path}, group {group}: cannot be read ({reason_of(error)})") from None

    def _present(self, file: pq.ParquetFile, shard: int, group: int) -> list[str]:
        """The columns to read that the file has. Raises: DataError if it has none, or not the row group."""
        path = self.paths[shard]
        if not 0 <= group < file.metadata.num_row_groups:
            raise DataError(f"{path}: has no row group {group}, only {file.metadata.num_row_groups}; prepare again")
        present = file.schema_arrow.names
        columns = present if self.columns is None else [name for name in self.columns if name in present]
        if not columns:
            wanted, there = ", ".join(self.columns or ()), ", ".join(present)
            raise DataError(f"{path}: has none of the columns {wanted}; its columns are {there}")
        return list(columns)
