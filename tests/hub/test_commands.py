"""`lorgnette import`, `show`, `export` and `generate` on a checkpoint as transformers writes it."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

import lorgnette
from lorgnette.cli import app
from lorgnette.errors import LorgnetteError
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.sample import Image, Sample, Text, Turn
from tests.hub.tiny import picture

PROMPT = "what colour is the cat?"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, size in (("one.png", (60, 40)), ("two.png", (30, 80))):
        picture(*size).save(folder / name)
    return [folder / "one.png", folder / "two.png"]


def ask(folder, images, *options: object) -> dict:
    shown = [word for image in images for word in ("--image", image)]
    line = ("generate", "--model", folder, *shown, "--prompt", PROMPT, "--max-tokens", 6, "--json", *options)
    return json.loads(run(*line))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_command_answers_as_the_function_does(upstream, pictures, count):
    sample = Sample((Turn("user"), *map(Image, pictures[:count]), Text(PROMPT)))
    [answer] = lorgnette.generate(*lorgnette.load(upstream), [sample], GenerationConfig(max_tokens=6))
    printed = ask(upstream, pictures[:count])
    assert printed == {
        "text": answer.text,
        "finish": answer.finish,
        "prompt_tokens": answer.prompt_tokens,
        "tokens": len(answer.tokens),
    }


def test_split_shows_each_image_as_five(upstream, pictures):
    whole, split = (ask(upstream, pictures, *options)["prompt_tokens"] for options in ((), ("--split",)))
    assert split - whole == 2 * 4 * (4 + 1), "four more crops of four visual tokens and one beside, for two images"


def test_without_json_the_text_alone_is_printed(upstream, pictures):
    line = ("generate", "--model", upstream, "--image", pictures[0], "--prompt", PROMPT, "--max-tokens", 6)
    assert run(*line) == ask(upstream, pictures[:1])["text"] + "\n"


def test_import_and_export_keep_every_tensor(upstream, tmp_path):
    run("import", upstream, tmp_path / "ours")
    run("export", "--model", tmp_path / "ours", tmp_path / "theirs")
    models = [lorgnette.load(folder)[0] for folder in (upstream, tmp_path / "ours", tmp_path / "theirs")]
    first, *others = (dict(model.named_parameters()) for model in models)
    for other in others:
        assert other.keys() == first.keys() and all(torch.equal(other[name], first[name]) for name in first)


def test_show_says_what_a_checkpoint_is(upstream):
    text = run("show", upstream)
    total = sum(parameter.numel() for parameter in lorgnette.load(upstream)[0].parameters())
    for word in ("vision", "connector", "language", f"{total:,}", "kFLOP", "<image>", "<end_of_utterance>"):
        assert word in text, word


@pytest.mark.parametrize("verb", ["generate", "show", "import", "export"])
def test_a_folder_that_holds_no_model_is_named(tmp_path, verb):
    lines = {
        "generate": ("--model", tmp_path, "--prompt", "x"),
        "show": (tmp_path,),
        "import": (tmp_path, tmp_path / "out"),
        "export": ("--model", tmp_path, tmp_path / "out"),
    }
    with pytest.raises(LorgnetteError, match=tmp_path.name):
        CliRunner().invoke(app, [verb, *map(str, lines[verb])], catch_exceptions=False)
    assert not (tmp_path / "out").exists()
