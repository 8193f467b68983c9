"""Token ids to text, piece by piece: no half characters, nothing that may still turn out to be a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"
"""Replacement character, which a decoder shows for bytes that are not yet a whole character."""
CONTEXT = 8
"""Tokens before a window that are decoded with it, because a token's text depends on its neighbours."""
WINDOW = 64
"""Tokens after which a window is moved on."""


class TextStream:
    """The growing text of one answer. The pieces that `push` and `close` return add up to exactly `text`.

    Only a window of the last tokens is decoded at each push, so that an answer costs time in proportion to its length.
    The window is moved on only where this is seen to change nothing.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str] = ()) -> None:
        """decode: ids of a whole answer to text. stop: strings before which the answer ends."""
        self.decode = decode
        self.stop = tuple(stop)
        self.stopped = False
        self._ids: list[int] = []
        """Ids of the window."""
        self._next_move = WINDOW
        self._pieces: list[str] = []
        self._shown = ""
        """The part of the window's text that has been returned, its context included."""

    @property
    def text(self) -> str:
        """Everything returned so far."""
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def push(self, token: int) -> str:
        """Add a token; the text that is now certain. `stopped` is set once a stop string has appeared."""
        self._ids.append(token)
        window = self.decode(self._ids)
        piece = self._advance(window, final=False)
        if len(self._ids) >= self._next_move:
            self._move(window)
        return piece

    def close(self) -> str:
        """The rest of the text, when no more tokens come."""
        return self._advance(self.decode(self._ids), final=True)

    def _advance(self, window: str, final: bool) -> str:
        if self.stopped:
            return ""
        whole = window if final else window.rstrip(_UNFINISHED)
        new = whole[len(self._shown) :]
        if final and whole.endswith(_UNFINISHED) and not whole.startswith(self._shown):
            new = _UNFINISHED  # byte fallback shows a whole run of bytes as unfinished, which had been shown as text
        found = [place for place in (new.find(stop) for stop in self.stop) if place >= 0]
        if found:
            self.stopped = True
            new = new[: min(found)]
        elif not final:
            new = new[: len(new) - self._held(new)]
        if new:
            self._shown = whole[: len(self._shown) + len(new)]
        self._pieces.append(new)
        return new

    def _held(self, text: str) -> int:
        """Length of the longest tail of `text` that begins a stop string."""
        longest = max((len(stop) for stop in self.stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self.stop):
                return length
        return 0

    def _move(self, window: str) -> None:
        """Let the window begin later, at a token from which decoding gives the same text; tried again later if none."""
        self._next_move = 2 * len(self._ids)
        for first in range(len(self._ids) - WINDOW // 2, len(self._ids) - WINDOW // 2 - 4, -1):
            rest = self._ids[first:]
            context, tail = self.decode(rest[:CONTEXT]), self.decode(rest)
            head = self.decode(self._ids[: first + CONTEXT])
            same = window[len(head) :] == tail[len(context) :] and window.startswith(head) and tail.startswith(context)
            if same and _UNFINISHED not in context and context and len(head) <= len(self._shown):
                self._shown = context + self._shown[len(head) :]
                self._ids, self._next_move = rest, WINDOW
                return
