"""The script that teaches the shipped vision encoder: whose patches are whose, views, and going on after a stop."""

from __future__ import annotations

import math
import random
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lorgnette.data.builtin.drawings import drawings, fit

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def script() -> Any:
    sys.path.insert(0, str(SCRIPTS))
    try:
        import distil_vision

        yield distil_vision
    finally:
        sys.path.remove(str(SCRIPTS))


def test_the_patches_of_a_drawing_are_those_that_it_covers(script: Any) -> None:
    shares = script.shares((16, 8, 40, 32), rows=3, columns=4, patch=16)
    wanted = np.zeros((3, 4))
    wanted[0, 1], wanted[0, 2] = 16 * 8, 8 * 8
    wanted[1, 1], wanted[1, 2] = 16 * 16, 8 * 16
    assert np.allclose(shares.reshape(3, 4), wanted / wanted.sum())


def test_a_lesson_holds_each_drawing_of_its_scenes(script: Any) -> None:
    lessons = script.Lessons(script.Run.load(script.find_recipe("micro")).images, 6)
    one, again = lessons[3], lessons[3]
    assert torch.equal(one.patches_PC, again.patches_PC), "a pure function of the step"
    assert torch.allclose(one.shares_XP.sum(1), torch.ones(len(one.views_X)))
    owner = torch.tensor([number for number, grid in enumerate(one.grids) for _ in range(math.prod(grid))])
    scene_X = torch.tensor([owner[row > 0].unique().item() for row in one.shares_XP])
    assert one.by_scene["others"].tolist() == [(scene_X == scene).sum().item() - 1 for scene in scene_X]


def test_views_keep_the_shape_that_they_claim_and_the_colour_only_where_it_is_kept(script: Any) -> None:
    table, plain = script.views("validation"), drawings("validation")
    rng = random.Random(0)
    for drawing in rng.sample(range(len(plain)), 12):
        first = table[drawing * script.VIEWS]
        assert first == plain[drawing]
        size = fit(first.width, first.height, 40, 40)
        assert table.resized(drawing * script.VIEWS, *size).tobytes() == plain.resized(drawing, *size).tobytes()
        for index in range(drawing * script.VIEWS, (drawing + 1) * script.VIEWS):
            assert table.resized(index, 21, 33).size == (21, 33)
            assert table[index].colour in (None, plain[drawing].colour)


def test_a_student_that_was_stopped_learns_what_one_never_stopped_does(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "validation"):
        torch.save(torch.rand(len(script.views(split)), 8, generator=generator).half(), tmp_path / f"{split}.pt")
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    small = ["model.vision.width=24", "model.vision.heads=2", "model.vision.layers=1", "model.vision.mlp_width=32"]
    lessons = script.Lessons(script.Run.load(script.find_recipe("micro")).images, 4)

    def course(name: str) -> Any:
        (tmp_path / name).mkdir(exist_ok=True)
        return script.Course(
            Namespace(override=small, folder=tmp_path / name, steps=4, scenes=4, rate=1e-3, muon_rate=0.01)
        )

    whole, stopped = course("whole"), course("stopped")
    losses = [whole.learn(lessons[step]) for step in range(4)]
    for step in range(2):
        stopped.learn(lessons[step])
    stopped.save()
    gone_on = course("stopped")
    assert gone_on.done == 2
    assert [gone_on.learn(lessons[step]) for step in (2, 3)] == losses[2:]
    for name, weight in whole.model.vision.state_dict().items():
        assert torch.equal(weight, gone_on.model.vision.state_dict()[name]), name
    assert set(losses[0]) == set(script.WEIGHTS)
    shares = whole.examination.shares_right(whole.heads, *_one(whole, script))
    assert -1 <= shares.pop("like the teacher") <= 1, "a cosine"
    assert all(0 <= share <= 1 for share in shares.values()), shares


def _one(course: Any, script: Any) -> tuple[torch.Tensor, Any]:
    rng, table = random.Random(0), script.views("validation")
    shown = [script.scattered(rng, table, [drawing * script.VIEWS for drawing in (0, 1, 2)], 128)]
    lesson = script.lesson("validation", shown, course.processor.images)
    with torch.no_grad():
        return course.things(lesson), lesson
