"""Costs side by side: the paper's counts where they can be derived, and what a model really computes and keeps."""

from __future__ import annotations

import io
from types import SimpleNamespace

import torch
from rich.console import Console
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import LorgnetteError
from lorgnette.model.batch import SequenceLengths
from lorgnette.run import Run
from lorgnette.train.planner.cost_table import CostedModel, print_costs, rows, sample_cells

STAGE = {"name": "s", "steps": 1, "sources": [{"kind": "pairs", "path": "builtin:train/pairs"}]}
SQUARE = {"shortest": 378, "longest": 378, "patch": 14, "grid": 70}
FROZEN = {"vision": {"mode": "frozen"}, "language": {"mode": "frozen"}}
LORA = {"vision": {"mode": "lora"}, "language": {"mode": "lora"}, "lora": {"rank": 64, "alpha": 64, "dropout": 0.0}}


def paper_size(name: str, modes: dict, **model) -> CostedModel:
    """A choice at the paper's size, but with SigLIP's own table of positions, as the counts of Table 3 take it."""
    values = {"preset": "idefics2", **model}
    run = Run.parse({"name": name, "model": values, "stages": [STAGE | modes], "images": SQUARE})
    vision = run.model.vision.model_copy(update={"grid": 27})
    return CostedModel(name, run.model.model_copy(update={"vision": vision}), run.images, run.stages)


def test_table_3_is_reproduced_where_it_can_be_derived():
    """`docs/decisions/0024` and the recipes of Table 3 say which of its rows cannot be, and give both readings."""
    linear = paper_size("linear", FROZEN, connector={"kind": "linear"})
    frozen, lora = paper_size("frozen", FROZEN), paper_size("LoRA", LORA)

    def bare(choice: CostedModel) -> int:
        return sum(choice.cost.parameters.values()) - choice.cost.parameters["extra_vocabulary"]

    extra = frozen.cost.parameters["extra_vocabulary"]
    assert bare(linear) == 7_659_437_936 and linear.cost.parameters["connector"] == 4_718_592
    assert bare(frozen) == 8_397_938_544 and frozen.trained == {"s": 743_219_200 + extra}
    assert lora.trained == {"s": 743_219_200 + 167_772_160 + 34_781_184 + extra}, "945.8 M; the paper says 950 M"


def test_an_image_in_the_cache_takes_a_quarter_with_cross_attention():
    merged, crossed = paper_size("merged", FROZEN), paper_size("crossed", FROZEN, fusion="cross_attention")
    assert (merged.slots, crossed.slots) == (64, 1)
    assert merged.image_cache_bytes == 64 * 32 * 2 * 1024 * 2
    assert crossed.image_cache_bytes == 8 * 64 * 2 * 1024 * 2 + 32 * 2 * 1024 * 2
    ratios = [crossed.sample_flops(text) / merged.sample_flops(text) for text in (147, 315, 650, 100_000)]
    assert ratios == sorted(ratios) and ratios[0] < 0.95 < 1.05 < ratios[-1], "the paper's 10 % holds at one ratio"


def test_a_sample_costs_what_its_passes_do():
    """`tests/model/test_flops.py` holds each of these counts to the kernels."""
    choice, text = paper_size("crossed", FROZEN, fusion="cross_attention"), 10
    side = choice.image.side // choice.config.vision.patch
    shown = SimpleNamespace(
        grids=((side, side),), visual_positions_V=torch.tensor([0]),
        positions_T=torch.arange(text + 1), documents=SequenceLengths((text + 1,)),
    )  # fmt: skip
    cost = choice.cost
    decoder = cost.document_flops(text + 1), text * cost.head_flops()
    passes = cost.image_flops(side**2), *decoder, cost.fusion_flops(shown)
    assert choice.sample_flops(text) == sum(passes) and all(passes)


def test_rows_and_the_curve_are_printed(tmp_path):
    choices = [paper_size("merged", FROZEN), paper_size("crossed", FROZEN, fusion="cross_attention")]
    table = dict(rows(choices))
    assert table["visual tokens"] == ["64", "64"] and table["slots in the text"] == ["64", "1"]
    assert table["fusion"] == ["-", f"{choices[1].cost.parameters['fusion']:,}"]
    console = Console(file=io.StringIO(), width=100)
    print_costs(console, choices)
    text = console.file.getvalue()
    assert sample_cells(choices, 650)[1] in text and "relative to merged" in text


def test_the_command_compares_recipes_and_names_what_it_does_not_know():
    shown = CliRunner().invoke(app, ["show", "micro", "--compare", "cross_attention"])
    assert shown.exit_code == 0 and "slots in the text" in shown.output and "trained, stage1" in shown.output
    unknown = CliRunner().invoke(app, ["show", "micro", "--compare", "macro"])
    assert isinstance(unknown.exception, LorgnetteError) and "macro: no such recipe" in str(unknown.exception)
