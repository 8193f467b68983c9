"""The loss on samples that no stage trains on, source by source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch

from lorgnette.data.config import SourceConfig
from lorgnette.data.prepare import Prepared, prepare
from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.shuffled_images import blinded
from lorgnette.inputs.processor import Processor
from lorgnette.model.batch import Batch
from lorgnette.model.vlm import VLM
from lorgnette.run import Run, StageConfig
from lorgnette.sample import Sample
from lorgnette.train.parallel import DistributedContext, empty_batch

TOGETHER = 8
"""Samples in a pack."""


def is_due(every: int | None, step: int, steps: int) -> bool:
    """True after every so many steps of a stage, and after its last; never if `every` is None."""
    return every is not None and (step % every == 0 or step == steps)


class Validation:
    """Samples of the validation sources, read once. Each rank computes its share.

    shuffled: show each sample another one's images (the image-shuffled baseline).
    """

    def __init__(
        self,
        run: Run,
        stage: StageConfig,
        processor: Processor,
        world: DistributedContext,
        *,
        shuffled: bool = False,
    ) -> None:
        self.world, self.every = world, run.validation.every
        self._packs: dict[str, list[Batch]] = {}
        self.unread: list[str] = []
        """Sentences about samples that could not be read, and are not validated on."""
        most = run.validation.samples
        for config in unseen_sources(run, stage):
            samples = list(_readable(_samples(config, most, processor), processor, self.unread))
            samples = list(map(blinded(samples), range(len(samples)))) if shuffled else samples
            share = samples[world.rank :: world.size]
            packs = [processor(share[first : first + TOGETHER]) for first in range(0, len(share), TOGETHER)]
            self._packs[config.title] = packs

    def due(self, step: int, steps: int) -> bool:
        """True if a validation is due after so many steps of a stage."""
        return bool(self._packs) and is_due(self.every, step, steps)

    @torch.no_grad()
    def losses(self, model: VLM) -> dict[str, float]:
        """Mean cross-entropy over the supervised tokens of each source. Every rank must ask. Draws no random number."""
        was_training = model.training
        model.eval()
        found = {name: self._loss(model, packs) for name, packs in self._packs.items()}
        model.train(was_training)
        return found

    def _loss(self, model: VLM, packs: Sequence[Batch]) -> float:
        total, supervised_tokens = 0.0, 0
        for number in range(max(self.world.gather(len(packs)))):
            batch = (packs[number] if number < len(packs) else empty_batch(model)).to(self.world.device)
            total += float(model(batch, output="loss").losses.sum())
            supervised_tokens += batch.supervised_tokens
        pairs = self.world.gather((total, supervised_tokens))
        return sum(loss for loss, _ in pairs) / max(1, sum(count for _, count in pairs))


def unseen_sources(run: Run, stage: StageConfig) -> Sequence[SourceConfig]:
    """Validation sources of a stage: those of the run, else the validation split of its built-in sources, each once.

    Raises: SettingsError if validation is asked for and there is nothing to validate on.
    """
    if not run.validation.every:
        return ()
    found = run.validation.sources or tuple(filter(None, map(_unseen, stage.sources)))
    if not found:
        raise SettingsError(
            f"stage {stage.name!r}: validation.every is set, but only built-in sources have a validation split: give"
            " validation.sources, or leave validation.every out"
        )
    return list({config.title: config for config in found}.values())


def _unseen(config: SourceConfig) -> SourceConfig | None:
    """The validation split of a built-in source."""
    split = config.path.replace("builtin:train/", "builtin:validation/")
    return config.model_copy(update={"path": split}) if split != config.path else None


def _readable(samples: Iterable[Callable[[], Sample]], processor: Processor, unread: list[str]) -> Iterator[Sample]:
    """The samples that can be read and rendered; says in `unread` what was wrong with the others."""
    for read in samples:
        try:
            sample = read()
            processor.render(sample)
        except DataError as error:
            unread.append(f"not validated on: {error}")
            continue
        yield sample


def _samples(config: SourceConfig, most: int, processor: Processor) -> Iterator[Callable[[], Sample]]:
    """Readers of samples spread over all of a source."""
    prepared = prepare(config, processor)
    count = min(most, len(prepared))
    yield from (partial(_whole, prepared, number * len(prepared) // count) for number in range(count))


def _whole(prepared: Prepared, number: int) -> Sample:
    return prepared.record(number).piece()
