"""Process that reads mutated inputs: started once, it forks for every batch, so that packages are imported once.

Requests come on standard input, one JSON object a line: `{"batch", "reader", "seed", "start", "count"}`. Answers go to
what was standard output, one JSON object a line, each with the number of its batch: `{"pid"}` of the fork, `{"ready"}`
once the good inputs are read, `{"begun"}` and `{"input", "outcome", ...}` for each input, `{"broken"}` if the fork
itself fails, and last `{"end"}` with the status of the fork.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from random import Random
from typing import Any

STATUS = Path("/proc/self/status")
OUT = 1
"""Descriptor of the answers."""
ASKED: dict[str, Any] = {}
"""The request that is being answered."""


def say(**values: Any) -> None:
    os.write(OUT, json.dumps({"batch": ASKED["batch"], **values}).encode() + b"\n")  # short, hence written at once


def peak() -> int:
    """Most resident bytes since the last `reset_peak`."""
    if STATUS.exists():
        return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # then the peak is that of all inputs so far
        return


def one_input(reader: str, seed: int, number: int) -> bytes:
    """The mutated input of a number: a function of the reader's name, the seed and the number alone."""
    from tests.fuzz.readers import FAULTY, READERS

    digest = hashlib.sha256(f"{reader} {seed} {number}".encode()).digest()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)  # what is nested several times over is still written down
    try:
        return (READERS | FAULTY)[reader].mutate(Random(digest))
    finally:
        sys.setrecursionlimit(limit)


def signature(error: BaseException) -> str:
    """The type of an error and the line of lorgnette's that it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/lorgnette/" in frame.filename]
    place = f"{frames[-1].filename.rsplit('/lorgnette/', 1)[-1]}:{frames[-1].lineno}" if frames else "outside"
    return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:150]}"


def read(reader: str, content: bytes, folder: Path) -> tuple[str, str]:
    """The outcome of one input, and what to know about it."""
    from tests.fuzz.readers import FAULTY, READERS

    one = (READERS | FAULTY)[reader]
    try:
        one.read(content, folder)
    except one.refusals:
        return "refused", ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # panics of extensions are no Exception
        return "traceback", signature(error)
    return "accepted", ""


def batch(reader: str, seed: int, start: int, count: int) -> None:
    from tests.fuzz.readers import FAULTY, READERS

    with tempfile.TemporaryDirectory(prefix="lorgnette-fuzz-") as root:
        for number, content in enumerate((READERS | FAULTY)[reader].seeds()):
            folder = Path(root) / f"seed-{number}"
            folder.mkdir()
            (READERS | FAULTY)[reader].read(content, folder)  # a good input that fails is a fault of the registry
        reset_peak()
        before = peak()
        say(ready=before)
        for number in range(start, start + count):
            folder = Path(root) / "input"
            folder.mkdir()
            content = one_input(reader, seed, number)
            reset_peak()
            say(begun=number)
            outcome, detail = read(reader, content, folder)
            say(input=number, outcome=outcome, detail=detail, bytes=len(content), grown=max(0, peak() - before))
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    global OUT
    OUT = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)  # what a reader prints is no answer
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]
    import torch

    import tests.fuzz.readers  # noqa: F401  before the forks

    torch.set_num_threads(1)
    for line in sys.stdin:
        ASKED.update(json.loads(line))
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.dup2(nothing, 0)  # requests are not for readers
                say(pid=os.getpid())
                batch(ASKED["reader"], ASKED["seed"], ASKED["start"], ASKED["count"])
                status = 0
            except BaseException as error:
                say(broken="".join(traceback.format_exception(error))[-1500:])
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        say(end=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
