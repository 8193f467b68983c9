"""Writing so that nothing is lost on a kill: beside the target first, then renamed. A full disk is one sentence."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import functools
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lorgnette import leftovers
from lorgnette.errors import LorgnetteError
from lorgnette.untrusted import quoted

HUB_ID = re.compile(r"(?P<name>[\w-][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w.-][\w./-]*))?")
"""`owner/name` of a repository on the hub, and after an `@` its branch, tag or commit."""
AGAIN = " and run the same command again, it resumes"
"""End of the message about a full disk, where it ends the command."""


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


@contextlib.contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; rename it to `path` when the block ends well, remove it otherwise.

    What killed writers left in that folder is removed first, once for each folder in a process. Raises: DiskError.
    """
    path = Path(path)
    beside = leftovers.beside(path)
    try:
        with explain_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            clear_once(path.parent)
            yield beside
            os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | Path, ours: Iterable[str]) -> Iterator[Path]:
    """Give an empty folder beside `path` to fill; it takes the place of `path` when the block ends well.

    What killed writers of `path` left is removed first; if the folder itself is missing because one was killed between
    two renames, it is put back.
    ours: patterns of the names that this writer makes, as `strangers` takes them; the folder is replaced with all that
    it holds, so anything else in it is refused, before anything is written and again before the exchange.
    Raises: DiskError.
    """
    path, ours = Path(path), tuple(ours)
    beside = leftovers.beside(path)
    try:
        with explain_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _say(leftovers.clear(path.parent))
            check_replaceable(path, ours)
            beside.mkdir()
            yield beside
            check_replaceable(path, ours)
            _replace_folder(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _replace_folder(beside: Path, path: Path) -> None:
    """Put a folder in the place of another, in one step where the system can exchange two names."""
    if os.path.lexists(path) and leftovers.exchange(beside, path):
        leftovers.remove(beside)
        return
    old = leftovers.beside(path, "old")
    if os.path.lexists(path):
        os.replace(path, old)
    os.replace(beside, path)
    leftovers.remove(old)


_cleared: set[str] = set()


def clear_once(folder: Path) -> None:
    """Remove what killed writers left in a folder, the first time that this process writes a file there."""
    if (key := os.path.abspath(folder)) not in _cleared:
        _cleared.add(key)
        _say(leftovers.clear(folder))


def _say(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        print(f"lorgnette: {sentence}", file=sys.stderr)


@contextlib.contextmanager
def locked_file(path: str | Path) -> Iterator[None]:
    """Hold a lock file for one process and thread at a time, others wait. The system lets go of it when one is killed.

    Raises: DiskError.
    """
    import filelock

    with explain_disk(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""Errors of a file system that knows no locks."""
_held: dict[str, list[Any]] = {}
_holding = threading.Lock()


def hold(path: str | Path, refusal: str) -> Callable[[], None]:
    """Hold a lock file for this process until it ends or calls what is returned; another process is refused.

    The system lets go of it when the process is killed: no lock that was left behind stops anybody. This process may
    hold it several times over.
    Raises: LorgnetteError with `refusal` if another process holds it; DiskError.
    """
    import filelock

    key = os.path.realpath(path)
    with _holding, explain_disk(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if key not in _held:
            lock = filelock.FileLock(path, timeout=0, thread_local=False)
            try:
                lock.acquire()
            except filelock.Timeout:
                raise LorgnetteError(refusal) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                _say([f"{path}: this disk knows no locks; see to it that no other process writes there"])
            _held[key] = [lock, 0]
        _held[key][1] += 1
    return functools.partial(_let_go, key, iter((key,)))


def is_held(path: str | Path) -> bool:
    """Return whether another process holds an existing lock file. It is free when this returns. Raises: DiskError."""
    import filelock

    with _holding, explain_disk(path):
        if os.path.realpath(path) in _held:
            return False
        lock = filelock.FileLock(path, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            return True
        except OSError as error:  # a disk without locks, as in `hold`
            if error.errno not in NO_LOCKS:
                raise
            return False
        lock.release()
        return False


def _let_go(key: str, once: Iterator[str]) -> None:
    """Give back one hold of a lock; does nothing the second time."""
    with _holding:
        if next(once, None) is None or key not in _held:
            return
        _held[key][1] -= 1
        if not _held[key][1]:
            _held.pop(key)[0].release()


def strangers(folder: str | Path, ours: Iterable[str]) -> list[str]:
    """Names in `folder` that match none of the patterns `ours`: a writer that replaces the folder did not write them.

    A folder within counts as a stranger unless its pattern ends in a slash.
    """
    folder, patterns = Path(folder), tuple(ours)
    if not folder.is_dir():
        return []
    entries = {f"{path.name}/" if path.is_dir() and not path.is_symlink() else path.name for path in folder.iterdir()}
    return sorted(name for name in entries if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def check_replaceable(folder: str | Path, ours: Iterable[str]) -> None:
    """Refuse a folder that a writer may not replace: a file, or one that holds names which match none of `ours`.

    Raises: DiskError naming what is there.
    """
    folder = Path(folder)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise DiskError(f"{folder}: is a file; give a new folder, or move it away")
    if others := strangers(folder, ours):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        said = f"{folder}: holds {quoted(others[0])}{more}, which lorgnette did not write"
        raise DiskError(f"{said}; give a new folder, or move it away")


def replace_text(path: str | Path, text: str, is_own: Callable[[bytes], bool]) -> None:
    """Write text to a file that a user named, if it is not there yet or holds what lorgnette wrote.

    is_own: whether a file's content is of the kind that is written. Raises: DiskError naming a file that is not.
    """
    check_own(path, is_own)
    write_text(path, text)


def check_own(path: str | Path, is_own: Callable[[bytes], bool]) -> None:
    """Refuse a path that holds something, unless that is an empty file or `is_own` knows it. Raises: DiskError."""
    with explain_disk(path):
        if not os.path.exists(path):
            return
        if not os.path.isfile(path):
            raise DiskError(f"{path}: is no file; give another name")
        content = Path(path).read_bytes()
    if content and not is_own(content):
        raise DiskError(f"{path}: is a file that lorgnette did not write; give another name, or move it away")


PAGE_MARK = b'<meta name="generator" content="lorgnette">'
"""Tag in the head of every page that is written."""


def is_own_page(content: bytes) -> bool:
    """Return whether an HTML file says near its beginning that lorgnette wrote it."""
    return PAGE_MARK in content[:2_000]


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
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text.encode("utf-8", "backslashreplace").decode())  # bytes of names that are no text stay escapes


@functools.cache
def _cache_without_home() -> Path:
    """A folder of this user's alone in the folder of temporary files. Raises: DiskError if somebody else has it."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"lorgnette-cache-{user}"
    with explain_disk(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o022:
        raise DiskError(f"{folder}: belongs to somebody else; set XDG_CACHE_HOME to a folder of your own")
    _say([f"there is no home directory; what can be made again is kept in {folder}, or set XDG_CACHE_HOME"])
    return folder


def expand_user(path: str | Path) -> Path:
    """A path with `~` replaced by the home directory; as it is, where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no HOME, or a user whom the system does not know
        return Path(path)


def user_cache() -> Path:
    """Return the folder of caches on this computer. Raises: DiskError if there is no such place."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # the standard: a relative one is ignored
        return Path(given) / "lorgnette"
    try:
        return Path.home() / ".cache" / "lorgnette"
    except RuntimeError:  # no HOME, and a user whom the system does not know
        return _cache_without_home()
