"""`POST /v1/look`: the maps are those of `look`, answers go on meanwhile, and what cannot be looked at is refused."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest

from lorgnette.look.look import look
from lorgnette.look.occlusion import Occluder
from lorgnette.look.scene_check import other_pictures
from lorgnette.sample import Image, Sample, Text, Turn
from tests.hub.tiny import tiny_model, tiny_processor
from tests.serve.running import Running, png, shown


def asked(*images: bytes, **more: object) -> dict[str, object]:
    return {"messages": shown("what colour is the cat?", *images)["messages"], **more}


@pytest.mark.parametrize("answer", ["a cat", None])
def test_the_maps_are_those_of_the_package(tiny: Running, answer: str | None) -> None:
    images = [png(60, 40, 5), png(40, 40, 6)]
    status, _, found = tiny.post("/v1/look", asked(*images, answer=answer, max_tokens=5))
    assert status == 200, found
    sample = Sample((Turn("user"), *map(Image, images), Text("what colour is the cat?")), {"name": "the request"})
    others = other_pictures()
    own = look(tiny_model(seed=1), tiny_processor(), sample, answer=answer, others=others, max_tokens=5)
    assert found["blind"] == pytest.approx(own.blind, abs=1e-3)
    assert found["blind_sentence"].startswith("With other pictures") == (found["blind"] > 0)
    assert found["answer"] == own.answer and found["model"] == "tiny"
    assert [word["text"] for word in found["words"]] == [word.text for word in own.words]
    assert found["says_something"] == own.faithfulness.says_something
    np.testing.assert_allclose(
        [found["gain"], *found["interval"]], [own.faithfulness.gain, *own.faithfulness.interval], atol=1e-3
    )
    assert found["sentence"].startswith("This map says nothing") != found["says_something"]
    for shown_map, heat in zip(found["maps"], own.heats, strict=True):
        values = np.array(shown_map["values"]).reshape(shown_map["height"], shown_map["width"])
        assert max(values.shape) == 32
        places = zip(values.shape, heat.shape, strict=True)
        rows, columns = (np.arange(count) * size // count + size // (2 * count) for count, size in places)
        assert np.median(np.abs(values - heat[np.ix_(rows, columns)])) < 1e-3


def test_answers_go_on_between_the_passes(tiny: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    steps, step = Occluder.score_steps, tiny.engine.step

    def passes(self, without):
        parts = steps(self, without)
        while True:
            try:
                next(parts)
            except StopIteration as end:
                return end.value
            order.append("pass")
            yield

    monkeypatch.setattr(Occluder, "score_steps", passes)
    monkeypatch.setattr(tiny.engine, "step", lambda now: order.append("step") or step(now))
    other = threading.Thread(target=tiny.ask, args=({**shown("tell me all"), "max_tokens": 150, "ignore_eos": True},))
    other.start()
    try:
        assert tiny.post("/v1/look", asked(png(60, 40, 7), answer="a cat"))[0] == 200
    finally:
        other.join()
    both = order[order.index("step") : len(order) - order[::-1].index("step")]
    assert both.count("pass") >= 2
    assert "pass pass" not in " ".join(both), "a step between two passes"


def test_a_client_that_leaves_stops_the_work(tiny: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def endless(self, without):
        while True:
            counted.append(1)
            time.sleep(0.01)
            yield

    monkeypatch.setattr(Occluder, "score_steps", endless)
    connection = tiny.connect()
    body = json.dumps(asked(png(60, 40, 8), answer="a cat"))
    connection.request("POST", "/v1/look", body, {"Content-Type": "application/json"})
    while not counted:
        time.sleep(0.01)
    assert tiny.ask({**shown("hello"), "max_tokens": 2})[0] == 200
    connection.close()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        before = len(counted)
        time.sleep(0.2)
        if len(counted) == before:
            return
    raise AssertionError("the work goes on")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (asked(answer="x"), "messages: show 1 to 4 images to look at; there are 0"),
        (asked(*[png()] * 5, answer="x"), "there are 5"),
        (asked(png(), answer=""), "answer: "),
        (asked(png(), answer="x " * 2000), "answer: has "),
        (asked(png(), max_tokens=0), "max_tokens: "),
        ({"messages": [{"role": "user", "content": "x"}], "model": "another"}, "model: "),
    ],
    ids=["no image", "many", "empty", "long", "tokens", "model"],
)
def test_what_cannot_be_looked_at_is_refused(tiny: Running, body: dict[str, object], said: str) -> None:
    status, _, found = tiny.post("/v1/look", body)
    assert status in (400, 404) and said in found["error"]["message"], found
