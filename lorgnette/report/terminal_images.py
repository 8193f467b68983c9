"""Pictures in the terminal, where it can show them: kitty's protocol, iTerm2's, or sixel.

A picture is decoded by our own door and drawn small, so that a terminal never gets a stranger's file.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import PIL.Image

from lorgnette.inputs.image_io import open_image
from lorgnette.sample import Image

Protocol = Literal["kitty", "iterm", "sixel", "none"]
PICTURE_SIDE = 320
"""Pixels of the longest side of a picture in the terminal."""
QUERY_SECONDS = 0.2
"""Time in which a terminal must say that it knows sixel; over a slow line it is taken for one that does not."""
_CHUNK = 4096
"""Bytes of a part of kitty's protocol."""
_MULTIPLEXERS = ("TMUX", "STY", "ZELLIJ")


def protocol_of(environ: Mapping[str, str], ask: Callable[[], str] = lambda: "") -> Protocol:
    """The protocol of a terminal, by its environment, or by what it answers about itself.

    ask: sends the query for device attributes, and returns the reply.
    """
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if term in ("", "dumb"):
        return "none"
    if not any(name in environ for name in _MULTIPLEXERS):  # which pass on none of these
        if "KITTY_WINDOW_ID" in environ or "kitty" in term or "ghostty" in term or program in ("ghostty", "WezTerm"):
            return "kitty"
        if program == "iTerm.app" or environ.get("LC_TERMINAL") == "iTerm2":
            return "iterm"
    attributes = re.search(r"\x1b\[\?([\d;]*)c", ask())
    return "sixel" if attributes and "4" in attributes.group(1).split(";")[1:] else "none"


def ask_terminal(seconds: float = QUERY_SECONDS) -> str:
    """The reply of the terminal to a query for its attributes; empty if there is none in time, or no terminal."""
    try:
        import select
        import termios
        import tty
    except ImportError:  # no Unix
        return ""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return ""
    place = sys.stdin.fileno()
    before = termios.tcgetattr(place)
    reply, end = b"", time.monotonic() + seconds
    try:
        tty.setcbreak(place)
        os.write(sys.stdout.fileno(), b"\x1b[c")
        while not reply.endswith(b"c") and (left := end - time.monotonic()) > 0:
            if not select.select([place], [], [], left)[0]:
                break
            reply += os.read(place, 64)
    finally:
        termios.tcsetattr(place, termios.TCSANOW, before)
    return reply.decode("ascii", "replace")


def drawn(picture: PIL.Image.Image, protocol: Protocol) -> str:
    """A picture as text that a terminal of this protocol shows, with the end of its line; empty for `none`."""
    if protocol == "none":
        return ""
    small = picture.convert("RGB")
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    if protocol == "sixel":
        return f"{_sixel(small)}\n"
    file = io.BytesIO()
    small.save(file, "PNG")
    content = base64.b64encode(file.getvalue()).decode()
    if protocol == "iterm":
        size = f"size={len(file.getvalue())};width={small.width}px;height={small.height}px"
        return f"\x1b]1337;File=inline=1;{size}:{content}\a\n"
    written = []
    for at in range(0, len(content), _CHUNK):
        head, more = "" if at else "a=T,f=100,q=2,", int(at + _CHUNK < len(content))
        written.append(f"\x1b_G{head}m={more};{content[at : at + _CHUNK]}\x1b\\")
    return "".join(written) + "\n"


def picture_writer(off: bool) -> Callable[[Image], str]:
    """A function that makes text of an image which this terminal shows as a picture, or that makes no text.

    off: show none. Standard output that is no terminal gets none either.
    """
    protocol = "none" if off or not sys.stdout.isatty() else protocol_of(os.environ, ask_terminal)
    return lambda image: drawn(open_image(image.source), protocol) if protocol != "none" else ""


def _sixel(picture: PIL.Image.Image) -> str:
    """The picture in sixels: bands of six rows, in each the columns of every colour that it has."""
    reduced = picture.quantize(64)
    palette = np.array(reduced.getpalette() or [], dtype=int).reshape(-1, 3)
    colours_HW = np.asarray(reduced)
    high, wide = colours_HW.shape
    written = [f'\x1bPq"1;1;{wide};{high}']
    written += [f"#{at};2;" + ";".join(str(round(part / 2.55)) for part in colour) for at, colour in enumerate(palette)]
    for top in range(0, high, 6):
        band = colours_HW[top : top + 6]
        bits = 1 << np.arange(len(band))
        lines = []
        for colour in np.unique(band):
            columns = ((band == colour) * bits[:, None]).sum(0)
            lines.append(f"#{colour}" + _runs(bytes((columns + 63).astype(np.uint8)).decode("ascii")))
        written.append("$".join(lines) + "-")
    return "".join(written) + "\x1b\\"


def _runs(line: str) -> str:
    """Repeated characters as sixel's counts."""
    return re.sub(r"(.)\1{3,}", lambda run: f"!{len(run.group())}{run.group(1)}", line)
