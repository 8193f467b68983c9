"""Writing so that nothing is lost on a kill: beside the target first, then renamed. A full disk is one sentence."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lorgnette.errors import LorgnetteError

AGAIN = " and run the same command again, it goes on where it was"
"""What is said of a full disk where it ends the command."""


class DiskError(LorgnetteError):
    """A file or folder cannot be written: the disk is full, or permission is missing."""


@contextlib.contextmanager
def explain_disk(path: str | Path) -> Iterator[None]:
    """Turn an OSError met while writing `path` into a DiskError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = f"the disk is full; free some space{AGAIN}"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "no permission to write there; choose another folder"
        else:
            advice = error.strerror or str(error)
        raise DiskError(f"{path}: cannot be written: {advice}") from error


def _writer() -> str:
    """Names this process among all that may write to a shared disk."""
    return f"{platform.node()}.{os.getpid()}"


@contextlib.contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; rename it to `path` when the block ends well, remove it otherwise."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{_writer()}.tmp")
    try:
        with explain_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield beside
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give an empty folder beside `path` to fill; it takes the place of `path` when the block ends well."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{_writer()}.tmp")
    try:
        with explain_disk(path):
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            yield beside
            _replace_folder(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _replace_folder(beside: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.{_writer()}.old")
    if path.exists():
        os.replace(path, old)
    os.replace(beside, path)
    shutil.rmtree(old, ignore_errors=True)


def strangers(folder: str | Path, ours: Iterable[str]) -> list[str]:
    """Names in `folder` that match none of the patterns `ours`: a writer that replaces the folder did not write them.

    A folder within counts as a stranger unless its pattern ends in a slash.
    """
    folder, patterns = Path(folder), tuple(ours)
    if not folder.is_dir():
        return []
    entries = {f"{path.name}/" if path.is_dir() and not path.is_symlink() else path.name for path in folder.iterdir()}
    return sorted(name for name in entries if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def share(path: str | Path) -> None:
    """Give a file the permissions that a new one has here, where a library made it for its owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)


def write_text(path: str | Path, text: str) -> None:
    with new_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; non-finite numbers are refused (they are not JSON)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def user_cache() -> Path:
    """Where a user's computer keeps what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lorgnette"
