"""API keys: read from a file or the environment, kept as digests, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from pathlib import Path

from lorgnette.errors import SettingsError

ENVIRONMENT = "LORGNETTE_API_KEYS"
"""Variable that may hold keys, separated by commas."""
LEAST_LENGTH = 16
"""Characters of the shortest key that is accepted."""


class ApiKeys:
    """Keys that open the server. Without any it is open."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(key) for key in dict.fromkeys(keys)]

    def __len__(self) -> int:
        return len(self._digests)

    def owner(self, authorization: str) -> str | None:
        """A short name for whoever sends this Authorization header; None for nobody that is known.

        All keys are compared, so that the time says nothing about them.
        """
        if not self._digests:
            return ""
        scheme, _, key = authorization.partition(" ")
        given = _digest(key.strip())
        found = [digest for digest in self._digests if hmac.compare_digest(digest, given)]
        return found[0].hex()[:16] if found and scheme.lower() == "bearer" else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def read_keys(file: Path | None) -> ApiKeys:
    """The keys of a file (one a line, `#` begins a comment) and of the environment.

    Raises: SettingsError naming the line that holds no key.
    """
    keys = [key.strip() for key in os.environ.get(ENVIRONMENT, "").split(",") if key.strip()]
    for number, key in enumerate(keys, 1):
        _check(key, f"{ENVIRONMENT}, key {number}")
    if file is None:
        return ApiKeys(keys)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{file}: cannot be read; give a text file with one key a line") from None
    written = {number: key for number, line in enumerate(lines, 1) if (key := line.partition("#")[0].strip())}
    for number, key in written.items():
        _check(key, f"{file}, line {number}")
    if not written:
        raise SettingsError(f"{file}: holds no key; write one a line")
    return ApiKeys([*keys, *written.values()])


def _check(key: str, where: str) -> None:
    if len(key) < LEAST_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(f"{where}: a key has {LEAST_LENGTH} or more printable characters; make a longer one")
