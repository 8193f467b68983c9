"""The table from a source's settings to the source itself."""

from __future__ import annotations

from typing import Protocol

from lorgnette.data.config import CaptionsConfig, MessagesConfig, QuestionsConfig, ScenesConfig, SourceConfig
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
    split: str = "train",
    seed: int = 0,
    processor: Processor | None = None,
    most_tokens: int | None = None,
) -> Source:
    """Open a source that is not read in packs.

    processor: for what is read from files, which is prepared first; most_tokens: of its samples, which are left out if
        they are longer.
    Raises: DataError if it holds nothing or cannot be read.
    """
    source: Source
    if isinstance(config, CaptionsConfig):
        from lorgnette.data.builtin import CaptionSource

        source = CaptionSource(split, seed)
    elif isinstance(config, QuestionsConfig):
        from lorgnette.data.builtin import QuestionSource

        source = QuestionSource(
            split, seed, turns=config.turns, kinds=config.kinds, size=config.size, brief=config.brief
        )
    elif isinstance(config, ScenesConfig):
        from lorgnette.data.builtin.scene_source import SceneSource

        source = SceneSource(split, seed, tasks=config.tasks, size=config.size, brief=config.brief)
    elif isinstance(config, MessagesConfig):
        from lorgnette.data.prepare import prepare
        from lorgnette.data.sources.messages import MessagesSource

        if processor is None:
            raise DataError(f"source {config.title}: is prepared before it is read, which needs a processor")
        source = MessagesSource(prepare(config, processor), processor, most_tokens)
    else:
        raise DataError(f"source {config.title}: is read in packs; open it with `lorgnette.data.prepare.prepare`")
    if source.size == 0:
        raise DataError(f"source {config.kind}: holds no samples for split {split!r}")
    return source
