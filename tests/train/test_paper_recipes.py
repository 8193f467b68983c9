"""Recipes of the paper's tables: short, built at full size, alike but for what a table compares, listed."""

from __future__ import annotations

import re

import pytest
import torch

from lorgnette.model.vlm import VLM
from lorgnette.run import Run, find_recipe
from lorgnette.train.stages import prepare_parts
from tests.house.source import ROOT

FOLDER = ROOT / "recipes/paper"
RECIPES = {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in sorted(FOLDER.rglob("*.yaml"))}
ROWS = {"table1": 2, "table2": 3, "table3": 5, "table4": 2, "table5": 2, "table11": 3, "table12": 3, "table13": 2}
"""Rows of each table of architecture choices."""
COMPARED = {
    "table1": r"init\.language|model\.(language|image_token|connector\.projection_width)",
    "table2": r"init\.vision|images|model\.vision",
    "table3": r"model\.(connector|fusion)|stages",
    "table4": r"model\.connector\.latents",
    "table5": r"images\.(policy|shortest)",
    "table11": r"model\.connector",
    "table12": r"model\.connector\.depth",
    "table13": r"model\.connector\.projection_width",
}
"""Settings that the recipes of a table may differ in; a decoder brings its MLP's width to the projection."""
FIRST_LINE = re.compile(r"# Table (\d+): .*Paper: (\d\d\.\d)(; .*)?\.")
OURS = re.compile(r"# Ours: ([\d,]+) parameters, ([\d,]+) trained, (?:adapters and )?extra rows included\.")
LISTED = re.compile(r"^\| (\d+) \| `paper/([\w/]+)` \| .+ \| (\d\d\.\d)\b.* \|$", re.MULTILINE)
BACKBONES = ("vision", "language")
EXTRA = 2 * 3 * 4096
"""Three rows of Idefics2's tokens, in the embedding and in the head."""
DECODER_ADAPTERS, VISION_ADAPTERS, BLOCKS = 167_772_160, 34_781_184, 1_744_898_064
TRAINED = {
    "table3/ca_frozen": 743_219_200 + BLOCKS,
    "table3/ca_lora": 743_219_200 + BLOCKS + DECODER_ADAPTERS + VISION_ADAPTERS,
    "table4/latents_128": 743_481_344 + DECODER_ADAPTERS + VISION_ADAPTERS,
    "table11/flat_linear": 4_765_248,
    "table11/mapping_network": 3_472_640,
    "table12/depth_1": 309_084_160 + DECODER_ADAPTERS + VISION_ADAPTERS,
    "table12/depth_12": 2_696_826_880 + DECODER_ADAPTERS + VISION_ADAPTERS,
    "table13/without_mlp": 656_187_392 + DECODER_ADAPTERS + VISION_ADAPTERS,
}
"""Trained parameters but for the extra rows, worked out by hand: each of eight blocks has 2 D H N + 2 D G N + 3 D M
weights, norms and gates. The paper has 2.3B and 2.5B with cross-attention, without the sizes that would give them."""


BUILT: dict[tuple[str, str], tuple[int, int]] = {}
"""Counts by model and stage: equal ones, as Table 3's base in Tables 4, 12 and 13, are built once."""


def counts(run: Run) -> tuple[int, int]:
    """Parameters with adapters, and those that train, of a run's one stage, from shapes alone."""
    key = run.model.digest(), run.stages[0].digest()
    if key not in BUILT:
        with torch.device("meta"):
            model = VLM(run.model)
            parts = prepare_parts(model, run.stages[0], seed=0)
        assert all(parameter.is_meta for parameter in model.parameters())
        BUILT[key] = sum(part.parameters for part in parts), sum(part.trainable for part in parts)
    return BUILT[key]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_short_and_says_what_the_paper_has(name):
    lines = RECIPES[name].read_text("utf-8").splitlines()
    assert len(lines) <= 20
    said = FIRST_LINE.fullmatch(lines[0])
    assert said and name.startswith(f"table{said[1]}/") and said[3], "figures, or that they are not disclosed"
    assert find_recipe(f"paper/{name}") == RECIPES[name]


def test_every_row_has_its_recipe_and_its_line_in_the_documentation():
    tables = [name.split("/")[0] for name in RECIPES]
    assert {table: tables.count(table) for table in tables} == ROWS
    listed = LISTED.findall((ROOT / "docs/recipes.md").read_text("utf-8"))
    said = {name: FIRST_LINE.match(path.read_text("utf-8")) for name, path in RECIPES.items()}
    assert {(found[1], name, found[2]) for name, found in said.items() if found} == set(listed)
    assert len(listed) == len(RECIPES)


@pytest.mark.parametrize("table", ROWS)
def test_recipes_of_a_table_differ_in_what_it_compares(table):
    first, *others = [Run.load(path) for name, path in RECIPES.items() if name.startswith(f"{table}/")]
    for other in others:
        found = first.diff(other).keys() - {"name"}
        assert found and [key for key in found if not re.match(COMPARED[table], key)] == [], other.name


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_built_at_the_papers_size(name):
    run = Run.load(RECIPES[name])
    parameters, trained = counts(run)
    assert trained == TRAINED.get(name, trained - EXTRA) + EXTRA
    assert (trained < parameters / 2) and all(getattr(run.stages[0], part).mode != "full" for part in BACKBONES)
    if name.startswith("table3/"):
        said = OURS.search(RECIPES[name].read_text("utf-8"))
        assert said and said.groups() == (f"{parameters:,}", f"{trained:,}"), "the paper's counts and ours stand there"
