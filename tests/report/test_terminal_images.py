"""Pictures in the terminal: which protocol by what a terminal says, and what is written for each."""

from __future__ import annotations

import base64
import io
import os
import pty
import re
import sys
import threading

import numpy as np
import PIL.Image
import pytest

from lorgnette.report.terminal_images import ask_terminal, drawn, picture_writer, protocol_of
from tests.hub.tiny import picture

SIXEL, NO_SIXEL = "\x1b[?62;4;22c", "\x1b[?64;14c"
TERMINALS = {
    "kitty": ({"TERM": "xterm-kitty"}, "", "kitty"),
    "ghostty": ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "", "kitty"),
    "iterm": ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "", "iterm"),
    "foot": ({"TERM": "foot"}, SIXEL, "sixel"),
    "xterm": ({"TERM": "xterm"}, NO_SIXEL, "none"),
    "silent": ({"TERM": "xterm"}, "", "none"),
    "dumb": ({"TERM": "dumb"}, SIXEL, "none"),
    "none": ({}, SIXEL, "none"),
    "tmux in kitty": ({"TERM": "tmux-256color", "TMUX": "x", "KITTY_WINDOW_ID": "1"}, NO_SIXEL, "none"),
    "tmux with sixel": ({"TERM": "tmux-256color", "TMUX": "x"}, SIXEL, "sixel"),
}


@pytest.mark.parametrize("name", TERMINALS)
def test_the_protocol_is_the_terminals(name: str) -> None:
    environ, reply, expected = TERMINALS[name]
    assert protocol_of(environ, lambda: reply) == expected


def test_kitty_and_iterm_get_a_small_png() -> None:
    shown = picture(900, 600)
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", drawn(shown, "kitty"))
    assert parts[0][0].startswith("a=T,f=100") and all(len(part) <= 4096 for _, part in parts)
    assert [head.rpartition("m=")[2] for head, _ in parts] == ["1"] * (len(parts) - 1) + ["0"]
    (inline,) = re.findall(r"\x1b\]1337;File=inline=1;[^:]*:([^\a]*)\a\n", drawn(shown, "iterm"))
    for content in ("".join(part for _, part in parts), inline):
        assert PIL.Image.open(io.BytesIO(base64.b64decode(content))).size == (320, 213)
    assert drawn(shown, "none") == ""


def test_sixels_draw_the_picture() -> None:
    shown = PIL.Image.new("RGB", (50, 20), "red")
    shown.paste("blue", (10, 3, 40, 17))
    text = drawn(shown, "sixel")
    start, rest = re.fullmatch(r'\x1bPq"1;1;50;20((?:#\d+;2;\d+;\d+;\d+)+)(.*)\x1b\\\n', text, re.S).groups()
    palette = {number: tuple(map(int, colour.split(";"))) for number, colour in re.findall(r"#(\d+);2;([\d;]+)", start)}
    seen = np.zeros((24, 50, 3), dtype=int)
    for band, line in enumerate(rest.split("-")[:-1]):
        for run in line.split("$"):
            number, codes = re.fullmatch(r"#(\d+)(.*)", run).groups()
            codes = re.sub(r"!(\d+)(.)", lambda part: part.group(2) * int(part.group(1)), codes)
            for column, code in enumerate(codes):
                for row in range(6):
                    if (ord(code) - 63) >> row & 1:
                        seen[6 * band + row, column] = palette[number]
    np.testing.assert_allclose(seen[:20], np.asarray(shown) / 2.55, atol=2)


def test_a_terminal_is_asked_and_waited_for_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r+b", buffering=0) as terminal, io.TextIOWrapper(terminal, write_through=True) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        monkeypatch.setattr(sys, "stdout", stream)
        assert ask_terminal(0.05) == ""
        assert os.read(ours, 10) == b"\x1b[c"
        answer = threading.Timer(0.1, lambda: os.write(ours, SIXEL.encode()))
        answer.start()
        assert ask_terminal(20) == SIXEL
        answer.join()
    os.close(ours)


def test_what_is_no_terminal_gets_no_picture() -> None:
    assert picture_writer(False)(None) == picture_writer(True)(None) == ""
