"""`lorgnette data prepare`: prepares the sources of a recipe, or a single one, and prints the counts of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorgnette.cli.inspect import processor_of_run, processor_of_source
from lorgnette.data.config import PreparedConfig
from lorgnette.data.inspect import source_config
from lorgnette.data.prepare import Prepared, prepare
from lorgnette.errors import SettingsError
from lorgnette.inputs.processor import Processor
from lorgnette.output import say


@dataclass(frozen=True)
class Wanted:
    """Options of the command line."""

    target: str
    """A recipe or a run's folder; with `kind`, the path of a source."""
    overrides: tuple[str, ...] = ()
    kind: str | None = None
    tokenizer: str | None = None

    def sources(self) -> tuple[list[PreparedConfig], Processor]:
        """The sources to prepare, each once. Raises: SettingsError if there are none."""
        if self.kind is not None:
            configs: list[PreparedConfig] = [source_config(self.kind, self.target, list(self.overrides))]
            processor = processor_of_source(self.tokenizer)
        else:
            run, processor = processor_of_run(self.target, list(self.overrides))
            configs = [config for stage in run.stages for config in stage.sources]
        found = list(_distinct(configs))
        if not found:
            what = f"kind {self.kind}" if self.kind else f"recipe {self.target}"
            raise SettingsError(f"{what}: has no source that is read from files; there is nothing to prepare")
        return found, processor


def _distinct(configs: list[PreparedConfig]) -> Iterator[PreparedConfig]:
    seen = set[str]()
    for config in configs:
        key = config.model_copy(update={"weight": 1.0, "name": None}).digest()
        if key not in seen:
            seen.add(key)
            yield config


def prepare_all(console: Console, wanted: Wanted, *, ray: str | None, workers: int | None, fresh: bool) -> None:
    """Prepare every requested source, and print how many rows were read, kept and refused."""
    sources, processor = wanted.sources()
    for config in sources:
        show(console, prepare(config, processor, console=console, ray=ray, workers=workers, fresh=fresh))


def show(console: Console, prepared: Prepared) -> None:
    """Print the counts of one source: rows refused and kept add up to rows read."""
    facts = prepared.facts
    table = Table(title=Text(prepared.config.title), title_justify="left", show_edge=False)
    table.add_column("rows")
    table.add_column("", justify="right")
    table.add_row("read", f"{facts['rows']:,}", end_section=True)
    for reason, count in facts["reasons"].items():
        if count:
            table.add_row(f"refused: {reason}", f"{count:,}")
    table.add_row("kept", f"{facts['kept']:,}", end_section=True)
    for reason, count in facts["notes"].items():
        table.add_row(f"noted: {reason}", f"{count:,}")
    if facts["notes"]:
        table.add_section()
    for name in ("images", "tokens", "supervised_tokens"):
        table.add_row(
            {"supervised_tokens": "supervised tokens", "tokens": "tokens of text"}.get(name, name), f"{facts[name]:,}"
        )
    console.print(table)
    for sentence in facts["unread"]:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    files = ["index.parquet", prepared.rejected.name] + (
        ["contamination.html"] if prepared.config.decontaminate else []
    )
    where = f"{prepared.folder}: {', '.join(files)}"
    say(console, where)
