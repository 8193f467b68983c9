"""Whatever comes and goes beside a request, it is answered as by the reference generation, one prompt at a time."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch

from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.request import Event
from lorgnette.infer.generate import Generation, generate
from lorgnette.infer.reference import generate_reference
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.model.configs.connector_config import LinearConfig, PixelShuffleConfig
from lorgnette.sample import Sample, Text, Turn
from tests.hub.tiny import SAMPLES, cross_config, question, tiny_config, tiny_model, tiny_processor
from tests.infer.engine.driving import answers, ask, engine, finish, forced_logits, request, same_or_close

LONG = "a red square over a blue circle; what colour is the mat? "
PROMPTS = (
    *SAMPLES,
    question(LONG * 3, (40, 60)),
    question(LONG * 3, (60, 40)),
    Sample(
        (*question(LONG, (84, 84), (30, 30)).segments, Turn("assistant"), Text("a cat"), Turn("user"), Text("and?"))
    ),
    question(LONG * 6),
)
SETTINGS = (
    {"max_tokens": 12},
    {"max_tokens": 1},
    {"max_tokens": 80},
    {"max_tokens": 70, "stop": ("e", "o")},
    {"max_tokens": 12, "temperature": 1.0, "seed": 3},
    {"max_tokens": 12, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "seed": 4},
)
MODELS = {
    "perceiver": tiny_config(),
    "linear": tiny_config().model_copy(update={"connector": LinearConfig()}),
    "pixel shuffle, window": tiny_config(sliding_window=40).model_copy(update={"connector": PixelShuffleConfig()}),
    "one kv head, tied, two kinds of layers, caps": tiny_config(
        kv_heads=1, tied_embeddings=True, sliding_window=40, global_every=2, score_cap=0.5, logit_cap=3.0
    ),
    "cross-attention": cross_config(),
    "cross-attention, group": cross_config({"kind": "linear"}, sees="group", every=2),
    "cross-attention, all": cross_config(sees="all", kv_heads=4, qk_norm=False, text_mlp=False, first=0),
}
ENGINES = (
    {"tokens_per_step": 16, "kv_bytes": 2**18},
    {"tokens_per_step": 37, "kv_bytes": 2**16, "image_bytes": 3000, "block": 8, "answer_room": 1},
    {"tokens_per_step": 256, "kv_bytes": 2**16, "image_bytes": 0, "answer_room": 1},
    {"tokens_per_step": 64, "kv_bytes": 2**19, "prefix_bytes": 0, "max_running": 3},
    {"tokens_per_step": 20, "kv_bytes": 2**18, "prefix_bytes": 2**15, "patches_per_step": 1, "answer_room": 1},
)
IMAGE_MEMORY = (2**18, 4000, 2**14, 2**16, 10_000)
"""Bytes for keys and values of images, by engine. In 4,000 the three of one prompt have room, and no other beside."""
IMAGE_SIZES = {"cross-attention": 1, "cross-attention, group": 6, "cross-attention, all": 2}
"""How much more memory the images of each model take."""


def limits(name: str, number: int) -> dict[str, int]:
    """Settings of an engine."""
    images = {"image_kv_bytes": IMAGE_MEMORY[number] * IMAGE_SIZES[name]} if name in IMAGE_SIZES else {}
    return ENGINES[number] | images


@cache
def parts(name: str):
    config = MODELS[name]
    return tiny_model(config, seed=1), tiny_processor(config)


@cache
def oracle(name: str, prompt: int, settings: int) -> Generation:
    return generate_reference(*parts(name), PROMPTS[prompt], GenerationConfig(**SETTINGS[settings]))


def drive(name: str, number: int, requests: int) -> tuple[Engine, list[Event], dict[str, tuple[int, int]], set[str]]:
    """Requests that come at random steps, some of which are aborted. Returns what was asked and what aborted."""
    draw = random.Random(f"{name} {number}")
    engine_, asked, aborted, events = engine(*parts(name), **limits(name, number)), {}, set(), []
    while len(asked) < requests or not engine_.is_idle:
        while len(asked) < requests and draw.random() < 0.8:
            prompt, settings = draw.randrange(len(PROMPTS)), draw.randrange(len(SETTINGS))
            one = str(len(asked))
            asked[one] = prompt, settings
            engine_.add(request(one, PROMPTS[prompt], key=draw.choice("abc"), **SETTINGS[settings]))
        if asked and draw.random() < 0.05:
            one = draw.choice(list(asked))
            aborted |= {one} if engine_.abort(one) else set()
        events += engine_.step()
    return engine_, events, asked, aborted


CASES = [(name, number) for name in MODELS for number in range(len(ENGINES)) if IMAGE_SIZES.get(name, 1) == 1]
CASES += [(name, number) for name in ("cross-attention, group", "cross-attention, all") for number in (1, 4)]


@pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{name}, {number}" for name, number in CASES])
def test_random_arrivals_and_aborts_change_no_answer(name: str, number: int) -> None:
    """Ten requests in each of 29 engines: 290 in all."""
    engine_, events, asked, aborted = drive(name, number, requests=10)
    assert not [one.error for one in events if one.error]
    found = answers(events)
    assert {one for one, _ in found} | aborted == set(asked)
    for (one, _), answer in found.items():
        expected = oracle(name, *asked[one])
        if "temperature" in SETTINGS[asked[one][1]]:
            assert answer == expected
        else:
            assert same_or_close(*parts(name), PROMPTS[asked[one][0]], answer, expected)
    stats = engine_.stats()
    assert stats.kv_bytes_used == stats.kv_bytes_cached
    assert (stats.running, stats.waiting, stats.preempted, stats.faults) == (0, 0, 0, 0)
    assert stats.image_kv_bytes_used == 0


def test_the_same_calls_give_the_same_bits() -> None:
    name = "perceiver"
    assert drive(name, 1, 30)[1] == drive(name, 1, 30)[1]


def test_the_engines_of_the_battery_preempt_and_share() -> None:
    """The battery means something: there are preemptions, prefixes found, and images encoded again."""
    stats = [drive("perceiver", number, 45)[0].stats() for number in range(len(ENGINES))]
    assert sum(one.preemptions for one in stats) > 3
    assert sum(one.prefix_hits for one in stats) > 200
    assert sum(one.image_hits for one in stats) > 10
    assert stats[2].image_misses > 5


def test_log_probabilities_are_the_models() -> None:
    model, processor = parts("perceiver")
    engine_ = engine(model, processor, tokens_per_step=16)
    for number, sample in enumerate(SAMPLES):
        engine_.add(request(number, sample, logprobs=3, temperature=0.8, seed=number))
    events = finish(engine_)
    for (name, _), answer in answers(events).items():
        logits_TK = forced_logits(model, processor, SAMPLES[int(name)], answer.tokens).log_softmax(-1)
        chosen = [one.token for one in events if one.request == name]
        for row_K, token in zip(logits_TK, chosen, strict=True):
            assert token.logprob == pytest.approx(float(row_K[token.id]), abs=1e-4)
            values, ids = row_K.topk(3)
            assert [one for one, _ in token.top] == ids.tolist()
            torch.testing.assert_close(torch.tensor([value for _, value in token.top]), values, atol=1e-4, rtol=0)


def test_several_choices_are_the_answers_to_the_prompt_given_several_times() -> None:
    model, processor = parts("perceiver")
    settings = {"max_tokens": 10, "temperature": 1.0, "seed": 5}
    for sample in SAMPLES[:3]:
        expected = generate(model, processor, [sample] * 4, GenerationConfig(**settings))
        for kv_bytes in (2**18, 2**15 + 2**14):
            engine_ = engine(model, processor, kv_bytes=kv_bytes, max_running=3, tokens_per_step=16)
            found = ask(engine_, request("r", sample, n=4, **settings))
            assert [found["r", choice] for choice in range(4)] == expected
            assert engine_.stats().prompt_tokens == expected[0].prompt_tokens


def test_a_conversation_finds_its_own_beginning() -> None:
    model, processor = parts("perceiver")
    engine_ = engine(model, processor)
    first = PROMPTS[5]
    answer = ask(engine_, request("1", first))["1", 0]
    longer = Sample((*first.segments, Turn("assistant"), Text(answer.text), Turn("user"), Text("and then?")))
    engine_.add(request("2", longer))
    events = finish(engine_)
    assert answers(events)["2", 0] == generate_reference(model, processor, longer, GenerationConfig(max_tokens=8))
    usage = events[-1].usage
    assert usage.cached_tokens >= answer.prompt_tokens // 16 * 16
    assert (usage.image_tokens, engine_.stats().image_misses) == (4, 1), "no vision work for the second turn"
