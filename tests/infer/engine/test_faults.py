"""Failures of one request affect no other request and leak no memory."""

from __future__ import annotations

import io
import random

import pytest
import torch

from lorgnette.errors import DataError, ImageError, SettingsError
from lorgnette.infer.engine.config import EngineConfig
from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.request import EngineFault, QueueFull, QueueTimeout, SamplingParams
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.model.config import VLMConfig
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, Sample, Text, Turn
from tests.hub.tiny import SAMPLES, picture, question, tiny_config, tiny_model, tiny_processor
from tests.infer.engine.driving import FUSIONS, answers, engine, engine_of, every_fusion, finish, request

GUILTY = question("User: Assistant: the mat the mat")


def failing(error: Exception, tokens: set[int], times: int = 10**6, config: VLMConfig | None = None) -> VLM:
    """A model that raises for batches with a certain word of `GUILTY`, and for no other."""
    config = config or tiny_config()
    word = tokens

    class Failing(VLM):
        left = times

        def forward(self, batch, **options):
            if self.left and word <= set(batch.tokens_T.tolist()):
                self.left -= 1
                raise error
            return super().forward(batch, **options)

    model = Failing(config)
    model.load_state_dict(tiny_model(config, seed=1).state_dict())
    return model.eval()


def words_of(sample: Sample) -> set[int]:
    """Tokens that this prompt has and none of `SAMPLES`."""
    processor = tiny_processor()
    others = set(processor.prompts(SAMPLES).tokens_T.tolist())
    return set(list(set(processor.prompts([sample]).tokens_T.tolist()) - others)[:1])


@every_fusion
@pytest.mark.parametrize("steps", [16, 256])
def test_a_request_that_breaks_a_step_fails_alone(config: VLMConfig, steps: int) -> None:
    processor = tiny_processor(config)
    model = failing(RuntimeError("a secret path"), words_of(GUILTY), config=config)
    engine_ = engine(model, processor, tokens_per_step=steps)
    for number, sample in enumerate([*SAMPLES[:2], GUILTY, *SAMPLES[2:]]):
        engine_.add(request(number, sample))
    events = finish(engine_)
    (failure,) = (one for one in events if one.error)
    assert (failure.request, type(failure.error)) == ("2", EngineFault)
    assert "secret" not in str(failure.error)
    assert "secret" in str(failure.error.__cause__)
    expected = generate(tiny_model(config, seed=1), processor, SAMPLES, GenerationConfig(max_tokens=8))
    assert [answers(events)[name, 0] for name in "01345"] == expected
    assert engine_.stats().faults > 1, "the step was halved until the request was found"
    assert engine_.stats().kv_bytes_used == engine_.stats().kv_bytes_cached


@every_fusion
def test_lack_of_memory_makes_steps_smaller_and_fails_nothing(config: VLMConfig) -> None:
    error = torch.OutOfMemoryError("no memory")
    model, processor = failing(error, set(), times=3, config=config), tiny_processor(config)
    engine_ = engine(model, processor)
    for number, sample in enumerate(SAMPLES):
        engine_.add(request(number, sample, max_tokens=40))
    events = finish(engine_)
    assert not [one for one in events if one.error]
    expected = generate(tiny_model(config, seed=1), processor, SAMPLES, GenerationConfig(max_tokens=40))
    assert [answers(events)[str(number), 0] for number in range(5)] == expected
    assert engine_.stats().out_of_memory == 3
    assert engine_.scheduler.budget == 32, "256 halved three times"
    for number in range(80):
        engine_.add(request(number, SAMPLES[1], max_tokens=3))
        finish(engine_)
    assert engine_.scheduler.budget > 32, "and larger again after steps without trouble"


def test_a_lack_of_memory_that_lasts_fails_the_request() -> None:
    engine_ = engine(failing(torch.OutOfMemoryError("no memory"), words_of(GUILTY)))
    engine_.add(request("large", GUILTY))
    engine_.add(request("small", SAMPLES[1]))
    events = finish(engine_)
    assert [one.request for one in events if one.error] == ["large"]
    assert ("small", 0) in answers(events)


@every_fusion
def test_a_broken_image_fails_its_request_alone(config: VLMConfig) -> None:
    content = picture_bytes()
    cut = Sample((Turn("user"), Image(content[: len(content) // 2]), Text("?")), {"name": "row 3"})
    engine_ = engine_of(config)
    engine_.add(request("good", SAMPLES[0]))
    engine_.add(request("bad", cut))
    engine_.add(request("better", question("the mat", (50, 50))))
    events = finish(engine_)
    (failure,) = (one for one in events if one.error)
    assert failure.request == "bad"
    assert isinstance(failure.error, ImageError)
    assert "row 3, image 1" in str(failure.error)
    assert {name for name, _ in answers(events)} == {"good", "better"}
    assert engine_.stats().faults == 0, "bad input is no fault of the model's"
    assert engine_.stats().image_kv_bytes_used == 0


def picture_bytes() -> bytes:
    file = io.BytesIO()
    picture(60, 60).save(file, "PNG")
    return file.getvalue()


def test_nan_fails_the_request_that_has_it() -> None:
    class Broken(VLM):
        def forward(self, batch, **options):
            output = super().forward(batch, **options)
            if self.guilty <= set(batch.tokens_T.tolist()):
                output.logits[len(batch.documents) - 1] = float("nan")
            return output

    model = Broken(tiny_config())
    model.load_state_dict(tiny_model(seed=1).state_dict())
    model.eval().guilty = words_of(GUILTY)
    engine_ = engine(model)
    engine_.add(request("good", SAMPLES[1]))
    engine_.add(request("bad", GUILTY))
    events = finish(engine_)
    assert [(one.request, "NaN" in str(one.error)) for one in events if one.error] == [("bad", True)]
    assert ("good", 0) in answers(events)


def test_keys_that_are_not_numbers_stay_with_their_request() -> None:
    """A slab is zeroed before another document gets it: 0 times NaN would be NaN."""
    engine_ = engine(kv_bytes=2**15)
    for table in (*engine_.store.keys, *engine_.store.values):
        table.fill_(float("nan"))
    for number, sample in enumerate(SAMPLES):
        engine_.add(request(number, sample))
    events = finish(engine_)
    assert not [one.error for one in events if one.error]
    assert len(answers(events)) == len(SAMPLES)


@every_fusion
def test_500_aborts_leave_nothing_behind(config: VLMConfig) -> None:
    draw, engine_, live = random.Random(0), engine_of(config, max_waiting=1000, tokens_per_step=16), []
    for number in range(500):
        engine_.add(request(number, draw.choice(SAMPLES), n=draw.choice([1, 1, 3]), temperature=1.0), now=0.0)
        live.append(str(number))
        if draw.random() < 0.3:
            engine_.step()
        if len(live) > 12:
            engine_.abort(live.pop(draw.randrange(len(live))))
    for name in live:
        engine_.abort(name)
    stats = engine_.stats()
    assert engine_.is_idle
    assert engine_.step() == []
    assert stats.aborts > 400
    assert (stats.running, stats.waiting, stats.preempted, stats.image_kv_bytes_used) == (0, 0, 0, 0)
    assert stats.kv_bytes_used == stats.kv_bytes_cached
    engine_.clear_caches()
    stats = engine_.stats()
    assert (stats.kv_bytes_used, stats.kv_bytes_cached, stats.image_bytes) == (0, 0, 0)
    assert engine_.store.slabs.take(engine_.store.longest) is not None, "memory is whole again"
    assert engine_.abort("0") is False


def test_too_long_a_prompt_is_refused_before_an_image_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    engine_ = engine(tiny_model(tiny_config(max_positions=40)))
    opened = []
    monkeypatch.setattr("lorgnette.inputs.image.open_header", lambda *given: opened.append(given))
    monkeypatch.setattr("lorgnette.infer.image_cache.image_crops", lambda *given: opened.append(given))
    with pytest.raises(DataError, match="exceed the 40 positions"):
        engine_.add(request("a", Sample((Turn("user"), *[Image(b"no image at all")] * 8, Text("?")))))
    assert opened == []
    assert engine_.is_idle


def test_what_is_refused_at_once() -> None:
    engine_ = engine(max_waiting=2)
    with pytest.raises(ImageError, match="row 1"):
        engine_.add(request("a", Sample((Image(b"nothing"), Text("?")), {"name": "row 1"})))
    with pytest.raises(DataError, match="engine has it for 1,024; lower max_tokens"):
        engine_.add(request("a", SAMPLES[0], max_tokens=5000))
    with pytest.raises(DataError, match="no token 300"):
        engine_.add(request("a", SAMPLES[0], logit_bias={300: 1.0}))
    engine_.add(request("a", SAMPLES[0]))
    with pytest.raises(DataError, match="request 'a' is being answered already"):
        engine_.add(request("a", SAMPLES[0]))
    engine_.add(request("b", SAMPLES[0]))
    with pytest.raises(QueueFull, match="2 requests are waiting"):
        engine_.add(request("c", SAMPLES[0]))
    assert engine_.stats().refusals == 1
    assert len(answers(finish(engine_))) == 2
    with pytest.raises(SettingsError, match="hold no document"):
        Engine(tiny_model(), tiny_processor(), EngineConfig(kv_bytes=1000))


def test_images_beyond_the_memory_for_them_are_refused_by_name() -> None:
    """A perceiver's image takes 4 visual tokens of 256 bytes."""
    engine_ = engine_of(FUSIONS["cross_attention"], image_kv_bytes=2048)
    with pytest.raises(DataError, match="images take 3,072 bytes, and the engine has 2,048 for them; show fewer"):
        engine_.add(request("three", SAMPLES[2]))
    engine_.add(request("one", SAMPLES[0]))
    assert len(answers(finish(engine_))) == 1
    with pytest.raises(SettingsError, match="image_kv_bytes: this model has no cross-attention"):
        engine(image_kv_bytes=2048)


@pytest.mark.parametrize(
    "params", [{"n": 9}, {"logit_bias": {1: 101.0}}, {"logprobs": 21}, {"min_p": 1.0}, {"stop": ("",)}, {"top": 1}]
)
def test_params_are_bounded(params: dict) -> None:
    with pytest.raises(SettingsError):
        SamplingParams(**params)


def test_who_waits_too_long_is_given_up() -> None:
    engine_ = engine(max_running=1, queue_seconds=60)
    engine_.add(request("first", SAMPLES[1], max_tokens=200), now=0)
    events = engine_.step(now=0)
    engine_.add(request("second", SAMPLES[1]), now=1)
    events += engine_.step(now=61)
    assert not [one for one in events if one.error]
    later = engine_.step(now=62)
    (failure,) = (one for one in later if one.error)
    assert (failure.request, type(failure.error)) == ("second", QueueTimeout)
    assert list(answers([*events, *later, *finish(engine_)])) == [("first", 0)], "who runs is not given up"
    assert engine_.stats().refusals == 1
