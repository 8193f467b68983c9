"""Version of the running code and, in a checkout, its commit."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import lorgnette


@functools.cache
def commit() -> str:
    """The commit of the checkout that lorgnette runs from, with a `+` if the package differs; `unknown` outside one."""
    root = Path(lorgnette.__file__).parent.parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        if not (root / ".git").exists():  # installed: a repository around it is somebody else's
            return "unknown"
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "lorgnette") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def code() -> dict[str, str]:
    """The version of lorgnette and the commit, as stored beside what they made."""
    return {"lorgnette": lorgnette.__version__, "commit": commit()}
