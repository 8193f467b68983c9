"""Data of a tuning: each file's kind and counts, and the rows that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorgnette.data.config import PreparedConfig
from lorgnette.data.prepare import Prepared, prepare
from lorgnette.data.prepare.hold_out import choose_held_out, is_held_out, is_keys_file, keys_text, read_keys
from lorgnette.errors import DataError
from lorgnette.eval.row_questions import RowQuestions, questions_in
from lorgnette.files import check_own, explain_disk, replace_text
from lorgnette.inputs.processor import Processor
from lorgnette.output import say
from lorgnette.train.data import left_out

HELD_OUT = "held_out.txt"
"""File of the held-out pictures, in the run's folder."""


@dataclass(frozen=True)
class TuneData:
    """Prepared files, and how many rows of each are for training and held out."""

    prepared: tuple[Prepared, ...]
    file: Path
    """File of the held-out pictures."""
    held_out: tuple[int, ...]
    """Held-out rows of each file."""
    pictures: int
    """Different pictures in held-out rows."""

    @property
    def trained(self) -> list[int]:
        """Rows for training of each file."""
        return [len(one) - held for one, held in zip(self.prepared, self.held_out, strict=True)]

    def sources(self, part: str) -> list[PreparedConfig]:
        """The files that have rows of a part, as sources of these rows alone."""
        counts = self.trained if part == "train" else self.held_out
        split = {"held_out": str(self.file), "part": part}
        return [one.config.model_copy(update=split) for one, count in zip(self.prepared, counts, strict=True) if count]

    def questions(self, processor: Processor, recipe: Path) -> RowQuestions:
        """Questions of the held-out rows.

        recipe: of the tuning. Raises: DataError if none of them is a question with an answer, naming what trains on it.
        """
        parts = [prepare(config, processor) for config in self.sources("held_out")]
        records = [(part, number) for part in parts for number in range(len(part))]
        places = [
            (place, question)
            for place, (part, number) in enumerate(records)
            for question in questions_in(part.record(number))
        ]
        if not places:
            kinds = ", ".join(dict.fromkeys(one.config.kind for one in self.prepared))
            raise DataError(
                f"no held-out row has a question and its answer (kind {kinds}), so no answer can be measured; train"
                f" on such rows by `lorgnette train {recipe}`, which measures the loss of those held out"
            )
        return RowQuestions(lambda place: records[place][0].record(records[place][1]), places)


def split_data(
    configs: Sequence[PreparedConfig], processor: Processor, folder: Path, share: float, console: Console
) -> TuneData:
    """Prepare all files, choose the rows to hold out, and write their pictures to `folder/held_out.txt`.

    Raises: as `prepare` and `choose_held_out`; DiskError.
    """
    prepared = tuple(prepare(config, processor, console=console) for config in configs)
    text = keys_text(choose_held_out([one.index for one in prepared], share))
    file = folder / HELD_OUT
    check_own(file, is_keys_file)
    with explain_disk(file):
        changed = not file.is_file() or file.read_text(encoding="utf-8") != text
    if changed:  # an index that depends on the file is made again when its time changes
        replace_text(file, text, is_keys_file)
    keys = read_keys(str(file))
    held = [one.index.only(is_held_out(one.index, keys)) for one in prepared]
    pictures = {picture for index in held for picture in index.sha_I.tolist()}
    return TuneData(prepared, file, tuple(map(len, held)), len(pictures))


def print_data(console: Console, data: TuneData) -> None:
    """Print a row for each file, and a sentence for what of it is not used, its first refused row in full."""
    table = Table()
    for heading in ("data", "kind"):
        table.add_column(heading, overflow="fold")
    for heading in ("rows", "refused", "to train on", "held out", "images"):
        table.add_column(heading, justify="right")
    for one, trained, held in zip(data.prepared, data.trained, data.held_out, strict=True):
        facts = one.facts
        counts = (facts["rows"], facts["refused"], trained, held, facts["images"])
        table.add_row(Text(one.config.path), one.config.kind, *(f"{count:,}" for count in counts))
    console.print(table)
    for one in data.prepared:
        for sentence in left_out(one):
            say(console, sentence, style="yellow")
