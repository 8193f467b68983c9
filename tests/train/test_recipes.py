"""Recipes of Idefics2 say what the paper says, where it says it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lorgnette.model.vlm import VLM
from lorgnette.run import Run, find_recipe
from lorgnette.train.stages import prepare_parts

SHARES = {
    "vqav2": 11.0, "localized_narratives": 5.1, "rendered_text": 17.5, "chart2text": 14.1, "tabmwp": 11.3,
    "geomverse": 10.3, "ai2d": 1.6, "nlvr2": 2.4, "websight": 0.3, "openhermes": 26.4,
}  # fmt: skip
"""Percent of answer tokens in Table 14, by the first set of each category."""


def test_instruction_tuning_has_the_mixture_of_table_14():
    [stage] = Run.load(find_recipe("idefics2/instruct")).stages
    names = [Path(source.path).name for source in stage.sources]
    assert stage.weights == "supervised" and len(set(names)) == 59
    weights = dict(zip(names, (source.weight for source in stage.sources), strict=True))
    firsts = [*(names.index(name) for name in SHARES), len(names)]
    for first, last, share in zip(firsts, firsts[1:], SHARES.values(), strict=False):
        assert sum(weights[name] for name in names[first:last]) == pytest.approx(share, abs=0.06), names[first]
    assert sum(weights.values()) == pytest.approx(99.98)


@pytest.mark.parametrize(
    ("name", "shares", "longest"),
    [
        ("stage1", {"interleaved": 70, "pairs": 30}, 384),
        ("stage2", {"interleaved": 45, "pairs": 35, "documents": 20}, 980),
    ],
)
def test_pre_training_has_the_shares_and_sizes_of_section_4(name, shares, longest):
    for recipe, most in ((f"idefics2/{name}", longest), ("micro", None)):
        run = Run.load(find_recipe(recipe))
        stage = next(stage for stage in run.stages if stage.name == name)
        assert {source.kind: round(100 * source.weight) for source in stage.sources} == shares
        assert most is None or run.stage_images(stage).longest == most
        assert (stage.augment.upscale > 0) == (name == "stage2")


def test_stage_1_trains_as_many_parameters_as_table_3_says():
    run = Run.load(find_recipe("idefics2/stage1"))
    with torch.device("meta"):
        counts = prepare_parts(VLM(run.model), run.stages[0], seed=0)
    assert sum(count.trainable for count in counts) == pytest.approx(950e6, rel=0.01)
