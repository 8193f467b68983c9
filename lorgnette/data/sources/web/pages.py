"""Web pages wherever they are kept: HTML files of a folder or bucket, or records of WARC archives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Literal
from urllib.parse import unquote, urljoin, urlsplit

from lorgnette.data.record import Refused
from lorgnette.data.rejected import RejectedRow
from lorgnette.data.sources.reading.download import download
from lorgnette.data.sources.reading.shards import folder_of, is_url, list_files, open_url, read_bytes
from lorgnette.data.sources.reading.values import find_file
from lorgnette.data.sources.web.page_limits import beyond_limits
from lorgnette.data.sources.web.repeats import key_of
from lorgnette.errors import DataError, is_fault
from lorgnette.inputs.access import MOST_BYTES, is_link, read_file
from lorgnette.sample import decode_base64
from lorgnette.untrusted import quoted

HTML = (".html", ".htm", ".xhtml")
WARC = (".warc", ".warc.gz", ".warc.zst", ".warc.lz4")
MOST_ADDRESS = 8_000
"""Characters of an address: an archive may call megabytes one."""
HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})


@dataclass(frozen=True, slots=True)
class Page:
    """The markup of a page, and where it comes from."""

    file: str
    place: str
    """The record of an archive; empty for a file."""
    address: str
    """The URL of an archived page; the path or URL of a file."""
    content: bytes | str

    @property
    def site(self) -> str:
        """Key of pages with the same boilerplate: the host, or the folder."""
        if not is_link(self.address):
            return folder_of(self.address)
        try:
            return urlsplit(self.address).netloc.lower()
        except ValueError:  # an archive may say anything
            return self.address


@dataclass
class Pages:
    """All pages of a source, and the images that lie beside them or in the same archives."""

    path: str
    fetch: bool = True
    """Fetch images that the page only links to."""
    _files: tuple[str, ...] = ()
    _archived: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Key of an archived image's URL -> number of its file, and where its record begins."""

    def __post_init__(self) -> None:
        self._files = list_files(self.path, (*HTML, *WARC))

    def read(self, images: bool = False) -> Iterator[Page | RejectedRow]:
        """Every page in order, or why there is none.

        images: remember where archives hold images, so that `image` finds them. Records that are neither page nor
        image (requests, style sheets, notes of the crawler) are no pages, and are passed over.
        """
        for number, file in enumerate(self._files):
            if file.lower().endswith(WARC):
                yield from self._archive(number, file, images)
                continue
            try:
                yield _bounded(Page(file, "", file, read_bytes(file, MOST_BYTES)))
            except DataError as error:
                yield RejectedRow(file, "", "unreadable file", str(error))

    def _archive(self, number: int, file: str, images: bool) -> Iterator[Page | RejectedRow]:
        count = 0
        try:
            with _open(file) as stream:
                for count, record in enumerate(_all_records(stream), 1):
                    kind, status = _kind(record)
                    address, place = (record.headers.get("WARC-Target-URI") or "")[:MOST_ADDRESS], f"record {count}"
                    if status is None:
                        yield RejectedRow(file, place, "unreadable page", f"{address}: the record is cut off")
                    elif kind.startswith("image/") and images and status == 200:
                        self._archived.setdefault(key_of(address), (number, record.stream_pos))
                    elif kind in HTML_TYPES:
                        page = _archived_page(file, place, address, record)
                        yield _bounded(page) if isinstance(page, Page) else page
        except BaseException as error:  # fastwarc and file systems raise errors of many kinds on damaged archives
            if not is_fault(error):
                raise
            reason = quoted(" ".join(str(error).split()) or type(error).__name__)
            yield RejectedRow(file, f"behind record {count}", "unreadable file", reason)
            return
        if not count:
            yield RejectedRow(file, "", "unreadable file", "the archive holds no answer of a server")

    def image(self, page: Page, link: str, base: str) -> bytes:
        """The bytes of an image that a page shows. Raises: Refused.

        link: as the page has it; base: what the page says that its links start from, or "".
        """
        if link[:64].lstrip()[:5].lower() == "data:":
            return _inline(link)
        address = resolve(page, link, base)
        if not is_link(address):
            return self._beside(page, address)
        if (place := self._archived.get(key_of(address))) is not None:
            return self._from_archive(*place, address)
        if not self.fetch:
            raise Refused("not fetched", f"{address} (fetch is off)")
        return download(address)

    def _beside(self, page: Page, link: str) -> bytes:
        """The file that a relative link of a file means; `/a.png` is looked for below the source's own folder."""
        try:
            path = unquote(urlsplit(link).path)
            folder = folder_of(page.file)
            if path.startswith("/"):
                path = path.lstrip("/")
                folder = self.path if not is_url(self.path) and os.path.isdir(self.path) else folder
            found = find_file(path or os.curdir, folder)
            return found if isinstance(found, bytes) else read_file(found, MOST_BYTES)
        except (DataError, ValueError, OSError) as error:
            raise Refused("no image", quoted(str(error))) from None

    def _from_archive(self, number: int, place: int, address: str) -> bytes:
        try:
            with _open(self._files[number]) as stream:
                stream.seek(place)
                content = _unpacked(next(iter(_records(stream))))
        except BaseException as error:  # as above
            if not is_fault(error):
                raise
            reason = f"{quoted(address)} cannot be read from {self._files[number]} ({quoted(str(error))})"
            raise Refused("no image", reason) from None
        if content is None:
            raise Refused(
                "no image", f"{quoted(address)} has more than {MOST_BYTES >> 20} MiB in {self._files[number]}"
            )
        return content


def resolve(page: Page, link: str, base: str) -> str:
    """The URL that a link of a page means; for a page in a file, the link itself if it is relative.

    Pages that were saved with a `<base>` of the web start from there.
    """
    try:
        start = urljoin(page.address, base) if is_link(page.address) else base
        return urljoin(start, link) if is_link(start) else link
    except ValueError as error:
        raise Refused("no image", f"{quoted(link, 100)} is no link ({error})") from None


def _inline(link: str) -> bytes:
    """The bytes in a `data:` URL. Raises: Refused."""
    try:
        return decode_base64(link, "a data: link")
    except DataError as error:
        raise Refused("no image", str(error)) from None


def _open(file: str) -> IO[bytes]:
    if not is_url(file):
        return open(file, "rb")
    files, inner = open_url(file)
    stream: IO[bytes] = files.open(inner, "rb")
    return stream


def _all_records(stream: IO[bytes]) -> Iterator[Any]:
    """Responses of servers, decoded as HTTP says; also those behind a response that expands without end.

    fastwarc loses its way behind such an answer, so the next one is looked for without unpacking anything.
    """
    records, last = _records(stream), None
    while True:
        try:
            record = next(records, None)
        except BaseException as error:
            if last is None or not is_fault(error):
                raise
            stream.seek(last)
            packed, last = _records(stream, "none"), None
            next(packed)
            if (record := next(packed, None)) is not None:
                stream.seek(record.stream_pos)
                records = _records(stream)
                continue
        if record is None:
            return
        last = record.stream_pos
        yield record


def _records(stream: IO[bytes], decode: Literal["all", "none"] = "all") -> Iterator[Any]:
    """Responses of servers. decode: "all" for bodies as HTTP says that they are packed, "none" for bytes as sent."""
    try:
        from fastwarc.warc import ArchiveIterator, WarcRecordType
    except ImportError:
        raise DataError("reading WARC needs `pip install 'lorgnette[data]'`") from None
    kinds = WarcRecordType.response | WarcRecordType.resource
    return iter(ArchiveIterator(stream, record_types=kinds, parse_http=True, auto_decode=decode))


def _unpacked(record: Any) -> bytes | None:
    """The body of a record as HTTP says that it is packed; None if more than `MOST_BYTES` come out of it."""
    content = bytearray()
    while chunk := record.reader.read(min(2**20, MOST_BYTES + 1 - len(content))):
        content += chunk
        if len(content) > MOST_BYTES:
            return None
    return bytes(content)


def _bounded(page: Page) -> Page | RejectedRow:
    reason = beyond_limits(page.content)
    return RejectedRow(page.file, page.place, "large page", f"{page.address}: {reason}") if reason else page


def _kind(record: Any) -> tuple[str, int | None]:
    """Media type and status of an answer; None for the status where the record is cut off."""
    from fastwarc.warc import WarcRecordType

    if record.record_type == WarcRecordType.resource:
        kind, status = record.headers.get("Content-Type"), 200
    elif record.http_headers is None:
        return "", None
    else:
        kind, status = record.http_content_type, record.http_headers.status_code
    return (kind or "").partition(";")[0].strip().lower(), status or 0


def _archived_page(file: str, place: str, address: str, record: Any) -> Page | RejectedRow:
    status = _kind(record)[1]
    if status != 200:
        return RejectedRow(file, place, "not a page", f"{address}: the server answered {status}")
    try:
        content = _unpacked(record)
    except BaseException as error:  # packed in another way than its headers say
        if not is_fault(error):
            raise
        return RejectedRow(file, place, "unreadable page", f"{address}: {quoted(str(error))}")
    if content is None:
        return RejectedRow(
            file, place, "large page", f"{address}: more than {MOST_BYTES >> 20} MiB once it is unpacked"
        )
    if not content.strip():
        return RejectedRow(file, place, "empty", f"{address}: nothing was archived")
    try:
        return Page(file, place, address, content.decode(record.http_charset, "replace"))
    except (LookupError, TypeError):  # no charset, or one that nobody knows: the page may say it itself
        return Page(file, place, address, content)
