"""`Refusal`: what a converter says of a file, or a part of one, that becomes no row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """A part of a file that is not converted. A ledger counts by `reason`, a word or two."""

    file: str
    place: str
    """Where in the file: `page 3`, `row 12`, `record 7`; empty for the whole of it."""
    reason: str
    detail: str = ""
    parts: int = 0
    """0: there is no row. Otherwise so many images or paragraphs were left out of a row that is given as well: to be
    shown in the ledger, and not counted as a row."""
