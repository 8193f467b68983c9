"""The doctor finds a sound model sound, and names what is wrong with one that is broken on purpose."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import DataError, ImageError
from lorgnette.hub.export import export, save
from lorgnette.infer.batch_invariance import HINTS, Diagnosis, examine
from lorgnette.infer.image_cache import ImageFeatureCache
from lorgnette.model import language, vision
from lorgnette.model.batch import SequenceLengths
from lorgnette.model.connectors import perceiver
from lorgnette.model.kv_cache import KVCache
from lorgnette.model.ops.attention import attention
from tests.hub.tiny import picture, tiny_config, tiny_model, tiny_processor

IMAGES = (picture(60, 40), picture(84, 84, seed=1))


def wrong(found: Diagnosis) -> set[tuple[str, str]]:
    """Ways and parts that did not pass."""
    return {(one.way, one.part) for one in found.findings if not one.passed}


@pytest.mark.parametrize("sizes", [{}, {"sliding_window": 9}, {"kv_heads": 4}], ids=["mistral", "window", "llama"])
def test_a_sound_model(sizes: dict[str, Any]) -> None:
    found = examine(tiny_model(tiny_config(**sizes)), tiny_processor(), IMAGES)
    assert found.passed
    assert {(one.way, one.part) for one in found.findings} == HINTS.keys()
    assert {one.crops for one in found.findings} == {"one crop", "five crops"}
    assert found.images == ((60, 40), (84, 84), (30, 40))
    assert all(one.relative < 1e-5 for one in found.findings)
    assert "Sound: the largest difference is" in found.verdict()
    assert not examine(tiny_model(tiny_config(**sizes)), tiny_processor(), IMAGES, tolerance=0).passed


def run_together(
    q: Tensor, k: Tensor, v: Tensor, queries: SequenceLengths, keys: SequenceLengths, **how: Any
) -> Tensor:
    """Attention in which all spans are one."""
    return attention(q, k, v, SequenceLengths((queries.total,)), SequenceLengths((keys.total,)), **how)


def run_equal_together(
    q: Tensor, k: Tensor, v: Tensor, queries: SequenceLengths, keys: SequenceLengths, **how: Any
) -> Tensor:
    """Attention that fails where spans are of one length only."""
    one = len(set(queries.lengths)) == 1
    return (run_together if one else attention)(q, k, v, queries, keys, **how)


@pytest.mark.parametrize("broken", [run_together, run_equal_together])
@pytest.mark.parametrize("part", [vision, perceiver, language], ids=lambda module: module.__name__.split(".")[-1])
def test_what_sees_its_neighbours_is_named(
    part: Any, broken: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "attention", broken)
    name = "connector" if part is perceiver else part.__name__.split(".")[-1]
    found = examine(tiny_model(), tiny_processor(), IMAGES)
    bad = wrong(found) - {("cached", "connector")}  # which is of all images at once, and rests on vision too
    assert ("batch", name) in bad
    assert {one for _, one in bad} == {name}
    assert ("packed", name) in bad or broken is run_equal_together
    assert HINTS["batch", name] in found.verdict()
    assert found.verdict().startswith("Not sound. batch, images in one crop: ")


def test_a_cache_that_miscounts_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = KVCache.begin

    def late(self: KVCache, documents: SequenceLengths, like: Tensor) -> None:
        """As if a token fewer had been read."""
        if self.lengths:
            self.lengths = tuple(length - 1 for length in self.lengths)
        begin(self, documents, like)

    monkeypatch.setattr(KVCache, "begin", late)
    assert wrong(examine(tiny_model(), tiny_processor(), IMAGES)) == {("cached", "language")}


def test_visual_tokens_of_another_image_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    of = ImageFeatureCache.of
    monkeypatch.setattr(ImageFeatureCache, "of", lambda self, samples: of(self, samples[::-1]))
    assert wrong(examine(tiny_model(), tiny_processor(), IMAGES)) == {("cached", "connector")}


def test_what_is_no_number_does_not_pass() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.language.layers[0].mlp.down.weight.fill_(float("nan"))
    found = examine(model, tiny_processor(), IMAGES)
    assert wrong(found) == {("batch", "language"), ("packed", "language"), ("cached", "language")}
    text = json.dumps(found.plain(), allow_nan=False)
    assert json.loads(text)["findings"][2]["relative"] is None


def test_images_there_must_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one image"):
        examine(tiny_model(), tiny_processor(), [])
    with pytest.raises(ImageError, match="image 2"):
        examine(tiny_model(), tiny_processor(), [IMAGES[0], tmp_path / "none.png"])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tiny_model(), tiny_processor(), tmp_path / "ours")
    export(tiny_model(), dataclasses.replace(tiny_processor()), tmp_path / "theirs")
    IMAGES[0].save(tmp_path / "a.png")
    done = CliRunner().invoke(app, ["eval", "doctor", "--model", str(tmp_path / "ours")])
    assert done.exit_code == 0, done.output
    assert "Sound: the largest difference is" in done.output
    assert done.output.count("batch") == 2
    arguments = ["eval", "doctor", "--model", str(tmp_path / "theirs"), "--image", str(tmp_path / "a.png"), "--json"]
    found = json.loads(CliRunner().invoke(app, arguments).output)
    assert found["passed"]
    assert found["images"] == [[60, 40], [30, 40]]
    monkeypatch.setattr(language, "attention", run_together)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "documents of unequal lengths in a pack see each other" in json.loads(done.output)["verdict"]
