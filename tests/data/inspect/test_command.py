"""`lorgnette data inspect` on a recipe, on a run's folder and on a source by itself."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import LorgnetteError
from lorgnette.inputs.config import SpecialTokens
from lorgnette.inputs.tokenizer import train_tokenizer
from tests.data.inspect.conftest import RED, picture
from tests.pages import Page


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Conversations, a Cauldron file, a tokenizer, and a recipe of two stages on the conversations."""
    folder = tmp_path_factory.mktemp("place")
    picture(RED).save(folder / "red.png")
    content = [{"type": "image", "path": "red.png"}, {"type": "text", "text": "What colour?"}]
    row = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "red"}]}
    (folder / "rows.jsonl").write_text((json.dumps(row) + "\n") * 6)
    tokenizer = train_tokenizer(["What colour? red"] * 9, vocabulary=300, special=SpecialTokens())
    tokenizer.save(folder / "tokenizer")
    image = {"bytes": (folder / "red.png").read_bytes(), "path": None}
    asked = [{"user": "What colour?", "assistant": "Red it is.", "source": "made"}]
    rows = [{"images": [image], "texts": asked}, {"images": [image], "texts": []}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "cauldron.parquet")
    narrow = {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32}
    recipe = {
        "name": "seen",
        "tokenizer": {"path": str(folder / "tokenizer")},
        "images": {"shortest": 16, "longest": 32, "patch": 8, "grid": 4},
        "model": {
            "vision": {**narrow, "patch": 8, "grid": 4},
            "connector": {"projection_width": 16, "latents": 2, "depth": 1, "heads": 2, "head_width": 8, "kv_heads": 1},
            "language": {**narrow, "vocabulary": tokenizer.vocabulary - 3, "kv_heads": 1, "head_width": 8},
            "image_token": tokenizer.vocabulary - 2,
        },
        "stages": [
            {
                "name": name,
                "steps": 5,
                "pack": {"samples": 4, "packs_per_step": 1},
                "sources": [{"kind": "chat", "path": str(folder / "rows.jsonl")}],
            }
            for name in ("first", "second")
        ],
        "loader": {"workers": 0},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    (folder / "run").mkdir()
    (folder / "run" / "run.yaml").write_text(json.dumps(recipe))
    return folder


def inspect(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["data", "inspect", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_recipe_is_looked_at_in_the_terminal_and_on_a_page(place, tmp_path):
    output = inspect(place / "recipe.yaml", "--stage", "second", "--steps", "1:3", "--html", tmp_path / "look.html")
    page = Page((tmp_path / "look.html").read_text(encoding="utf-8"))
    assert "seen, stage second, steps 1 to 2" in output and "seen, stage second, steps 1 to 2" in page.text
    assert "8 documents" in output and "8 documents" in page.text and "What colour?" in output


def test_a_runs_folder_is_looked_at_with_the_settings_that_it_was_run_with(place):
    assert "seen, stage first, step 0" in inspect(place / "run")
    assert "2 documents" in inspect(place / "run", "stages.0.pack.samples=2")


@pytest.mark.parametrize("kind", ["chat", "instruct"])
def test_a_source_is_looked_at_by_itself_before_it_is_prepared(place, kind):
    path = {"chat": "rows.jsonl", "instruct": "cauldron.parquet"}[kind]
    output = inspect(place / path, "--kind", kind, "--tokenizer", place / "tokenizer", "--samples", 2)
    assert "image 1" in output and "What colour?" in output
    assert ("1 samples cannot be trained on" in output) is (kind == "instruct")


WRONG = {
    "a stage that is not there": (["recipe.yaml", "--stage", "third"], "its stages are first, second"),
    "steps that are not there": (["recipe.yaml", "--steps", "4:9"], "steps 0 to 4"),
    "steps that are no numbers": (["recipe.yaml", "--steps", "a:b"], "FIRST:END"),
    "a source without tokenizer": (["rows.jsonl", "--kind", "chat"], "give --tokenizer"),
    "a kind that is not there": (["rows.jsonl", "--kind", "chta", "--tokenizer", "tokenizer"], "chta"),
    "a recipe that is not there": (["recipes.yaml"], "no such recipe"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_what_to_do(place, name):
    arguments, reason = WRONG[name]
    given = [str(place / one) if (place / one).exists() else one for one in arguments]
    with pytest.raises(LorgnetteError, match=reason):
        CliRunner().invoke(app, ["data", "inspect", *given], catch_exceptions=False)
