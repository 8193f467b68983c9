"""Lists of those who opted out: files of web addresses and SHA-256 hashes, one a line."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from lorgnette.data.index import Index
from lorgnette.data.prepare.image_facts import short_sha
from lorgnette.data.prepare.scan import hash_url
from lorgnette.data.sources.reading.shards import read_bytes
from lorgnette.errors import DataError
from lorgnette.inputs.access import is_link

SHA = re.compile(r"[0-9a-fA-F]{64}")


def read_list(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the web addresses, and of the images, that a file lists (uint64). Blank lines and `#` are passed over.

    Raises: DataError naming the line that is neither.
    """
    urls, images = [], []
    for number, line in enumerate(read_bytes(path).decode("utf-8-sig", errors="replace").splitlines(), 1):
        line = line.strip()
        if SHA.fullmatch(line):
            images.append(short_sha(bytes.fromhex(line)))
        elif is_link(line):
            urls.append(hash_url(line))
        elif line and not line.startswith("#"):
            raise DataError(f"{path}, line {number}: {line!r:.80} is neither a URL nor a SHA-256 of 64 hex digits")
    return np.array(urls, dtype=np.uint64), np.array(images, dtype=np.uint64)


def opted_out(index: Index, url_W: np.ndarray, owner_W: np.ndarray, lists: Sequence[str]) -> dict[int, str]:
    """Records of which an image, or the address of one, is listed, each with the reason in words."""
    owner_I = index.record_of_image()
    found: dict[int, str] = {}
    for path in lists:
        urls, images = read_list(path)
        for record in owner_W[np.isin(url_W, urls)].tolist():
            found.setdefault(record, f"an address in {path}")
        for record in owner_I[np.isin(index.sha_I, images)].tolist():
            found.setdefault(record, f"an image in {path}")
    return found
