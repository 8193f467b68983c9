"""A prefix is reused where all of it is equal, its images and its owner included."""

from __future__ import annotations

import pytest

from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.request import Request, SamplingParams
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.model.config import VLMConfig
from lorgnette.sample import Image, Sample, Text, Turn
from tests.hub.tiny import cross_config, picture, tiny_model, tiny_processor
from tests.infer.engine.driving import ask, engine, engine_of, every_fusion, finish, request

WORDS = "a red square over a blue circle; what colour is the mat? " * 2


def shown(*seeds: int, after: str = "") -> Sample:
    """A conversation about pictures of equal size that differ in their pixels."""
    return Sample((Turn("user"), *[Image(picture(40, 60, seed)) for seed in seeds], Text(WORDS + after)))


def cached(engine_: Engine, one: Request) -> int:
    """Tokens of a request's prompt that were found."""
    engine_.add(one)
    return next(event.usage.cached_tokens for event in finish(engine_) if event.usage)


@every_fusion
def test_two_images_of_equal_prompts_are_never_mixed(config: VLMConfig) -> None:
    model, processor = tiny_model(config, seed=1), tiny_processor(config)
    engine_ = engine(model, processor, block=4)
    assert cached(engine_, request("1", shown(1))) == 0
    assert cached(engine_, request("2", shown(2))) <= 4, "what stands before the image"
    assert cached(engine_, request("3", shown(1))) > 40
    assert cached(engine_, request("4", shown(1, 2))) <= cached(engine_, request("5", shown(1, 2)))
    swapped = cached(engine_, request("6", shown(2, 1)))
    assert swapped <= 12, "pictures in the other order are another prompt"
    for number, sample in enumerate([shown(1), shown(2), shown(1, 2), shown(2, 1)]):
        answer = ask(engine_, request(f"again {number}", sample))[f"again {number}", 0]
        assert answer == generate(model, processor, [sample], GenerationConfig(max_tokens=8))[0]


@every_fusion
def test_splitting_makes_another_prefix(config: VLMConfig) -> None:
    engine_ = engine_of(config, block=4)
    whole = Request("1", shown(1), SamplingParams(max_tokens=4))
    split = Request("2", shown(1), SamplingParams(max_tokens=4), split=True)
    assert cached(engine_, whole) == 0
    assert cached(engine_, split) <= 4
    assert engine_.stats().image_misses == 2


def test_owners_share_only_what_they_say() -> None:
    engine_ = engine()
    assert cached(engine_, request("1", shown(1), key="a")) == 0
    assert cached(engine_, request("2", shown(1), key="b")) == 0
    assert cached(engine_, request("3", shown(1), key="a")) > 0
    shared = [
        Request(str(n), shown(3), SamplingParams(max_tokens=4), key=key, salt="both") for n, key in enumerate("ab")
    ]
    assert cached(engine_, shared[0]) == 0
    assert cached(engine_, shared[1]) > 0


@every_fusion
def test_a_running_answer_is_a_prefix_too(config: VLMConfig) -> None:
    engine_ = engine_of(config)
    engine_.add(request("1", shown(1), max_tokens=50))
    while not engine_.stats().generation_tokens:
        engine_.step()
    engine_.add(request("2", shown(1, after="and?"), max_tokens=2))
    finish(engine_)
    assert engine_.stats().prefix_hits >= 48
    assert engine_.stats().image_misses == 1


@pytest.mark.parametrize("sees", ["last", "group", "all"])
@pytest.mark.parametrize("block", [1, 4, 16])
def test_a_prefix_that_ends_anywhere_among_images_goes_on_from_what_it_has_seen(sees: str, block: int) -> None:
    """Examples that several prompts begin with, cut between them: what is seen there is none of the holder's last."""
    model = tiny_model(cross_config(sees=sees), seed=1)
    processor = tiny_processor(model.config)
    engine_ = engine(model, processor, block=block, tokens_per_step=16)
    shots = [(Image(picture(40, 60, seed)), Text(f"the cat {seed}")) for seed in range(5)]
    for number in range(6):
        parts = [part for seed in [0, 1, 2, 3][: 4 - number % 3] for part in shots[seed]]
        sample = Sample((Turn("user"), *parts, *shots[number % 5]))
        answer = ask(engine_, request(number, sample))[str(number), 0]
        assert answer == generate(model, processor, [sample], GenerationConfig(max_tokens=8))[0]
    assert engine_.stats().prefix_hits > 50
    assert engine_.stats().image_misses == 5, "each is encoded once"


def test_prefixes_go_when_memory_is_needed_the_oldest_first() -> None:
    engine_ = engine(kv_bytes=2**16)  # 256 tokens: two documents of 64 to 128
    for number in range(6):
        cached(engine_, request(number, shown(number), max_tokens=2))
        assert engine_.stats().kv_bytes_used == engine_.stats().kv_bytes_cached <= 2**16
    assert cached(engine_, request("old", shown(0), max_tokens=2)) == 0
    assert cached(engine_, request("new", shown(5), max_tokens=2)) > 0


@pytest.mark.parametrize("prefix_bytes", [0, 2**14])
def test_prefixes_keep_to_their_bytes(prefix_bytes: int) -> None:
    engine_ = engine(prefix_bytes=prefix_bytes)
    for number in range(4):
        cached(engine_, request(number, shown(number), max_tokens=2))
        assert engine_.stats().kv_bytes_cached <= prefix_bytes


def test_an_equal_prompt_is_kept_once() -> None:
    engine_ = engine()
    cached(engine_, request("0", shown(1), max_tokens=1))
    once = engine_.stats().kv_bytes_cached
    for number in range(1, 4):
        cached(engine_, request(number, shown(1), max_tokens=1))
    assert engine_.stats().kv_bytes_cached == once > 0
