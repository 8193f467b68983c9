"""Every shipped recipe parses, round-trips, builds on the meta device, and makes a model that transformers can open
where it has a class for it."""

from __future__ import annotations

import itertools

import pytest
import torch
import yaml

from lorgnette.errors import CheckpointError
from lorgnette.hub.config_map import write_idefics2
from lorgnette.model.vlm import VLM
from lorgnette.run import Run, find_recipe
from tests.house.source import ROOT

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


PAPER = ROOT / "recipes/paper"
"""Rows of the paper's tables, which `tests/train/test_paper_recipes.py` builds, each model once."""

CROSSED = ("cross_attention", "ca_frozen", "ca_lora", "llama_1_7b", "mistral_7b", "siglip_so400m")
REFUSED = dict.fromkeys((*CROSSED, "clip_vit_h", "eva_clip_5b", "idefics1"), "fusion is") | {
    "fa_no_perceiver": r"connector\.kind=linear",
    "flat_linear": r"connector\.kind=flat_linear",
    "mapping_network": r"connector\.kind=mapping_network",
    "without_mlp": r"connector\.projection_width is",
}
"""Recipes whose models transformers' Idefics2 cannot hold, and what is said of them."""


@pytest.fixture(params=RECIPES, ids=lambda path: path.relative_to(ROOT).as_posix())
def recipe(request):
    return request.param


def test_there_are_recipes():
    assert RECIPES


def test_a_recipe_is_found_by_its_name(recipe):
    assert find_recipe(recipe.relative_to(ROOT / "recipes").with_suffix("").as_posix()) == recipe


def test_a_recipe_round_trips(recipe):
    run = Run.load(recipe)
    assert Run.parse(run.plain()) == run
    assert run.name == recipe.stem


@pytest.mark.parametrize("path", [path for path in RECIPES if PAPER not in path.parents], ids=lambda path: path.stem)
def test_a_recipe_builds_on_the_meta_device(path):
    run = Run.load(path)
    with torch.device("meta"):
        model = VLM(run.model)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert all(parameters for parameters in model.parts().values())


def test_what_a_recipe_builds_can_be_exported_or_is_refused_by_name(recipe):
    config = Run.load(recipe).model
    if recipe.stem in REFUSED:
        with pytest.raises(CheckpointError, match=REFUSED[recipe.stem]):
            write_idefics2(config)
    else:
        assert write_idefics2(config)["model_type"] == "idefics2"


def model_lines(path) -> list[str]:
    """The `model:` block of a recipe, line by line."""
    lines = itertools.dropwhile(lambda line: not line.startswith("model:"), path.read_text("utf-8").splitlines())
    first = next(lines, "")
    return [first, *itertools.takewhile(lambda line: line.startswith(" "), lines)]


def test_no_two_recipes_describe_one_model_at_length():
    blocks = [(path.stem, model_lines(path)) for path in RECIPES]
    for (first, ours), (second, theirs) in itertools.combinations(blocks, 2):
        equal = [line for line in ours if line in theirs]
        assert len(equal) <= 6, f"{first}, {second}: name these settings in lorgnette/model/configs/presets.py"


def test_a_run_with_a_preset_is_the_run_with_its_settings_written_out(recipe):
    run = Run.load(recipe)
    written = Run.parse(yaml.safe_load(run.to_yaml()))
    assert "preset" not in run.to_yaml()
    assert (written, written.identity) == (run, run.identity)
