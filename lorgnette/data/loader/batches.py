"""Builds the batches of a stage: reads, checks, renders and packs the samples that the plan names.

Each pack depends on its step and number alone, not on packs built before, so workers and ranks share no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from lorgnette.data.check import check
from lorgnette.data.loader.training_batch import TrainingBatch
from lorgnette.data.plan.pack_plan import PackedPlan, SampleView
from lorgnette.data.plan.sample_ref import SampleRef
from lorgnette.data.prompts import reworded
from lorgnette.errors import DataError, SettingsError
from lorgnette.files import DiskError
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.render import Rendered
from lorgnette.sample import Sample

if TYPE_CHECKING:
    from lorgnette.data.prepare import Prepared


COUNT_EVERY = 64
"""Steps between two saves of the pack counts."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A sample of a step with its prompt template applied, before and after rendering."""

    ref: SampleRef
    sample: Sample
    rendered: Rendered

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of patches and tokens; documents of equal shape are computed together."""
        return sum(len(image.positions_P) for image in self.rendered.images), len(self.rendered.tokens_T)


@dataclass(frozen=True)
class BatchBuilder:
    """Builds every step of a stage. A pack of the plan becomes one batch, or `micro_batches` of them.

    vocabulary: rows of the model's embedding, to check token ids against; None for the tokenizer's.
    rank, world: this process builds the packs `rank`, `rank + world`, ... of each step, as many as every other rank.
    counts: file that caches the number of packs per window, so that resuming at a late step is immediate.
    """

    plan: PackedPlan
    sources: Sequence[Prepared]
    processor: Processor
    vocabulary: int | None = None
    rank: int = 0
    world: int = 1
    micro_batches: int = 1
    counts: Path | None = None

    def __post_init__(self) -> None:
        if self.plan.pack.packs_per_step % self.world:
            raise SettingsError(
                f"pack.packs_per_step is {self.plan.pack.packs_per_step}, which {self.world} ranks cannot share"
                f" equally: make it a multiple of {self.world}"
            )

    @property
    def parts(self) -> int:
        """Number of this rank's packs in a step; each is built by one worker."""
        return self.plan.pack.packs_per_step // self.world

    def refs(self, step: int, part: int) -> list[SampleRef]:
        """The samples of one of this rank's packs, as planned."""
        refs = self.plan.pack_of(step, self.rank + part * self.world)
        if self.counts is not None and part == 0 and step % COUNT_EVERY == 0:
            with suppress(DiskError):  # a cache; every process would write the same content
                self.plan.save_counts(self.counts)
        return refs

    def read(self, ref: SampleRef) -> Drawn:
        """Read a sample and render it with the augmentation of its epoch. Raises: DataError naming the sample."""
        name = self.plan.name(ref)
        record = self.sources[ref.source].record(ref.record)
        if len(record.units) != self.plan.sources[ref.source].index.units_E[ref.record]:
            raise DataError(f"{name}: the row has changed since it was prepared; run `lorgnette data prepare` again")
        view = self.plan.view(ref, record.shuffle)
        sample = record.piece(ref.start, ref.end, view.order)
        own = str(sample.meta.get("name", ""))  # the place in a file of the user's, where rows were converted
        name = name.replace(self.plan.sources[ref.source].index.name(ref.record), own) if own else name
        sample = replace(sample, meta={**sample.meta, "name": name})
        return self._rendered(ref, sample, view)

    def checked(self, ref: SampleRef) -> Drawn:
        """Read a sample and check that it can be trained on. Raises: DataError naming the sample."""
        return learnable(self.read(ref), self.processor, self.vocabulary, self.plan.pack.tokens)

    def lay_out(self, drawn: list[Drawn]) -> list[list[Drawn]]:
        """Distribute the samples of a pack over its micro-batches, sorted by shape; no batch is empty.

        Documents of equal shape are neighbours, so that attention computes them in one call.
        """
        laid = sorted(drawn, key=lambda one: one.shape)
        return [batch for batch in split_evenly(laid, self.micro_batches) if batch]

    def part(self, step: int, part: int) -> list[TrainingBatch]:
        """Read, render, check and pack one pack of a step. Unusable samples are replaced as the plan prescribes.

        Raises: DataError if no sample of the pack can be used, nor any in its place.
        """
        refs, replaced = self.refs(step, part), list[str]()
        found = [self._read_or_replaced(ref, replaced) for ref in refs]
        drawn = [one for one in found if one is not None]
        if not drawn:
            raise DataError(f"step {step}: no sample of pack {part} can be used, nor any in its place: {replaced[0]}")
        refs_of = [refs, *[[]] * self.micro_batches]  # the first batch carries the planned samples, replaced or not
        laid = [batch_of(batch, of, self.processor) for batch, of in zip(self.lay_out(drawn), refs_of, strict=False)]
        return [replace(laid[0], replaced=tuple(replaced)), *laid[1:]]

    def batches(self, step: int) -> list[TrainingBatch]:
        """All batches of one step, on this rank."""
        return [batch for part in range(self.parts) for batch in self.part(step, part)]

    def _rendered(self, ref: SampleRef, sample: Sample, view: SampleView) -> Drawn:
        """Raises: DataError if the sample is longer than planned."""
        words = sample
        if self.plan.augment.templates:
            words = reworded(sample, self.processor.tokenizer, self.plan.seed_of_words(ref))
        rendered = self.processor.render(words, split=view.split, enlarged=view.sizes)
        if len(rendered.tokens_T) > view.tokens and words is not sample:
            words, rendered = sample, self.processor.render(sample, split=view.split, enlarged=view.sizes)
        patches = sum(len(image) for image in rendered.images)
        if len(rendered.tokens_T) > view.tokens or patches > view.patches:
            raise DataError(
                f"{sample.name}: has {len(rendered.tokens_T)} tokens and {patches} patches, where its index says"
                f" {view.tokens} and {view.patches}; run `lorgnette data prepare` again"
            )
        return Drawn(ref, words, rendered)

    def _read_or_replaced(self, ref: SampleRef, replaced: list[str]) -> Drawn | None:
        """Read a sample, or its first usable replacement; None if there is none. Appends the reason to `replaced`."""
        try:
            return self.checked(ref)
        except DataError as error:
            said, name = str(error), self.plan.name(ref)
        if not said.startswith((name, f"{self.plan.sources[ref.source].title}: ")):
            said = f"{name}: {said}"
        for other in self.plan.replacements(ref):
            try:
                drawn = self.checked(other)
            except DataError:
                continue  # reported when this record's own turn comes
            replaced.append(f"{said}; {self.plan.name(other)} stands in its place")
            return drawn
        replaced.append(f"{said}; nothing of its size was found to stand in its place")
        return None


def learnable(drawn: Drawn, processor: Processor, vocabulary: int | None, most_tokens: int | None = None) -> Drawn:
    """Return the sample if it can be trained on. Raises: DataError; see `lorgnette.data.check`."""
    check(
        drawn.rendered,
        image_token=processor.image_token,
        vocabulary=vocabulary or processor.tokenizer.vocabulary,
        most_tokens=most_tokens,
    )
    return drawn


def batch_of(drawn: Sequence[Drawn], refs: Sequence[SampleRef], processor: Processor) -> TrainingBatch:
    """Pack samples into one batch. refs: the planned samples, which differ from `drawn` where some were replaced."""
    rendered = [one.rendered for one in drawn]
    names, sources = tuple(one.name for one in rendered), tuple(one.source for one in rendered)
    return TrainingBatch.of(processor.pack(rendered), names=names, sources=sources, refs=tuple(map(str, refs)))


def split_evenly(items: list[Drawn], parts: int) -> list[list[Drawn]]:
    """Cut a list into `parts` consecutive runs whose lengths differ by at most one."""
    bounds = [len(items) * part // parts for part in range(parts + 1)]
    return [items[start:end] for start, end in pairwise(bounds)]
