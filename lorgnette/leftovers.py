"""Temporary files and folders beside a target: their names, and the removal of those whose writer was killed.

A name says who writes: host, machine, process and when that process began. So another process can tell whether the
writer is still there, and removes what it left only if it is not.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

DAY = 24 * 3600.0
"""Seconds without a change after which what another machine's process writes counts as left behind."""
MAX_NAME = 255
"""Bytes of a file's name that file systems take."""
_NAME = re.compile(
    r"\.(?P<target>.+)\.(?P<host>[^.]+)\.(?P<machine>[0-9a-f]{8})\.(?P<pid>[0-9]{1,10})\.(?P<began>[0-9]{1,20})"
    r"\.(?P<kind>tmp|old)",
    re.DOTALL,
)
_FORMER = re.compile(r"\..+\.(?P<pid>[0-9]{1,10})\.tmp", re.DOTALL)
"""The names that earlier versions gave, which say neither the machine nor when the process began."""
HOUR = 3600.0
_CUT = re.compile(r"(?P<start>.*)~(?P<digest>[0-9a-f]{12})", re.DOTALL)
"""A target's name that was too long to be repeated whole."""


def beside(path: Path, kind: Literal["tmp", "old"] = "tmp") -> Path:
    """The hidden path beside `path` that this process writes to, or moves what was there to.

    It is a name that the file system takes wherever it takes that of `path`.
    """
    process = f".{_host()}.{_machine()}.{os.getpid()}.{_own(os.getpid())}.{kind}"
    name, room = os.fsencode(path.name), MAX_NAME - len(process) - 1
    if len(name) > room:
        digest = hashlib.sha256(name).hexdigest()[:12]
        name = os.fsencode(name[: room - 13].decode("utf-8", "ignore")) + b"~" + digest.encode()
    return path.with_name(f".{os.fsdecode(name)}{process}")


def clear(folder: Path) -> Iterator[str]:
    """Remove what killed writers left in a folder, and put back what one had moved away. Yields sentences for people.

    Nothing else is touched: no name that is not of this very form, none of a process that is still there, and none of
    another machine that was changed within a day.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.startswith("."))
    except OSError:
        return
    removed = []
    for name in names:
        found = _NAME.fullmatch(name)
        if not (_is_left(folder / name, found) if found else _is_former(folder / name)):
            continue
        if found and found["kind"] == "old" and (target := _put_back(folder, found)):
            yield f"{target}: put back, as it was before a process that was killed while it wrote a new one"
            continue
        if remove(folder / name):
            removed.append(name)
    if removed:
        more = f" and {len(removed) - 1} more" if len(removed) > 1 else ""
        yield f"{folder}: removed what a process that was killed left half written ({removed[0]}{more})"


def exchange(one: Path, other: Path) -> bool:
    """Let two paths change names in one step. False where the system cannot: on Linux alone, and not on every disk."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(call(here, os.fsencode(one), here, os.fsencode(other), swap) == 0)


def _is_left(path: Path, found: re.Match[str]) -> bool:
    if (found["host"], found["machine"]) == (_host(), _machine()):
        return not _is_running(int(found["pid"]), int(found["began"]))
    return _changed(path) < time.time() - DAY


def _is_former(path: Path) -> bool:
    """Return whether an earlier version left this: its host is this one, its process is gone, and it is an hour old."""
    found = _FORMER.fullmatch(path.name)
    if found is None or not path.name.endswith(f".{platform.node()}.{found['pid']}.tmp"):
        return False
    return not _is_running(int(found["pid"]), 0) and _changed(path) < time.time() - HOUR


def _put_back(folder: Path, found: re.Match[str]) -> Path | None:
    """Give a folder that was moved away its name again, if that is free and known whole."""
    target = folder / found["target"]
    if _CUT.fullmatch(found["target"]) or os.path.lexists(target):
        return None
    try:
        os.rename(folder / found[0], target)
    except OSError:
        return None
    return target


def remove(path: Path) -> bool:
    """Remove a file, a link or a folder with all that it holds. Returns whether it is gone; raises nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return False
    return not os.path.lexists(path)


def _changed(path: Path) -> float:
    """Return when a file, or anything in a folder, was last changed; now if that cannot be known."""
    try:
        times = [os.lstat(path).st_mtime]
        for here, folders, files in os.walk(path):
            times += [os.lstat(os.path.join(here, name)).st_mtime for name in (*folders, *files)]
        return max(times)
    except OSError:
        return time.time()


def _is_running(pid: int, began: int) -> bool:
    """Return whether the process that began then is still there; another one that has its number now is not."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is there, and somebody else's
        pass
    return began == 0 or _began(pid) in (0, began)


def _began(pid: int) -> int:
    """Return the start time of a process, in ticks since the machine's; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        state, *fields = status.rpartition(")")[2].split()
        return 1 if state in "ZX" else int(fields[18])  # a process that has ended and was not waited for writes no more
    except (OSError, ValueError, IndexError):
        return 0


@lru_cache(maxsize=1)
def _own(pid: int) -> int:
    """Return the start time of this process, asked once."""
    return _began(pid)


@cache
def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", platform.node())[:32] or "host"


@lru_cache(maxsize=1)
def _machine() -> str:
    """Eight hex digits that name what process numbers belong to: this start of the machine, and of its container."""
    held = []
    for read in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text(), lambda: os.readlink("/proc/self/ns/pid")):
        try:
            held.append(read())
        except OSError:
            held.append("")
    return hashlib.sha256("".join(held).encode()).hexdigest()[:8]
