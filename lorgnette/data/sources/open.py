"""The table from a source's settings to the source itself."""

from __future__ import annotations

from typing import Protocol

from lorgnette.data.config import MessagesConfig, SourceConfig
from lorgnette.errors import DataError
from lorgnette.inputs.processor import Processor
from lorgnette.sample import Sample


class Source(Protocol):
    """A sequence of samples. `source[index]` depends on nothing but the source's settings and the index."""

    @property
    def size(self) -> int | None:
        """Samples held; None when they are made on demand without end."""

    def __getitem__(self, index: int) -> Sample: ...


def open_source(
    config: SourceConfig,
    processor: Processor | None = None,
    most_tokens: int | None = None,
) -> Source:
    """Open a source that is not read in packs.

    processor: for what is read from files, which is prepared first; most_tokens: of its samples, which are left out if
        they are longer.
    Raises: DataError if it holds nothing or cannot be read.
    """
    if not isinstance(config, MessagesConfig):
        raise DataError(f"source {config.title}: is read in packs; open it with `lorgnette.data.prepare.prepare`")
    if processor is None:
        raise DataError(f"source {config.title}: is prepared before it is read, which needs a processor")
    from lorgnette.data.prepare import prepare
    from lorgnette.data.sources.messages import MessagesSource

    return MessagesSource(prepare(config, processor), processor, most_tokens)
