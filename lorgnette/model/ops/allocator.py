"""Memory of the process, where tensors live in it: what glibc does with blocks that were freed."""

from __future__ import annotations

import ctypes
import functools
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, as malloc.h numbers them."""
LARGEST = 2**30


@functools.cache
def keep_freed_memory() -> bool:
    """Let the process keep freed blocks for the next ones; whether it does. For the whole process, once.

    glibc gives large freed blocks back and maps fresh pages for the next: a twentieth of an image encoder's time on a
    CPU went into that. Other systems and allocators are left as they are.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(MMAP_THRESHOLD, LARGEST), mallopt(TRIM_THRESHOLD, LARGEST)])
