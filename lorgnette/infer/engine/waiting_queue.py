"""Requests that wait for admission: keys take turns, and nobody waits for ever."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from lorgnette.infer.engine.answer_state import RequestState


class WaitingQueue:
    """Round robin over keys, in order within one. Who has waited longer than `fair_seconds` goes first, oldest first.

    Time is what its callers say.
    """

    def __init__(self, fair_seconds: float, is_ready: Callable[[RequestState], bool]) -> None:
        self.fair_seconds, self.is_ready = fair_seconds, is_ready
        self._keys: OrderedDict[str, deque[RequestState]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    def __iter__(self) -> Iterator[RequestState]:
        return (state for waiting in self._keys.values() for state in waiting)

    def add(self, state: RequestState) -> None:
        """Append a request to those of its key; a new key gets the last turn."""
        self._keys.setdefault(state.request.key, deque()).append(state)

    def next(self, now: float) -> RequestState | None:
        """The request whose turn it is among those that are ready. It stays until it is removed."""
        firsts = [next(filter(self.is_ready, waiting), None) for waiting in self._keys.values()]
        ready = [one for one in firsts if one is not None]
        if not ready:
            return None
        oldest = min(ready, key=lambda state: state.arrival)
        return oldest if now - oldest.since > self.fair_seconds else ready[0]

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
