"""Interface of structured output: which tokens may come next.

An adapter of a grammar library satisfies it; the engine knows no grammar.
"""

from __future__ import annotations

from typing import Protocol, Self

from torch import Tensor


class Constraint(Protocol):
    """State of a grammar within one answer."""

    def allowed(self) -> Tensor:
        """The tokens that may come next: bool, a value for each row of the vocabulary (K), on the CPU.

        Where the answer may end, the tokens that end it are among them.
        """

    def accept(self, token: int) -> None:
        """Advance the state by a token that was chosen."""

    @property
    def finished(self) -> bool:
        """Return whether nothing may follow, so that the answer ends without an end token."""

    def copy(self) -> Self:
        """An equal state of its own, for another answer to the same prompt."""
