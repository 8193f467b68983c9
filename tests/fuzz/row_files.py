"""Readers of rows in files of every form, of rows of benchmarks, and of pages whose images a server gives."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lorgnette.data.record import Refused
from lorgnette.errors import DataError, LorgnetteError
from tests.fuzz.mutators import encoded, mutate_bytes, mutate_text, mutate_value
from tests.fuzz.readers import Reader, _csv, _jsonl, _page, _png, _rows, _sift, _sift_file, _table

PACKERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gz": partial(gzip.compress, mtime=0),
    b"bz2": bz2.compress,
    b"xz": lzma.compress,
    b"zst": lambda content: pa.Codec("zstd").compress(content, asbytes=True),
}


@cache
def _packed() -> list[bytes]:
    """Compressed rows, each behind a line with the suffix of its form."""
    rows = encoded("\n".join(json.dumps(row) for row in _rows("chat")))
    return [suffix + b"\n" + pack(rows) for suffix, pack in PACKERS.items()]


def _mutated_packed(rng: Random) -> bytes:
    suffix, _, content = rng.choice(_packed()).partition(b"\n")
    if rng.random() < 0.3:
        return suffix + b"\n" + PACKERS[suffix](_jsonl("chat", rng))
    return suffix + b"\n" + mutate_bytes(rng, [content])


def _unpack(content: bytes, folder: Path) -> None:
    suffix, _, packed = content.partition(b"\n")
    _sift("chat", f"rows.jsonl.{suffix.decode()}", packed, folder)


@cache
def _arrow_files() -> list[bytes]:
    batch = pa.RecordBatch.from_pylist([{"image": {"bytes": _png(), "path": None}, "prompt": "?", "completion": "A."}])
    made = []
    for new in (pa.ipc.new_stream, pa.ipc.new_file):
        file = io.BytesIO()
        with new(file, batch.schema) as writer:
            writer.write_batch(batch)
        made.append(file.getvalue())
    return made


@cache
def _archives() -> list[bytes]:
    made = []
    talk = json.dumps(_rows("chat")[0]["messages"]).encode()
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as archive:
            for name, content in (("a.png", _png()), ("a.txt", b"A tile."), ("b/c.json", talk), ("ü" * 90, b"x")):
                header = tarfile.TarInfo(name if form != tarfile.USTAR_FORMAT else name[:40])
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))
        made.append(file.getvalue())
    return made


def _captions(content: bytes, folder: Path) -> None:
    from tests.data.sources.sift import config, sift

    (folder / "source").mkdir()
    (folder / "source" / "a.png").write_bytes(_png())
    (folder / "source" / "a.txt").write_bytes(content)
    if not sift(config("pairs", folder / "source"), folder).records:
        raise DataError("refused")


OPT_OUT = ("https://a.example/a.png\n# one\n\n" + "0" * 64 + "\n", "http://b.example/\r\n" + "f" * 64)


def _opt_out(content: bytes, folder: Path) -> None:
    from lorgnette.data.prepare.opt_out import read_list

    (folder / "list.txt").write_bytes(content)
    read_list(str(folder / "list.txt"))


BENCHMARKS = ("vqav2", "docvqa", "chartqa", "mmbench", "mmmu", "mathvista", "ai2d", "coco", "textvqa")


@cache
def _asked(name: str) -> list[Any]:
    """Rows of a benchmark; images by path, as JSON has no bytes."""
    from tests.eval.fixtures import MAKERS

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return None
        if isinstance(value, dict):
            return {"path": "a.png", "bytes": None} if "bytes" in value else {k: plain(v) for k, v in value.items()}
        return [plain(one) for one in value] if isinstance(value, list) else value

    return [plain(row) for row in MAKERS[name](False)]


def _benchmark_row(rng: Random) -> bytes:
    name = rng.choice(BENCHMARKS)
    return encoded(f"{name}\n{json.dumps(mutate_value(rng, _asked(name)))}")


def _benchmark_seeds() -> list[bytes]:
    return [encoded(f"{name}\n{json.dumps(_asked(name)[0], default=str)}") for name in BENCHMARKS]


def _benchmark(content: bytes, folder: Path) -> None:
    from lorgnette.eval.benchmark import Asking
    from lorgnette.eval.tasks import BENCHMARKS as TABLE

    name, _, row = content.decode("utf-8", "surrogatepass").partition("\n")
    (folder / "a.png").write_bytes(_png())
    try:
        table = pa.Table.from_pylist([json.loads(row)])
        pq.write_table(table, folder / "rows.parquet")
    except (pa.ArrowException, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        raise DataError("no row of a table") from None
    benchmark = TABLE[name]
    asking = Asking(data={name: str(folder / "rows.parquet")}, incomplete=True)
    samples = benchmark.samples(asking, benchmark.split, "chat")
    for number in range(len(samples)):
        assert samples[number].segments


def _answers() -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"
    png = _png()
    return [
        head + b"Content-Length: %d\r\n\r\n" % len(png) + png,
        head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(png) + png + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /b.png\r\n\r\n",
    ]


ODD = (
    *(
        b"",
        b"\r\n",
        b"HTTP/0.9",
        b"\x89PNG\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/9.9 999 x\r\n\r\n",
        b"HTTP/1.1 -1 x\r\n",
    ),
    *(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nx", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx"),
    *(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\n\r\n"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 5000,
    *(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nx", b"HTTP/1.1 302 x\r\nLocation: http://[\r\n\r\n"),
    *(b"HTTP/1.1 100 Continue\r\n\r\n" * 200, b"HTTP/1.1 302 x\r\nLocation: file:///etc/hostname\r\n\r\n"),
    *(b"HTTP/1.1 302 x\r\n\r\n", b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:1/\xff\r\n\r\n"),
)
"""Answers that no server should give."""


def _served(rng: Random) -> bytes:
    return rng.choice(ODD) if rng.random() < 0.2 else mutate_bytes(rng, _answers())


@contextmanager
def _server(answer: bytes) -> Iterator[int]:
    """A server that gives the same bytes to whoever asks, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                with one:
                    try:
                        one.recv(65536)
                        one.sendall(answer)
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _fetch(content: bytes, folder: Path) -> None:
    from lorgnette.data.sources.reading import download

    download.PAUSE = 0.0
    with _server(content) as port:
        page = _page().replace("a.png", f"http://127.0.0.1:{port}/a.png")
        settings = {"allow_hosts": ["127.0.0.1"], "need_both": True, "smallest_side": 1}
        _sift("webpages", "a.html", encoded(page), folder, **settings)


READERS_OF_ROWS: dict[str, Reader] = {
    "instruct rows": _table("instruct", "rows.jsonl"),
    "interleaved rows": _table("interleaved", "rows.jsonl"),
    "pairs tsv": Reader(
        lambda: [encoded(_csv()[0].replace(",", "\t"))],
        lambda rng: mutate_bytes(rng, [encoded(one.replace(",", "\t")) for one in _csv()]),
        partial(_sift_file, "pairs", "metadata.tsv", {}),
    ),
    "packed rows": Reader(_packed, _mutated_packed, _unpack),
    "arrow": Reader(
        _arrow_files,
        lambda rng: mutate_bytes(rng, _arrow_files()),
        partial(_sift_file, "chat", "a.arrow", {}),
    ),
    "tar of pairs": Reader(
        lambda: _archives()[:1],
        lambda rng: mutate_bytes(rng, _archives()),
        partial(_sift_file, "pairs", "a.tar", {}),
    ),
    "tar of chats": Reader(
        lambda: _archives()[:1],
        lambda rng: mutate_bytes(rng, _archives()),
        partial(_sift_file, "chat", "a.tar", {}),
    ),
    "captions": Reader(
        lambda: [b"A tile."],
        lambda rng: rng.choice((b"", b"\xff", mutate_bytes(rng, [b"A tile.", b"\xef\xbb\xbfOne"]))),
        _captions,
    ),
    "opt-out lists": Reader(lambda: [encoded(OPT_OUT[0])], lambda rng: encoded(mutate_text(rng, OPT_OUT)), _opt_out),
    "benchmark rows": Reader(_benchmark_seeds, _benchmark_row, _benchmark, (LorgnetteError, Refused)),
    "fetched images": Reader(lambda: _answers()[:2], _served, _fetch),
}
"""Name -> reader."""
