"""`RejectedRow`: a row, or a part of a file, that is not used, and why; a folder keeps them in `rejected.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorgnette.files import new_file
from lorgnette.settings import typed
from lorgnette.untrusted import parse_json, quoted

REJECTED = "rejected.jsonl"
"""One JSON object a line."""
LONGEST_DETAIL = 500
"""Characters of `detail` that are kept: a row may hold anything, and is not repeated."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """Rows that are not trained on, or a part of a file that becomes no row. Counted by `reason`, a word or two."""

    file: str
    place: str
    """Place in the file, in words: `page 3`, `group 0, row 12`, `record 7`; empty for the whole of it."""
    reason: str
    detail: str = ""
    rows: int = 1
    """Number of rows; 0 for a file whose rows cannot be counted, and for what is said of a row that is kept."""
    parts: int = 0
    """Images or paragraphs left out of a row that is kept."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", quoted(self.detail, LONGEST_DETAIL))

    @property
    def name(self) -> str:
        """File and place, as messages name them."""
        return ", ".join(filter(None, (self.file, self.place)))


RowOrRejected = dict[str, Any] | RejectedRow
"""A row as plain values, or the reason why there is none."""


def rejected_file(folder: Path, name: str = REJECTED) -> Path:
    """The file of rejected rows in a folder, under its present name or the one that earlier versions gave it."""
    former = folder / ("ledger.jsonl" if name == REJECTED else name.replace(".rejected.", ".refused."))
    return former if former.is_file() and not (folder / name).is_file() else folder / name


def write_rejected(path: Path, rows: Iterable[RejectedRow]) -> None:
    """Write one JSON object a line, beside and renamed."""
    with new_file(path) as beside, beside.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for row in rows:
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def read_rejected(path: str | Path) -> Iterator[RejectedRow]:
    """Read a file that `write_rejected` wrote. Raises: DataError if it is damaged."""
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        for line in file:
            yield typed(RejectedRow, parse_json(line, str(path)), str(path))
