"""The batches of a stage's steps: reads, checks, renders and packs the samples that the plan names.

Any part of any step is made from its number alone, and a rank takes its share of it: nothing is shared, and nothing
depends on what was made before.
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
"""Steps between two times that counts are saved."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A sample of a step, in the words that it is shown in, before and after it was rendered."""

    ref: SampleRef
    sample: Sample
    rendered: Rendered

    @property
    def shape(self) -> tuple[int, int]:
        """Patches and tokens: what makes documents alike to compute."""
        return sum(len(image.positions_P) for image in self.rendered.images), len(self.rendered.tokens_T)


@dataclass(frozen=True)
class BatchBuilder:
    """All steps of a stage: each pack of the plan is a batch, or some.

    micro_batches: batches that a pack is cut in.
    vocabulary: rows of the model's embedding, if ids are to be checked against it.
    rank, world: this process takes the packs `rank`, `rank + world`, ... of each step, as many as every other rank.
    counts: a file in which packs that were counted are kept, so that going on from a late step takes no time.
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
        """In how many parts a step is made, each by one worker: the packs of this rank."""
        return self.plan.pack.packs_per_step // self.world

    def refs(self, step: int, part: int) -> list[SampleRef]:
        """The samples of one of this rank's packs, as planned."""
        refs = self.plan.pack_of(step, self.rank + part * self.world)
        if self.counts is not None and part == 0 and step % COUNT_EVERY == 0:
            with suppress(DiskError):  # it only saves time; and whoever writes it writes the same
                self.plan.save_counts(self.counts)
        return refs

    def read(self, ref: SampleRef) -> Drawn:
        """Read a sample and render it as it is shown this time. Raises: DataError naming it."""
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
        """As `read`. Raises: DataError naming the sample, too if it cannot be learned as it was meant."""
        return learnable(self.read(ref), self.processor, self.vocabulary, self.plan.pack.tokens)

    def lay_out(self, drawn: list[Drawn]) -> list[list[Drawn]]:
        """The samples of a pack by the batch that they stand in, equal shapes side by side; no batch is empty.

        Equal shapes are attended to in one call.
        """
        laid = sorted(drawn, key=lambda one: one.shape)
        return [batch for batch in split_evenly(laid, self.micro_batches) if batch]

    def part(self, step: int, part: int) -> list[TrainingBatch]:
        """Read, render, check and pack one pack of a step; what cannot be used is replaced by the plan's rule.

        Raises: DataError if no sample of the pack can be used, nor any in its place.
        """
        refs, replaced = self.refs(step, part), list[str]()
        found = [self._read_or_replaced(ref, replaced) for ref in refs]
        drawn = [one for one in found if one is not None]
        if not drawn:
            raise DataError(f"step {step}: no sample of pack {part} can be used, nor any in its place: {replaced[0]}")
        refs_of = [refs, *[[]] * self.micro_batches]  # the first batch answers for what was planned, replaced or not
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
        """A sample, or the first of its replacements that can be used, or None. Says in `replaced` what was wrong."""
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
                continue  # its own turn comes, and says what is wrong with it
            replaced.append(f"{said}; {self.plan.name(other)} stands in its place")
            return drawn
        replaced.append(f"{said}; nothing of its size was found to stand in its place")
        return None


def learnable(drawn: Drawn, processor: Processor, vocabulary: int | None, most_tokens: int | None = None) -> Drawn:
    """The same, if it can be learned as it was meant. Raises: DataError; see `lorgnette.data.check`."""
    check(
        drawn.rendered,
        image_token=processor.image_token,
        vocabulary=vocabulary or processor.tokenizer.vocabulary,
        most_tokens=most_tokens,
    )
    return drawn


def batch_of(drawn: Sequence[Drawn], refs: Sequence[SampleRef], processor: Processor) -> TrainingBatch:
    """Samples end to end. refs: those that the batch is made for."""
    rendered = [one.rendered for one in drawn]
    names, sources = tuple(one.name for one in rendered), tuple(one.source for one in rendered)
    return TrainingBatch.of(processor.pack(rendered), names=names, sources=sources, refs=tuple(map(str, refs)))


def split_evenly(items: list[Drawn], parts: int) -> list[list[Drawn]]:
    """Cut a list in `parts` runs whose lengths differ by at most one."""
    bounds = [len(items) * part // parts for part in range(parts + 1)]
    return [items[start:end] for start, end in pairwise(bounds)]
