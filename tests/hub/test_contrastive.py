"""The script that trains encoders by captions: its loss, what it is shown, retrieval, and going on after a stop."""

from __future__ import annotations

import random
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus.drawn.captions import COLOUR_WORDS
from lorgnette.data.builtin.drawings import drawings

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def script() -> Any:
    sys.path.insert(0, str(SCRIPTS))
    try:
        import contrastive_vision

        yield contrastive_vision
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture
def course(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(script.ROLES, "tiny", script.Role(24, 2, 4, layers=1, mlp_width=32))

    def at(name: str) -> Any:
        return script.Course(
            Namespace(encoder="tiny", folder=tmp_path / name, steps=None, batch=6, rate=1e-3, muon_rate=0.01)
        )

    return at


@torch.no_grad()
def test_the_loss_is_clip_s_written_out(script: Any, course: Any) -> None:
    one = course("one")
    pairs = script.pairs_of_step(0, 6, one.processor.images)
    images = [one.towers.drawings([patches])[0] for patches, _ in pairs]
    texts = [one.towers.captions([text])[0] for _, text in pairs]
    scores = one.towers.log_scale.exp() * torch.tensor([[float(image @ text) for text in texts] for image in images])
    wanted = [scores[n, n] - scores[n].logsumexp(0) + scores[n, n] - scores[:, n].logsumexp(0) for n in range(6)]
    assert one.towers.loss(pairs).item() == pytest.approx(-sum(map(float, wanted)) / 12, rel=1e-4)


def test_pairs_are_of_different_drawings_small_and_the_same_for_the_same_step(script: Any, course: Any) -> None:
    config = course("one").processor.images
    found, again = script.pairs_of_step(7, 12, config), script.pairs_of_step(7, 12, config)
    assert [text for _, text in found] == [text for _, text in again]
    assert all((a.pixels_PC == b.pixels_PC).all() for (a, _), (b, _) in zip(found, again, strict=True))
    assert all(max(patches.rows, patches.columns) <= 4 for patches, _ in found)


def test_a_recoloured_drawing_is_told_without_its_colour(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    monkeypatch.setattr(script, "shown", lambda rng, table, index, config: shown.append(index))
    plain = drawings("train")
    for drawing in plain.by_colour["red"][:60]:
        _, text = script.pair(random.Random(drawing), drawing, None)
        recoloured = script.views("train")[shown[-1]].colour is None
        assert shown[-1] // script.VIEWS == drawing and not (recoloured and COLOUR_WORDS & set(text.lower().split()))
    assert any(script.views("train")[index].colour is None for index in shown), "some are recoloured"


def test_a_caption_that_reads_alike_is_found_too(script: Any) -> None:
    scores = torch.tensor([[0.0, 1.0, 0.5], [0.9, 0.1, 0.0], [0.0, 0.2, 0.1]])
    assert script.share_found(scores, ["a", "a", "b"]) == pytest.approx((2 / 3, 5 / 9))


def test_an_encoder_that_was_stopped_learns_what_one_never_stopped_does(course: Any) -> None:
    whole, stopped = course("whole"), course("stopped")
    losses = [whole.learn() for _ in range(4)]
    for _ in range(2):
        stopped.learn()
    stopped.save()
    gone_on = course("stopped")
    assert gone_on.done == 2
    assert [gone_on.learn() for _ in range(2)] == losses[2:]
    kept = gone_on.towers.state_dict()
    assert all(torch.equal(weight, kept[name]) for name, weight in whole.towers.state_dict().items())
