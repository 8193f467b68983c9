"""A run that starts from a vision encoder and a language model of transformers, each in a folder of its own."""

from __future__ import annotations

import pytest
import torch
import yaml
from rich.console import Console
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import CheckpointError, SettingsError
from lorgnette.hub.load import load
from lorgnette.model.vlm import VLM
from lorgnette.run import Run
from lorgnette.train.loop import Trainer
from lorgnette.train.setup import build, resolve
from tests.hub.test_join import write_decoder, write_siglip
from tests.hub.tiny import ROWS

QUIET = Console(quiet=True)
FAMILIES = {
    "llama": {},
    "mistral": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2, "tie_word_embeddings": True},
}
CONNECTOR = {"projection_width": 48, "latents": 2, "depth": 1, "heads": 2, "head_width": 8, "kv_heads": 1}


@pytest.fixture(params=FAMILIES)
def started(request, squares, tmp_path):
    """A run on two backbones, their classes in transformers, and the folder."""
    eyes = write_siglip(tmp_path / "vision")
    words = write_decoder(tmp_path / "language", request.param, FAMILIES[request.param])
    stage = {
        "name": "join",
        "steps": 4,
        "pack": {"samples": 4, "packs_per_step": 1},
        "lr": 0.01,
        "vision": {"mode": "lora"},
    }
    stage |= {"language": {"mode": "frozen"}, "lora": {"rank": 2, "dropout": 0.0}}
    stage |= {"sources": [{"kind": "chat", "path": str(squares / "rows.jsonl")}]}
    values = {
        "name": "joined",
        "threads": 1,
        "init": {"vision": str(tmp_path / "vision"), "language": str(tmp_path / "language")},
        "model": {"connector": CONNECTOR},
        "images": {"shortest": 42, "longest": 112, "patch": 14, "grid": 8},
        "stages": [stage],
        "loader": {"workers": 0},
    }
    return values, eyes, words, tmp_path


def test_backbones_are_joined_and_only_what_should_trains(started):
    values, eyes, words, folder = started
    run = Run.parse(values)
    model, processor = build(run)
    whole = resolve(run).model
    assert whole.connector.latents == 2 and whole.language.vocabulary == ROWS - 3 and whole.extra_vocabulary == 3
    table = words.get_input_embeddings().weight
    assert torch.equal(model.language.embedding.table, table)
    for row in model.language.embedding.extra:
        torch.testing.assert_close(row, table.mean(dim=0), msg="a new row is the mean of the table")
    theirs = dict(eyes.named_parameters())
    name = next(name for name in theirs if name.endswith("layers.1.self_attn.k_proj.weight"))
    assert torch.equal(model.vision.layers[1].attention.key.weight, theirs[name])
    drawn = VLM(whole).initialise(run.seed)
    assert torch.equal(model.connector.latents, drawn.connector.latents)
    assert processor.tokenizer.vocabulary == ROWS

    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trained = dict(Trainer(run, folder / "run", QUIET).train().named_parameters())
    moved = {name for name, parameter in trained.items() if not torch.equal(parameter, before[name])}
    adapted = {name for name in before if name.startswith("vision.layers.") and name.endswith("weight")}
    adapted = {name for name in adapted if "norm" not in name}
    extra = {name for name in before if name.endswith(".extra")}
    assert extra and moved == adapted | extra | {name for name in before if name.startswith("connector.")}


def test_the_command_says_what_it_starts_from_and_goes_on(started):
    values, _, _, folder = started
    recipe, out = str(folder / "recipe.yaml"), folder / "run"
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    done = CliRunner().invoke(app, ["train", recipe, "--dry-run"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert f"the vision encoder is that of {folder / 'vision'}" in said
    assert f"the language model that of {folder / 'language'}; after the 297 rows of its vocabulary 3 are added" in said
    assert "the connector is drawn from seed 0" in said
    first = None
    for _ in range(2):  # the second time there is nothing left to do
        done = CliRunner().invoke(app, ["train", recipe, "--folder", str(out)])
        assert done.exit_code == 0, f"{done.output} {done.exception!r}"
        written = (out / "model" / "model.safetensors").read_bytes()
        assert written == (first := first or written)
    assert Run.load(out / "run.yaml").has_sizes
    assert load(out)[0].config == resolve(Run.parse(values)).model


def test_half_of_a_start_or_a_wrong_one_is_refused(started):
    values, _, _, folder = started
    with pytest.raises(SettingsError, match=r"give init\.language too"):
        Run.parse(values | {"init": {"vision": str(folder / "vision")}})
    swapped = {"vision": str(folder / "language"), "language": str(folder / "vision")}
    with pytest.raises(CheckpointError, match="as vision encoder lorgnette reads a siglip"):
        build(Run.parse(values | {"init": swapped}))
