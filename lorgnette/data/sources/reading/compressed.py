"""Files that may be compressed, opened for reading within a budget of bytes for what they expand to."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, cast

import pyarrow as pa

from lorgnette.data.sources.reading.shards import is_url, read_bytes
from lorgnette.errors import DataError
from lorgnette.untrusted import quoted

FREE_BYTES = 256 * 2**20
"""A compressed file may expand to this many bytes, and beyond it to `MOST_RATIO` times its own size."""
MOST_RATIO = 200
"""Text that repeats itself compresses to a hundredth; what is made to exhaust memory, to a thousandth and less."""
MOST_MEMORY = 80 * 2**20
"""Bytes that a decompressor may take for itself: `xz -9` needs 65 MiB, and a file can ask for 4 GiB."""

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
_SHORT = ".tgz"
"""A name for `.tar.gz`."""
FAULTS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, pa.ArrowException, MemoryError)


def expanded_name(path: str) -> str:
    """The name of a file in small letters, without the suffix of its compression."""
    name = path.lower()
    if name.endswith(_SHORT):
        return f"{name.removesuffix(_SHORT)}.tar"
    return name.rpartition(".")[0] if name.endswith(COMPRESSIONS) else name


@contextmanager
def open_expanded(path: str) -> Iterator[io.BufferedReader]:
    """A file, or what a URL leads to, as a stream of its bytes, unpacked if it is compressed.

    Raises: DataError naming the file if it is no regular file or cannot be read, here or while it is read; while it is
        read also if it is damaged, or expands to more than its budget.
    """
    with ExitStack() as stack:
        stream, size = _open(path)
        stack.callback(stream.close)
        if path.lower().endswith((*COMPRESSIONS, _SHORT)):
            try:
                inner = _expanding(stream, path.lower().rpartition(".")[2])
            except FAULTS as error:
                raise _fault(path, error) from None
            most: int | None = FREE_BYTES + MOST_RATIO * size
        else:
            inner, most = stream.read, None
        reader = io.BufferedReader(cast(io.RawIOBase, _Budgeted(inner, path, most)), 2**20)
        stack.callback(reader.close)
        yield cast(io.BufferedReader, reader)


def read_expanded(path: str) -> bytes:
    """The whole of a file, unpacked if it is compressed. Raises: DataError, as `open_expanded`."""
    with open_expanded(path) as stream:
        return stream.read()


def _open(path: str) -> tuple[BinaryIO, int]:
    if is_url(path):
        content = read_bytes(path)
        return io.BytesIO(content), len(content)
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            raise DataError(f"{path}: is no regular file")
        return open(path, "rb"), about.st_size
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({quoted(str(error))})") from None


def _expanding(stream: BinaryIO, suffix: str) -> Callable[[int], bytes]:
    """A function that reads at most so many bytes of what a compressed stream expands to; none at its end."""
    if suffix in ("gz", "tgz"):
        return gzip.GzipFile(fileobj=stream, mode="rb").read
    if suffix == "zst":
        return _zstd(stream)
    if suffix == "xz":
        return _Members(stream, lambda: lzma.LZMADecompressor(memlimit=MOST_MEMORY)).read
    return _Members(stream, bz2.BZ2Decompressor).read


def _zstd(stream: BinaryIO) -> Callable[[int], bytes]:
    """The same for zstd. `read` of pyarrow never frees its buffer where the stream is damaged; `readinto` has none."""
    packed = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")

    def read(size: int) -> bytes:
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: packed.readinto(buffer)])

    return read


class _Members:
    """Reads bz2 and xz streams, of which a file may hold several one after another."""

    def __init__(self, stream: BinaryIO, new: Callable[[], Any]) -> None:
        self.stream, self.new, self.left = stream, new, b""
        self.decompressor: Any = new()

    def read(self, size: int) -> bytes:
        while True:
            if self.decompressor.eof:
                self.left = (self.decompressor.unused_data or self.left).lstrip(b"\0") or self.stream.read(65536)
                if not self.left:
                    return b""
                self.decompressor = self.new()
            elif self.decompressor.needs_input and not self.left:
                self.left = self.stream.read(65536)
                if not self.left:
                    raise EOFError("the file ends before its end marker")
            content: bytes = self.decompressor.decompress(self.left, max_length=size)
            self.left = b""
            if content:
                return content


class _Budgeted(io.RawIOBase):
    """A stream whose faults are DataErrors, and that gives no more bytes than it may."""

    def __init__(self, inner: Callable[[int], bytes], path: str, most: int | None) -> None:
        self.inner, self.path, self.most, self.count = inner, path, most, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self.inner(len(buffer))
        except FAULTS as error:
            raise _fault(self.path, error) from None
        self.count += len(content)
        if self.most is not None and self.count > self.most:
            raise DataError(f"{self.path}: expands to more than {self.most:,} bytes; unpack it yourself if it is yours")
        buffer[: len(content)] = content
        return len(content)


def _fault(path: str, error: BaseException) -> DataError:
    reason = quoted(" ".join(str(error).split()) or type(error).__name__)
    return DataError(f"{path}: cannot be read ({reason})")
