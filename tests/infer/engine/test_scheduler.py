"""Scheduling of a step: growing answers first, then prompts in chunks, admission in turns, the newest preempted."""

from __future__ import annotations

import pytest

from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.model.config import VLMConfig
from lorgnette.model.vlm import VLM
from tests.hub.tiny import SAMPLES, question, tiny_model, tiny_processor
from tests.infer.engine.driving import answers, engine, engine_of, every_fusion, finish, request

LONG = question("a red square over a blue circle; what colour is the mat? " * 6)
"""150 tokens."""


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Tokens of each document in each pass."""
    seen: list[tuple[int, ...]] = []
    forward = VLM.forward

    def noted(self, batch, **options):
        seen.append(batch.documents.lengths)
        return forward(self, batch, **options)

    monkeypatch.setattr(VLM, "forward", noted)
    return seen


def test_a_long_prompt_is_read_in_chunks_while_others_grow(lengths: list) -> None:
    engine_ = engine(tokens_per_step=32)
    engine_.add(request("short", SAMPLES[1], max_tokens=20))
    events = engine_.step()
    engine_.add(request("long", LONG, max_tokens=2))
    events += finish(engine_)
    assert all(sum(one) <= 32 for one in lengths)
    assert lengths[1:5] == [(1, 31)] * 4, "the growing answer has its token in every step"
    assert len(answers(events)) == 2


def test_prompts_share_a_step_in_the_order_in_which_they_came(lengths: list) -> None:
    engine_ = engine(tokens_per_step=64)
    for number in range(3):
        engine_.add(
            request(
                number,
                question("the mat " * 20),
            )
        )
    engine_.step()
    assert sum(lengths[0]) == 64
    assert lengths[0][0] > lengths[0][1], "the first has all it needs, the second the rest"


def test_keys_take_turns() -> None:
    """One key's 20 requests do not hold back another's two."""
    engine_ = engine(max_running=1, max_waiting=100)
    for number in range(20):
        engine_.add(request(f"greedy {number}", SAMPLES[1], key="greedy", max_tokens=2))
    for number in range(2):
        engine_.add(request(f"modest {number}", SAMPLES[1], key="modest", max_tokens=2))
    ended = [one.request for one in finish(engine_) if one.generation]
    assert ended[:5] == ["greedy 0", "modest 0", "greedy 1", "modest 1", "greedy 2"]


def test_who_has_waited_long_goes_first() -> None:
    """Many keys, one request each: the turns alone would let new keys overtake the second request of an old one."""
    engine_ = engine(max_running=1, max_waiting=100, fair_seconds=10, queue_seconds=1000)
    engine_.add(request("a0", SAMPLES[1], key="a", max_tokens=2), now=0)
    engine_.add(request("a1", SAMPLES[1], key="a", max_tokens=2), now=0)
    for number in range(30):
        engine_.add(request(f"k{number}", SAMPLES[1], key=f"k{number}", max_tokens=2), now=5)
    ended, now = [], 5.0
    while not engine_.is_idle:
        ended += [one.request for one in engine_.step(now) if one.generation]
        now += 1
    assert ended.index("a1") <= 4
    assert len(ended) == 32


def test_a_large_request_is_not_overtaken_for_ever() -> None:
    """Small ones that come later do not take the memory that it waits for."""
    engine_ = engine(kv_bytes=2**16, max_waiting=100, prefix_bytes=0)  # 256 tokens
    for number in range(4):
        engine_.add(request(f"early {number}", SAMPLES[1], max_tokens=40))
    engine_.step()
    engine_.add(request("large", LONG, max_tokens=40))
    for number in range(20):
        engine_.add(request(f"late {number}", SAMPLES[1], max_tokens=40))
    ended = [one.request for one in finish(engine_) if one.generation]
    assert ended.index("large") <= 4


@every_fusion
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_preempted_answers_are_as_they_would_have_been(config: VLMConfig, temperature: float) -> None:
    model, processor = tiny_model(config, seed=1), tiny_processor(config)
    prompts = [*SAMPLES, *SAMPLES[:3]]
    settings = {"max_tokens": 100, "temperature": temperature, "seed": 2}
    engine_ = engine(model, processor, kv_bytes=2**16 + 2**15, answer_room=1, prefix_bytes=0)  # 384 tokens
    for number, sample in enumerate(prompts):
        engine_.add(request(number, sample, **settings))
    found = answers(finish(engine_))
    assert engine_.stats().preemptions > 3
    alone = [generate(model, processor, [sample], GenerationConfig(**settings))[0] for sample in prompts]
    assert [found[str(number), 0] for number in range(len(prompts))] == alone


def test_the_oldest_is_never_preempted_by_a_younger_one() -> None:
    engine_ = engine(kv_bytes=2**16, answer_room=1, prefix_bytes=0)
    engine_.add(request("old", SAMPLES[1], max_tokens=200))
    for number in range(5):
        engine_.add(request(number, SAMPLES[1], max_tokens=100))
    events = []
    while not engine_.is_idle:
        events += engine_.step()
        old = engine_._requests.get("old")
        assert old is None or old.answers[0].document is not None
    assert engine_.stats().preemptions > 0
    assert len(answers(events)) == 6


@every_fusion
def test_images_are_encoded_when_they_are_needed(config: VLMConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most `patches_per_step` patches in a step, and an image that is larger by itself."""
    calls = []
    encode = VLM.encode_images
    monkeypatch.setattr(VLM, "encode_images", lambda self, batch: calls.append(batch.grids) or encode(self, batch))
    engine_ = engine_of(config, patches_per_step=40)
    pictures = [(84, 84), (28, 28), (30, 84), (84, 30)]  # 36, 4, 12, 12 patches
    engine_.add(request("a", question("?", *pictures)))
    per_step = []
    while not engine_.is_idle:
        before = len(calls)
        engine_.step()
        per_step.append([len(one) for one in calls[before:]])
    assert per_step[:2] == [[2], [2]]
    assert sum(map(len, calls)) == 4


def test_an_idle_engine_does_nothing() -> None:
    engine_ = engine()
    assert engine_.is_idle
    assert engine_.step() == []
    assert engine_.stats().steps == 0
