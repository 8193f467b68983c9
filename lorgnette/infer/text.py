"""Token ids to text, piece by piece: no half characters, nothing that may still turn out to be a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNFINISHED = "\ufffd"
"""What a decoder shows for bytes that are not yet a whole character."""


class TextStream:
    """The growing text of one answer. The pieces that `push` and `close` return add up to exactly `text`."""

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str] = ()) -> None:
        """decode: ids of a whole answer to text. stop: strings before which the answer ends."""
        self.decode = decode
        self.stop = tuple(stop)
        self.ids: list[int] = []
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Add a token; the text that is now certain. `stopped` is set once a stop string has appeared."""
        self.ids.append(token)
        return self._advance(self.decode(self.ids), final=False)

    def close(self) -> str:
        """The rest of the text, when no more tokens come."""
        return self._advance(self.decode(self.ids), final=True)

    def _advance(self, text: str, final: bool) -> str:
        if self.stopped:
            return ""
        whole = text if final else text.rstrip(UNFINISHED)
        places = [place for place in (whole.find(stop) for stop in self.stop) if place >= 0]
        if places:
            self.stopped = True
            whole = whole[: min(places)]
        elif not final:
            whole = whole[: len(whole) - self._held(whole)]
        piece = whole[len(self.text) :]
        self.text += piece
        return piece

    def _held(self, text: str) -> int:
        """Length of the longest tail of `text` that begins a stop string."""
        longest = max((len(stop) for stop in self.stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self.stop):
                return length
        return 0
