"""Requests that wait for admission: keys take turns, and nobody waits for ever."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from lorgnette.infer.engine.answer_state import RequestState


class WaitingQueue:
    """Round robin over keys, in order within one. Who has waited longer than `fair_seconds` goes first, oldest first.

    Time is what its callers say.
    """

    def __init__(self, fair_seconds: float) -> None:
        self.fair_seconds = fair_seconds
        self._keys: OrderedDict[str, deque[RequestState]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    def __iter__(self) -> Iterator[RequestState]:
        return (state for waiting in self._keys.values() for state in waiting)

    def add(self, state: RequestState) -> None:
        """Append a request to those of its key; a new key gets the last turn."""
        self._keys.setdefault(state.request.key, deque()).append(state)

    def next(self, now: float) -> RequestState | None:
        """The request whose turn it is. It stays until it is removed."""
        if not self._keys:
            return None
        oldest = min((waiting[0] for waiting in self._keys.values()), key=lambda state: state.arrival)
        if now - oldest.since > self.fair_seconds:
            return oldest
        return next(iter(self._keys.values()))[0]

    def admit(self, state: RequestState) -> None:
        """Take out a request that is admitted: its key gets the last turn."""
        self.remove(state)
        if state.request.key in self._keys:
            self._keys.move_to_end(state.request.key)

    def remove(self, state: RequestState) -> None:
        """Take out a request."""
        waiting = self._keys[state.request.key]
        waiting.remove(state)
        if not waiting:
            del self._keys[state.request.key]
