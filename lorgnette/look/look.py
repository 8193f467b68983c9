"""`look`: where in the image an answer came from, word by word, with the evidence that the map means something."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image

from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.image import image_crops
from lorgnette.inputs.image_io import image_size, open_image
from lorgnette.inputs.processor import Processor
from lorgnette.look.faithfulness import ORDERS, Faithfulness, check_steps
from lorgnette.look.heat import SHOWN_SIDE, heat, places_of, shown_size
from lorgnette.look.occlusion import PASS_PATCHES, PASS_TOKENS, Cell, Occluder
from lorgnette.look.steps import Steps, finish
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, Sample, Text, Turn


@dataclass(frozen=True)
class LookedWord:
    """A word of the answer, and how much each pixel of each image is worth to it."""

    text: str
    logprob: float
    """Of its tokens together, with the whole image (natural logarithm)."""
    heats: tuple[np.ndarray, ...]
    """For each image, the fall of that without each place, in nats: height, width of the picture on the page."""


@dataclass(frozen=True)
class Look:
    """Maps of an answer over the images that it is about, and the evidence that they mean something."""

    answer: str
    words: tuple[LookedWord, ...]
    pictures: tuple[PIL.Image.Image, ...]
    heats: tuple[np.ndarray, ...]
    """Of the whole answer, in nats a token."""
    faithfulness: Faithfulness
    removes: bool
    """Whether patches were removed; else they were painted over."""
    blind: float | None
    """Log-probability a token with the image minus with others, in nats; None where there is none to compare with."""


def answer_tokens(model: VLM, processor: Processor, prompt: Sample, answer: str | None, most: int) -> tuple[int, ...]:
    """Ids of an answer: of this text, or of what the model itself says, without the token that ends it."""
    if answer is None:
        [own] = generate(model, processor, [prompt], GenerationConfig(max_tokens=most, temperature=0.0))
        ended = own.finish == "stop" and len(own.tokens) > 1
        return own.tokens[:-1] if ended else own.tokens
    said = Sample((*prompt.segments, Turn("assistant"), Text(answer, supervised=True)), prompt.meta)
    rendered = processor.render(said, continue_final_message=True)
    return tuple(rendered.tokens_T[rendered.loss_mask_T].tolist())


def look(
    model: VLM,
    processor: Processor,
    prompt: Sample,
    *,
    answer: str | None = None,
    others: Sequence[Image] = (),
    orders: int = ORDERS,
    max_tokens: int = 64,
) -> Look:
    """Occlusion maps of an answer to a prompt that shows images.

    answer: a text whose words are looked up in the image; None for the model's own answer. others: pictures of other
    things, to compare with: an answer that is as likely with them did not come from the image.
    Raises: DataError without an image or an answer; ImageError.
    """
    sources = [one for one in prompt.segments if isinstance(one, Image)]
    tokens = answer_tokens(model, processor, prompt, answer, max_tokens)
    job = LookJob(model, processor, prompt, tokens)
    measured = finish(job.steps(orders, others))
    pictures = [open_image(one.source, prompt.name, processor.images.max_pixels) for one in sources]
    said = processor.tokenizer.decode(list(tokens)).strip()
    words, whole = job.words(measured), job.whole(measured)
    return Look(said, words, tuple(pictures), whole, measured.faithfulness, job.occluder.removes, measured.blind)


@dataclass(frozen=True)
class Measured:
    """Results of the passes of the model."""

    maps_CT: np.ndarray
    """Fall of each answer token's log-probability without each cell."""
    scores_T: np.ndarray
    """Log-probability of each answer token with the whole image."""
    faithfulness: Faithfulness
    blind: float | None
    """As of `Look`."""


class LookJob:
    """Occlusion maps of one answer in three parts: decoding, passes of the model one by one, maps of the pictures."""

    def __init__(
        self,
        model: VLM,
        processor: Processor,
        prompt: Sample,
        tokens: Sequence[int],
        *,
        side: int = SHOWN_SIDE,
        work: tuple[int, int] = (PASS_TOKENS, PASS_PATCHES),
    ) -> None:
        """Decode the images. side: of the maps, the longest. work: text tokens and patches of a pass.

        Raises: as `look`.
        """
        self.model, self.processor, self.prompt = model, processor, prompt
        self.tokens, self.side, self.work = tuple(tokens), side, work
        self.occluder = self._occluder(prompt)
        self._spread = _Spread(processor, self.occluder, prompt, side)

    def steps(self, orders: int = ORDERS, others: Sequence[Image] = ()) -> Steps[Measured]:
        """All passes of the model, one at a time. others: as of `look`."""
        maps_CT, scores_T = yield from self.occluder.map_steps()
        faithfulness = yield from check_steps(self.occluder, maps_CT.mean(1), orders)
        alone = []
        for other in others:  # in place of every image
            segments = tuple(other if isinstance(one, Image) else one for one in self.prompt.segments)
            scores = yield from self._occluder(Sample(segments, self.prompt.meta)).score_steps([()])
            alone.append(float(scores.mean()))
        blind = float(scores_T.mean()) - float(np.mean(alone)) if alone else None
        return Measured(maps_CT, scores_T, faithfulness, blind)

    def _occluder(self, prompt: Sample) -> Occluder:
        return Occluder(self.model, self.processor, prompt, self.tokens, self.work)

    def words(self, measured: Measured) -> tuple[LookedWord, ...]:
        """The words of the answer, each with its maps."""
        texts = [self.processor.tokenizer.decode(list(self.tokens[:count])) for count in range(len(self.tokens) + 1)]
        return tuple(
            LookedWord(text, float(measured.scores_T[part].sum()), self._spread(measured.maps_CT[:, part].sum(1)))
            for text, part in words_of(texts)
        )

    def whole(self, measured: Measured) -> tuple[np.ndarray, ...]:
        """The map of each picture for the whole answer, in nats a token."""
        return self._spread(measured.maps_CT.mean(1))


class _Spread:
    """Maps of cells as maps of the pictures on the page."""

    def __init__(self, processor: Processor, occluder: Occluder, prompt: Sample, side: int) -> None:
        self.cells, self.side, config = occluder.cells, side, processor.images
        sources = [one for one in prompt.segments if isinstance(one, Image)]
        self.sizes = [image_size(one.source, prompt.name, config.max_pixels) for one in sources]
        crops = [image_crops(one.source, config, config.split) for one in sources]
        self.starts = list(itertools.accumulate(map(len, crops), initial=0))
        self.places = [places_of(one, size, config) for one, size in zip(crops, self.sizes, strict=True)]

    def __call__(self, values_C: np.ndarray) -> tuple[np.ndarray, ...]:
        found = []
        for number, (size, places) in enumerate(zip(self.sizes, self.places, strict=True)):
            first, end = self.starts[number : number + 2]
            own = [place for place, cell in enumerate(self.cells) if first <= cell.crop < end]
            cells = [Cell(cell.crop - first, cell.box, cell.patches) for cell in map(self.cells.__getitem__, own)]
            found.append(heat(cells, values_C[own], places, shown_size(*size, self.side)))
        return tuple(found)


def words_of(texts: Sequence[str]) -> list[tuple[str, slice]]:
    """Words of an answer with the tokens that each is made of. texts: the answer up to each token, from none on."""
    pieces = [after[len(before) :] for before, after in itertools.pairwise(texts)]
    starts = [place for place, piece in enumerate(pieces) if not place or piece[:1].isspace()]
    parts = [slice(start, end) for start, end in zip(starts, [*starts[1:], len(pieces)], strict=True)]
    return [("".join(pieces[part]).strip(), part) for part in parts]


def blind_sentence(blind: float) -> str:
    """`Look.blind` in words."""
    if blind <= 0:
        return f"The answer did not come from the picture: with others it is as likely ({blind:+.2f} nats a token)."
    return f"With other pictures the answer is less likely, by {blind:.2f} nats a token."


def asked(images: Sequence[Image], prompt: str) -> Sample:
    """A question about images."""
    return Sample((Turn("user"), *images, Text(prompt)), {"name": "the prompt"})
