"""The oracle of generation: one prompt at a time, the whole model run again for every token. Kept for ever."""

from __future__ import annotations

import dataclasses

import torch

from lorgnette.infer.generate import (
    Generation,
    decoder_of,
    end_tokens,
    evaluating,
    longest_answer,
    opens_turn,
    rules_on_logits,
    slot_tokens,
)
from lorgnette.infer.sampling import GenerationConfig, Sampler, with_rules
from lorgnette.inputs.processor import Processor
from lorgnette.model.batch import IGNORE_INDEX, Batch, SequenceLengths
from lorgnette.model.vlm import VLM
from lorgnette.sample import Sample


@torch.no_grad()
def generate_reference(
    model: VLM, processor: Processor, sample: Sample, settings: GenerationConfig, *, split: bool | None = None
) -> Generation:
    """As `generate` for one sample: no cache, no batch, no stream, images encoded again for every token."""
    batch = processor.prompts([sample], split=split).to(model.device)
    prompt, settings = batch.tokens_T.tolist(), with_rules(settings, processor.generation)
    most = longest_answer(model.config.language, processor, settings, sample.name, len(prompt))
    sampler = Sampler(settings, [prompt], slot_tokens(processor), rules_on_logits(processor), [most])
    decode, tokens, ends = decoder_of(processor, opens_turn(sample)), list[int](), end_tokens(processor)
    while len(tokens) < most:
        with evaluating(model):
            logits_BK = model(batch, output="last").logits
        (token,) = sampler.choose(logits_BK, [0])
        tokens.append(token)
        text = decode([token for token in tokens if token not in ends])
        places = [place for place in (text.find(stop) for stop in settings.stop) if place >= 0]
        if places:
            return Generation(text[: min(places)], tuple(tokens), "stop", len(prompt))
        if token in ends:
            return Generation(text, tuple(tokens), "end", len(prompt))
        batch = _longer(batch, token)
    return Generation(text, tuple(tokens), "length", len(prompt))


def _longer(batch: Batch, token: int) -> Batch:
    """A batch of one document with a token more."""
    length = batch.documents.total + 1
    return dataclasses.replace(
        batch,
        tokens_T=torch.cat([batch.tokens_T, torch.tensor([token], device=batch.device)]),
        targets_T=torch.full((length,), IGNORE_INDEX, device=batch.device),
        positions_T=torch.arange(length, device=batch.device),
        documents=SequenceLengths((length,)),
    )
