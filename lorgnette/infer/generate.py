"""Generation: prompts of any lengths with any number of images each, decoded together from one cache.

Images are encoded once. A finished document leaves the batch, so that nothing is computed for it. `reference.py` says
the same without a cache, one prompt at a time, and tests hold this to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lorgnette.errors import DataError, PromptTooLong
from lorgnette.infer.image_cache import ImageFeatureCache
from lorgnette.infer.logits import LogitRules
from lorgnette.infer.sampling import GenerationConfig, Sampler, with_rules
from lorgnette.infer.text import TextStream
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.render import prompt_ending
from lorgnette.model.batch import Batch
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.inference.prepared_layers import prepare
from lorgnette.model.kv_cache import KVCache
from lorgnette.model.ops.allocator import keep_freed_memory
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
    """Reason for the end: an end token, a stop string, or the length limit."""
    prompt_tokens: int
    """Tokens of the prompt, visual tokens included."""


@dataclass(frozen=True)
class TextDelta:
    """Some more text of one answer. The pieces of an answer add up to its text."""

    sample: int
    """Index of the sample that the piece belongs to."""
    text: str
    generation: Generation | None = None
    """The whole answer, with its last piece."""


def generate(
    model: VLM,
    processor: Processor,
    samples: Sequence[Sample] | Sample,
    settings: GenerationConfig | None = None,
    *,
    split: bool | None = None,
    image_cache: ImageFeatureCache | None = None,
) -> list[Generation]:
    """Answer conversations, or go on with documents: one answer per sample, in order.

    samples: a list, or one alone. A conversation that ends with a text of the assistant's is continued: the answer goes
    on from that text and does not repeat it.
    settings: what is not given is as the checkpoint's generation_config.json says, and where that says nothing greedy
    decoding of at most 256 tokens. split: images in crops or whole, over the processor's own setting.
    image_cache: visual tokens of images seen before, which are not encoded again; its own `split` counts.
    What stands beside a sample in the batch does not change its answer.
    Raises: ImageError or DataError naming the sample that cannot be read, or has no room among the model's positions.
    """
    samples = listed(samples)
    pieces = stream(model, processor, samples, settings, split=split, image_cache=image_cache)
    answers = {piece.sample: piece.generation for piece in pieces if piece.generation is not None}
    return [answers[number] for number in range(len(samples))]


@torch.no_grad()
def stream(
    model: VLM,
    processor: Processor,
    samples: Sequence[Sample] | Sample,
    settings: GenerationConfig | None = None,
    *,
    split: bool | None = None,
    image_cache: ImageFeatureCache | None = None,
) -> Iterator[TextDelta]:
    """As `generate`, but yields text as soon as it is certain: whole characters, none of which begin a stop string."""
    samples = listed(samples)
    if samples:
        with evaluating(model):
            if image_cache is None:
                batch, visual_VD = processor.prompts(samples, split=split).to(model.device), None
            else:
                batch, visual_VD = image_cache.prompts(samples)
            yield from _stream(model, processor, samples, with_rules(settings, processor.generation), batch, visual_VD)


def _stream(
    model: VLM,
    processor: Processor,
    samples: Sequence[Sample],
    settings: GenerationConfig,
    batch: Batch,
    visual_VD: Tensor | None,
) -> Iterator[TextDelta]:
    prompts = [prompt.tolist() for prompt in batch.tokens_T.split(list(batch.documents.lengths))]
    most = [
        longest_answer(model.config.language, processor, settings, sample.name, len(prompt))
        for prompt, sample in zip(prompts, samples, strict=True)
    ]
    answers = [
        GrowingAnswer(processor, settings, number, len(prompt), opens_turn(sample), most[number])
        for number, (prompt, sample) in enumerate(zip(prompts, samples, strict=True))
    ]
    sampler = Sampler(settings, prompts, slot_tokens(processor), rules_on_logits(processor), most)
    cache = KVCache(model.config, reserve=min(max(most), RESERVE))
    logits_BK = model(batch, output="last", cache=cache, visual_VD=visual_VD).logits
    no_images = logits_BK.new_empty(0, model.config.visual_width)
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
        logits_BK = model(step, output="last", cache=cache, visual_VD=no_images).logits


@contextlib.contextmanager
def evaluating(model: VLM) -> Iterator[None]:
    """Without dropout, and each document by itself, whatever the model is doing otherwise."""
    training = model.training
    if model.device.type == "cpu":
        keep_freed_memory()
    prepare(model.language)
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def listed(samples: Sequence[Sample] | Sample) -> Sequence[Sample]:
    """The samples as a list; one alone is a list of one. Raises: DataError for what is no sample."""
    listed = [samples] if isinstance(samples, Sample) else samples
    for sample in listed:
        if not isinstance(sample, Sample):
            raise DataError(f"a {type(sample).__name__} is no Sample; Sample.from_messages makes one of messages")
    return listed


def check_length(language: LanguageConfig, name: str, tokens: int) -> None:
    """Raises: PromptTooLong if a prompt of so many tokens exceeds the positions that the decoder was made for."""
    if tokens > language.context_length:
        raise PromptTooLong(
            f"{name}: {tokens:,} tokens with the images' exceed the {language.context_length:,} positions of the model;"
            " shorten the text, or show fewer images or crops"
        )


def longest_answer(
    language: LanguageConfig, processor: Processor, settings: GenerationConfig, name: str, prompt_tokens: int
) -> int:
    """Return the most tokens of an answer: as the settings say, and no more than the decoder has positions.

    Raises: DataError if the prompt leaves no room.
    """
    check_length(language, name, prompt_tokens)
    most, whole = settings.max_tokens, processor.generation.max_length
    if whole is not None and "max_tokens" not in settings.model_fields_set:
        most = whole - prompt_tokens
        if most < 1:
            raise DataError(
                f"{name}: {prompt_tokens:,} tokens reach the max_length of {whole:,} in the checkpoint's"
                " generation_config.json; give max_tokens"
            )
    return min(most, language.context_length - prompt_tokens + 1)


def end_tokens(processor: Processor) -> frozenset[int]:
    """Ids that end an answer: the end of the utterance and of the sequence, and those that the checkpoint names."""
    tokenizer = processor.tokenizer
    ends = (tokenizer.id(processor.special.end_of_utterance), tokenizer.eos, *processor.generation.end_tokens)
    return frozenset(token for token in ends if token is not None)


def rules_on_logits(processor: Processor) -> LogitRules:
    """Return the rules on logits that the checkpoint states."""
    return LogitRules(processor.generation, end_tokens(processor))


def slot_tokens(processor: Processor) -> list[int]:
    """Ids that only an image may bring about; an answer never holds them."""
    return [processor.tokenizer.id(token) for token in processor.special.slots]


def opens_turn(sample: Sample) -> bool:
    """Return whether the answer begins a turn, and does not go on with a document or a text of the assistant's."""
    return sample.is_chat and prompt_ending(sample) == "generation_prompt"


def decoder_of(processor: Processor, chat: bool) -> Callable[[list[int]], str]:
    """From an answer's ids to its text. The space after `Assistant:` belongs to the template, not to the answer."""
    decode = processor.tokenizer.decode
    return (lambda ids: decode(ids).removeprefix(" ")) if chat else decode


class GrowingAnswer:
    """One answer in the making: its text so far, and when it ends."""

    def __init__(
        self,
        processor: Processor,
        settings: GenerationConfig,
        sample: int,
        prompt_tokens: int,
        chat: bool,
        most: int,
    ) -> None:
        self.sample, self.prompt_tokens = sample, prompt_tokens
        self.ends, self.most = end_tokens(processor), most
        self.text = TextStream(decoder_of(processor, chat), settings.stop)
        self.tokens: list[int] = []
        self.generation: Generation | None = None

    def push(self, token: int, last: bool = False) -> Iterator[TextDelta]:
        """Take in the next token; the piece of text that it makes certain, if any. last: whether it ends the answer."""
        self.tokens.append(token)
        ended = token in self.ends
        text = "" if ended else self.text.push(token)
        finish: Finish | None = "stop" if self.text.stopped else "end" if ended or last else None
        if finish is None and len(self.tokens) == self.most:
            finish = "length"
        if finish is not None:
            text += self.text.close()
            finish = "stop" if self.text.stopped else finish
            self.generation = Generation(self.text.text, tuple(self.tokens), finish, self.prompt_tokens)
        if text or self.generation is not None:
            yield TextDelta(self.sample, text, self.generation)
