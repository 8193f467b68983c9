"""Generation: prompts of any lengths with any number of images each, decoded together from one cache.

Images are encoded once. A finished document leaves the batch, so that nothing is computed for it. `slow.py` says the
same without a cache, one prompt at a time, and tests hold this to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lorgnette.infer.latents import Latents
from lorgnette.infer.sampling import GenerationConfig, Sampler
from lorgnette.infer.text import TextStream
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.render import prompt_ending
from lorgnette.model.batch import Batch
from lorgnette.model.cache import Cache
from lorgnette.model.memory import keep_freed_memory
from lorgnette.model.vlm import VLM
from lorgnette.sample import Sample

RESERVE = 256
"""Free slots made at once in the cache; more follow when they are full."""

Finish = Literal["end", "stop", "length"]


@dataclass(frozen=True)
class Generation:
    """One answer."""

    text: str
    tokens: tuple[int, ...]
    """Every token chosen, the one that ended the answer included."""
    finish: Finish
    """Why it ended: the model said so, a stop string appeared, or `max_tokens` were reached."""
    prompt_tokens: int
    """Tokens of the prompt, visual tokens included."""


@dataclass(frozen=True)
class Piece:
    """Some more text of one answer. The pieces of an answer add up to its text."""

    sample: int
    """Which of the samples is being answered."""
    text: str
    generation: Generation | None = None
    """The whole answer, with its last piece."""


def generate(
    model: VLM,
    processor: Processor,
    samples: Sequence[Sample],
    settings: GenerationConfig | None = None,
    *,
    split: bool | None = None,
    latents: Latents | None = None,
) -> list[Generation]:
    """Answer conversations, or go on with documents: one answer per sample, in order.

    A conversation that ends with a text of the assistant's is continued: the answer goes on from that text and does not
    repeat it.
    settings: greedy decoding of at most 256 tokens by default. split: images in five crops or one, over the processor's
    own setting. latents: visual tokens of images seen before, which are not encoded again; its own `split` counts.
    What stands beside a sample in the batch does not change its answer.
    Raises: ImageError or DataError naming the sample that cannot be read.
    """
    pieces = stream(model, processor, samples, settings, split=split, latents=latents)
    answers = {piece.sample: piece.generation for piece in pieces if piece.generation is not None}
    return [answers[number] for number in range(len(samples))]


@torch.no_grad()
def stream(
    model: VLM,
    processor: Processor,
    samples: Sequence[Sample],
    settings: GenerationConfig | None = None,
    *,
    split: bool | None = None,
    latents: Latents | None = None,
) -> Iterator[Piece]:
    """As `generate`, but yields text as soon as it is certain: whole characters, none of which begin a stop string."""
    if samples:
        with evaluating(model):
            if latents is None:
                batch, visual_VD = processor.prompts(samples, split=split).to(model.device), None
            else:
                batch, visual_VD = latents.prompts(samples)
            yield from _stream(model, processor, samples, settings or GenerationConfig(), batch, visual_VD)


def _stream(
    model: VLM,
    processor: Processor,
    samples: Sequence[Sample],
    settings: GenerationConfig,
    batch: Batch,
    visual_VD: Tensor | None,
) -> Iterator[Piece]:
    prompts = [prompt.tolist() for prompt in batch.tokens_T.split(list(batch.documents.lengths))]
    answers = [
        _Answer(processor, settings, number, len(prompt), opens_turn(sample))
        for number, (prompt, sample) in enumerate(zip(prompts, samples, strict=True))
    ]
    sampler = Sampler(settings, prompts, banned=slot_tokens(processor))
    cache = Cache(model.config, reserve=min(settings.max_tokens, RESERVE))
    logits_BK = model(batch, want="last", cache=cache, visual_VD=visual_VD).logits
    no_images = logits_BK.new_empty(0, model.config.language.width)
    live = list(range(len(samples)))
    while True:
        tokens = sampler.choose(logits_BK, live)
        for number, token in zip(live, tokens, strict=True):
            yield from answers[number].push(token)
        rows = [row for row, number in enumerate(live) if answers[number].generation is None]
        if not rows:
            return
        if len(rows) < len(live):
            cache.keep(rows)
        live, tokens = [live[row] for row in rows], [tokens[row] for row in rows]
        step = cache.next(torch.tensor(tokens, device=model.device))
        logits_BK = model(step, want="last", cache=cache, visual_VD=no_images).logits


@contextlib.contextmanager
def evaluating(model: VLM) -> Iterator[None]:
    """Without dropout, and each document by itself, whatever the model is doing otherwise."""
    training = model.training
    if model.device.type == "cpu":
        keep_freed_memory()
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def end_tokens(processor: Processor) -> frozenset[int]:
    """Ids that end an answer: the end of the utterance and of the sequence."""
    tokenizer = processor.tokenizer
    ends = (tokenizer.id(processor.special.end_of_utterance), tokenizer.eos)
    return frozenset(token for token in ends if token is not None)


def slot_tokens(processor: Processor) -> list[int]:
    """Ids that only an image may bring about; an answer never holds them."""
    return [processor.tokenizer.id(token) for token in (processor.special.around_image, processor.special.image)]


def opens_turn(sample: Sample) -> bool:
    """Whether the answer begins a turn, and does not go on with a document or a text of the assistant's."""
    return sample.is_chat and prompt_ending(sample) == "generation_prompt"


def decoder_of(processor: Processor, chat: bool) -> Callable[[list[int]], str]:
    """From an answer's ids to its text. The space after `Assistant:` belongs to the template, not to the answer."""
    decode = processor.tokenizer.decode
    return (lambda ids: decode(ids).removeprefix(" ")) if chat else decode


class _Answer:
    """One answer in the making: its text so far, and when it ends."""

    def __init__(
        self, processor: Processor, settings: GenerationConfig, sample: int, prompt_tokens: int, chat: bool
    ) -> None:
        self.sample, self.prompt_tokens = sample, prompt_tokens
        self.ends, self.most = end_tokens(processor), settings.max_tokens
        self.text = TextStream(decoder_of(processor, chat), settings.stop)
        self.tokens: list[int] = []
        self.generation: Generation | None = None

    def push(self, token: int) -> Iterator[Piece]:
        """Take in the next token; the piece of text that it makes certain, if any."""
        self.tokens.append(token)
        ended = token in self.ends
        text = "" if ended else self.text.push(token)
        finish: Finish | None = "end" if ended else "stop" if self.text.stopped else None
        if finish is None and len(self.tokens) == self.most:
            finish = "length"
        if finish is not None:
            text += self.text.close()
            finish = "stop" if self.text.stopped else finish
            self.generation = Generation(self.text.text, tuple(self.tokens), finish, self.prompt_tokens)
        if text or self.generation is not None:
            yield Piece(self.sample, text, self.generation)
