"""From the steps of a stage, or from a source alone, to what is looked at: the same samples, rendered the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lorgnette.data.check import check
from lorgnette.data.inspect.preview import Document, Pack, Share, spread
from lorgnette.data.inspect.unpatchify import original_size, picture
from lorgnette.data.loader.batches import BatchBuilder, Drawn
from lorgnette.data.plan.sample_ref import SampleRef
from lorgnette.errors import DataError, LorgnetteError
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.render import Rendered
from lorgnette.sample import Sample


@dataclass(frozen=True)
class Gatherer:
    """Reads, renders and checks samples, and keeps of each what is shown.

    vocabulary: rows of the model's embedding.
    most_tokens: the longest sequence, if there is a limit.
    """

    processor: Processor
    vocabulary: int
    most_tokens: int | None = None

    def steps(
        self, steps: BatchBuilder, first: int, last: int, most: int, advance: Callable[[], None] = lambda: None
    ) -> tuple[list[Pack], list[str]]:
        """The packs of steps `first` to `last` (not included), and the samples that could not be rendered.

        most: documents that are shown, evenly spread over the steps and packs; advance: called after each sample.
        """
        packs: list[Pack] = []
        refused: list[str] = []
        share = -(-most // max(1, last - first))
        for step in range(first, last):
            drawn = self._draw(steps, step, refused, advance)
            each = -(-share // max(1, len(drawn)))
            packs += [self.pack(part, each, step, number) for number, part in enumerate(drawn)]
        return packs, refused

    def samples(
        self, samples: Iterable[Sample | str], most: int, advance: Callable[[], None] = lambda: None
    ) -> tuple[list[Pack], list[str]]:
        """Samples of one source, in its order, as if they were one pack; and why others could not be read or rendered.

        samples: a string stands for a row that was refused, and says why.
        """
        refused: list[str] = []
        drawn: list[Drawn] = []
        for sample in samples:
            advance()
            if isinstance(sample, str):
                refused.append(sample)
                continue
            try:
                drawn.append(Drawn(SampleRef(0, len(drawn), 0, 0, 1), sample, self.processor.render(sample)))
            except LorgnetteError as error:
                refused.append(str(error))
        return [self.pack(drawn, most)], refused

    def _draw(
        self, steps: BatchBuilder, step: int, refused: list[str], advance: Callable[[], None]
    ) -> list[list[Drawn]]:
        """The packs of a step as the loader makes them, but with nothing in place of what is refused."""
        packs = []
        for part in range(steps.parts):
            drawn = []
            for ref in steps.refs(step, part):
                try:
                    drawn.append(steps.read(ref))
                except LorgnetteError as error:
                    refused.append(str(error))
                advance()
            packs += steps.lay_out(drawn)
        return packs

    def pack(self, drawn: Sequence[Drawn], most: int, step: int = 0, number: int = 0) -> Pack:
        """Documents of one pack, of which at most `most` are shown."""
        chosen = spread(len(drawn), most)
        documents = tuple(self.document(one, place in chosen) for place, one in enumerate(drawn))
        return Pack(step, number, documents, chosen)

    def document(self, drawn: Drawn, shown: bool = True) -> Document:
        """One sample with its pictures, and what is wrong with it if it cannot be trained on."""
        rendered, grid = drawn.rendered, self.processor.images.grid
        return Document(
            name=rendered.name,
            source=drawn.ref.source,
            tokens_T=rendered.tokens_T,
            loss_mask_T=rendered.loss_mask_T,
            pictures=tuple(picture(one, grid, shown) for one in rendered.images),
            visual_tokens=rendered.visual_tokens,
            originals=tuple(original_size(one.source) for one in drawn.sample.images) if shown else (),
            epoch=drawn.ref.epoch,
            fault=self._fault(rendered),
        )

    def _fault(self, rendered: Rendered) -> str:
        try:
            check(
                rendered,
                image_token=self.processor.image_token,
                vocabulary=self.vocabulary,
                most_tokens=self.most_tokens,
            )
        except DataError as error:
            return str(error).removeprefix(f"{rendered.name}: ")
        return ""


def rules(processor: Processor) -> dict[str, str]:
    """Settings of rendering, for people."""
    images = processor.images
    size = f"{images.crop_side} × {images.crop_side}"
    if images.policy == "native":
        size = f"{images.shortest}–{images.longest}"
    return {
        "images": f"sides of {size} px, patches of {images.patch} px on a table of {images.grid} × {images.grid}",
        "visual tokens": _visual_tokens(processor),
        "tokenizer": f"{processor.tokenizer.vocabulary:,} rows",
    }


def _visual_tokens(processor: Processor) -> str:
    """Visual tokens of the smallest and the largest image, for people."""
    images, connector = processor.images, processor.connector
    many = connector.multiple
    sides = [side // images.patch // many * many for side in (images.shortest, images.crop_side)]
    least, most = (connector.visual_tokens(*(connector.only_grid or (side, side))) for side in sides)
    return f"{least if least == most else f'{least} to {most}'} for each image, or each crop of a split one"


def shares(titles: Sequence[str], weights: Sequence[float]) -> tuple[Share, ...]:
    """Sources with their weights as shares of one. Equal titles are numbered."""
    total = float(np.sum(weights))
    return tuple(
        Share(title if titles.count(title) == 1 else f"{title} #{place}", weight / total)
        for place, (title, weight) in enumerate(zip(titles, weights, strict=True), 1)
    )
