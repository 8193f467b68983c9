"""Images decoded beside the engine's steps: the same answers, no decoder in a step, bounded memory, nothing left."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import lorgnette.infer.image_cache
from lorgnette.errors import ImageError
from lorgnette.infer.decoding_pool import DecodingPool
from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.request import Event
from lorgnette.model.config import VLMConfig
from lorgnette.sample import Image, Sample, Text, Turn
from tests.hub.tiny import picture
from tests.infer.engine.driving import FUSIONS, answers, ask, engine_of, every_fusion, finish, request

TINY = FUSIONS["autoregressive"]


def shown(*images: object, text: str = "what colour is the cat?") -> Sample:
    return Sample((Turn("user"), *(Image(one) for one in images), Text(text)), {"name": "row 3"})


def drive(engine: Engine, pool: DecodingPool) -> list[Event]:
    """Every event until the engine is idle."""
    events: list[Event] = []
    for _ in range(3000):
        if engine.is_idle:
            return events
        pool.exchange()
        if engine.decoded.is_awaited:
            pool.wait(30)
        else:
            events += engine.step()
    raise AssertionError("the engine does not come to an end")


class Gate:
    """Decoding that waits for `open`, and remembers in which threads it ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
        """width: of the images that wait."""
        self.open, self.begun = threading.Event(), threading.Event()
        self.threads: list[str] = []
        self.keys: list[object] = []
        decode = lorgnette.infer.image_cache.image_patches

        def gated(source, *rest):
            self.threads.append(threading.current_thread().name)
            self.keys.append(source)
            if source.size[0] == width:
                self.begun.set()
                assert self.open.wait(30)
            return decode(source, *rest)

        monkeypatch.setattr(lorgnette.infer.image_cache, "image_patches", gated)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch, 77)
    yield gate
    gate.open.set()


@every_fusion
@pytest.mark.parametrize("settings", [{}, {"image_bytes": 0, "pixel_bytes": 1}, {"max_running": 1}], ids=str)
def test_answers_are_those_of_an_engine_that_decodes_itself(config: VLMConfig, settings: dict[str, int]) -> None:
    images = [picture(40 + 8 * number, 60, number) for number in range(4)]
    samples = [shown(*images[:2]), shown(images[1]), shown(text="no image"), shown(*images[1:]), shown(images[0])]
    expected = ask(engine_of(config), *(request(number, one) for number, one in enumerate(samples)))
    engine = engine_of(config, **settings)
    pool = DecodingPool(engine)
    for number, sample in enumerate(samples):
        engine.add(request(number, sample))
    assert answers(drive(engine, pool)) == expected
    pool.close()
    assert engine.decoded.bytes == engine.decoded.decoding == engine.stats().pixel_bytes == 0


@every_fusion
def test_a_slow_image_delays_no_token_of_another_request(config: VLMConfig, gate: Gate) -> None:
    engine = engine_of(config, max_running=2)
    pool = DecodingPool(engine)
    engine.add(request("slow", shown(picture(77, 60))))
    pool.exchange()
    assert gate.begun.wait(30)
    engine.add(request("text", shown(text="quick")))
    engine.add(request("image", shown(picture(40, 60))))
    ended: set[str] = set()
    while ended != {"text", "image"}:  # a step that waited for the decoder would never end
        pool.exchange()
        ended |= {event.request for event in engine.step() if event.generation is not None}
    assert engine.requests == ("slow",)
    gate.open.set()
    assert answers(drive(engine, pool)).keys() == {("slow", 0)}
    assert {name.rpartition("_")[0] for name in gate.threads} == {"decode"}
    pool.close()


def test_an_image_in_two_places_is_decoded_once(gate: Gate) -> None:
    engine = engine_of(TINY)
    pool = DecodingPool(engine)
    same = picture(40, 60)
    engine.add(request("a", shown(same, same)))
    engine.add(request("b", shown(same)))
    drive(engine, pool)
    pool.close()
    assert gate.keys == [same]


def test_an_image_whose_request_is_gone_is_not_decoded_or_kept(gate: Gate) -> None:
    engine = engine_of(TINY)
    pool = DecodingPool(engine, threads=1)
    engine.add(request("running", shown(picture(77, 60))))
    engine.add(request("waiting", shown(picture(40, 60))))
    pool.exchange()
    assert gate.begun.wait(30)
    assert engine.decoded.decoding == 2
    engine.abort("running")
    engine.abort("waiting")
    pool.exchange()
    gate.open.set()
    pool.wait(30)
    pool.exchange()
    pool.close()
    assert len(gate.keys) == 1  # the other one was cancelled
    assert engine.decoded.bytes == engine.decoded.decoding == 0


def test_pixels_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests beyond the memory for pixels wait; one that needs more by itself is decoded alone."""
    engine = engine_of(TINY, pixel_bytes=1, max_waiting=16)
    pool = DecodingPool(engine)
    one = sum(crop.pixels_PC.nbytes for crop in engine.image_cache.decode(shown_ref(engine)))
    for number in range(6):
        engine.add(request(number, shown(picture(40, 60, number))))
    most = 0
    while not engine.is_idle:
        pool.exchange()
        most = max(most, engine.decoded.bytes)
        pool.wait(30) if engine.decoded.is_awaited else engine.step()
    pool.close()
    assert most == one


def shown_ref(engine: Engine):
    return engine.image_cache.images(shown(picture(40, 60)))[0]


def test_a_broken_image_fails_its_request_alone(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = lorgnette.infer.image_cache.image_patches

    def broken(source, *rest):
        if source.size[0] == 48:
            raise ImageError("row 3, image 1: is damaged")
        if source.size[0] == 56:
            raise ValueError("of a decoder")
        return decode(source, *rest)

    monkeypatch.setattr(lorgnette.infer.image_cache, "image_patches", broken)
    engine = engine_of(TINY)
    pool = DecodingPool(engine)
    for width in (40, 48, 56):
        engine.add(request(width, shown(picture(width, 60))))
    events = drive(engine, pool)
    pool.close()
    assert set(answers(events)) == {("40", 0)}
    errors = {event.request: str(event.error) for event in events if event.error}
    assert errors == {
        "48": "row 3, image 1: is damaged",
        "56": "row 3, image 1: cannot be read as an image (of a decoder)",
    }


def test_an_engine_without_a_pool_decodes_in_its_steps(gate: Gate) -> None:
    engine = engine_of(TINY)
    engine.add(request("a", shown(picture(40, 60))))
    finish(engine)
    assert gate.threads == [threading.current_thread().name]
