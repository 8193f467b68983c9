"""Driving an engine in tests: answers of requests, and what the oracle says of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest
import torch

from lorgnette.infer.engine.config import EngineConfig
from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.request import Event, Request, SamplingParams
from lorgnette.infer.generate import Generation
from lorgnette.inputs.processor import Processor
from lorgnette.model.batch import SequenceLengths
from lorgnette.model.config import VLMConfig
from lorgnette.model.vlm import VLM
from lorgnette.sample import Sample
from tests.hub.tiny import cross_config, tiny_config, tiny_model, tiny_processor

FUSIONS = {"autoregressive": tiny_config(), "cross_attention": cross_config()}
every_fusion = pytest.mark.parametrize("config", FUSIONS.values(), ids=FUSIONS)
"""Models that have their visual tokens in the sequence, and beside it."""
CLOSE = 1e-4
"""Two logits are told apart if they differ by more than this part of the largest."""


def engine(model: VLM | None = None, processor: Processor | None = None, **settings: object) -> Engine:
    """An engine of a tiny model, with memory for about 1,000 tokens if nothing else is said."""
    model = model or tiny_model(seed=1)
    limits = EngineConfig(**{"kv_bytes": 2**18, "max_running": 8} | settings)
    return Engine(model, processor or tiny_processor(model.config), limits)


def engine_of(config: VLMConfig, **settings: object) -> Engine:
    """As `engine`, of a model with these settings."""
    return engine(tiny_model(config, seed=1), **settings)


def request(name: object, sample: Sample, *, key: str = "", **params: object) -> Request:
    return Request(str(name), sample, SamplingParams(**{"max_tokens": 8} | params), key=key)


def finish(engine: Engine, now: float = 0.0) -> list[Event]:
    """Every event until the engine is idle."""
    events: list[Event] = []
    for _ in range(3000):
        if engine.is_idle:
            return events
        events += engine.step(now)
    raise AssertionError("the engine does not come to an end")


def answers(events: Iterable[Event]) -> dict[tuple[str, int], Generation]:
    """Answer by request and choice; the texts of its events must add up to it, and so must the tokens."""
    events = list(events)
    found = {(one.request, one.choice): one.generation for one in events if one.generation is not None}
    for (name, choice), generation in found.items():
        own = [one for one in events if (one.request, one.choice) == (name, choice)]
        assert "".join(one.text for one in own) == generation.text
        assert tuple(one.token.id for one in own if one.token) == generation.tokens
    return found


def ask(engine: Engine, *requests: Request) -> dict[tuple[str, int], Generation]:
    for one in requests:
        engine.add(one)
    return answers(finish(engine))


@torch.no_grad()
def forced_logits(model: VLM, processor: Processor, sample: Sample, tokens: tuple[int, ...]) -> torch.Tensor:
    """The model's logits before each of these tokens of an answer, from one pass without a cache: T,K."""
    batch = processor.prompts([sample])
    tokens_T = torch.cat([batch.tokens_T, torch.tensor(tokens[:-1], dtype=torch.int64)])
    batch = dataclasses.replace(
        batch,
        tokens_T=tokens_T,
        targets_T=torch.full_like(tokens_T, -100),
        positions_T=torch.arange(len(tokens_T)),
        documents=SequenceLengths((len(tokens_T),)),
    )
    return model(batch).logits[-len(tokens) :]


def same_or_close(model: VLM, processor: Processor, sample: Sample, ours: Generation, oracle: Generation) -> bool:
    """Return whether two greedy answers are equal up to a token whose two best logits nearly tie."""
    if ours == oracle:
        return True
    pairs = zip(ours.tokens, oracle.tokens, strict=False)
    at = next(number for number, (mine, other) in enumerate(pairs) if mine != other)
    logits_K = forced_logits(model, processor, sample, oracle.tokens[: at + 1])[-1]
    gap = abs(float(logits_K[ours.tokens[at]] - logits_K[oracle.tokens[at]]))
    return gap <= CLOSE * float(logits_K.abs().max())
