"""Output of `lorgnette show` for a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorgnette.errors import CheckpointError
from lorgnette.hub.describe import describe, lines, print_description
from lorgnette.hub.export import export, save
from lorgnette.hub.load import load
from lorgnette.model.flops import ModelCost
from tests.hub.tiny import ROWS, tiny_config, tiny_model, tiny_processor


def test_the_facts_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = tiny_model()
    folder = export(model, tiny_processor(), tmp_path / "model", verify=True)
    found = describe(folder)
    assert found.config == model.config
    assert sum(found.parameters.values()) == sum(parameter.numel() for parameter in model.parameters())
    assert found.bytes == (folder / "model.safetensors").stat().st_size
    assert (found.dtypes, found.form) == (("F32",), "Idefics2")
    assert [(image.side, image.patches, image.visual_tokens) for image in found.images] == [(28, 4, 4), (84, 36, 4)]
    assert found.images[1].flops == ModelCost(model.config).image_flops(36)
    assert found.token_flops == ModelCost(model.config).token_flops() + 2 * 32 * ROWS
    assert found.cache_bytes == 2 * 2 * (2 * 8) * 4
    assert found.special_tokens["<image>"] == model.config.image_token
    assert found.special_tokens["begin"] == 1
    assert 0 < found.certified <= 1e-5
    print_description(found)
    printed = capsys.readouterr().out
    assert printed.splitlines() == list(lines(found))
    assert f"{sum(found.parameters.values()):,}" in printed
    assert "image of 84 x 84 pixels: 2.44 MFLOP, 36 patches, 4 visual tokens" in printed


def test_a_folder_of_our_own_form(tmp_path: Path) -> None:
    config = tiny_config().override("connector.projection_width=20")
    folder = save(tiny_model(config), tiny_processor(config), tmp_path / "model")
    found = describe(folder)
    assert (found.form, found.certified) == ("", None)
    assert "lorgnette's own" in next(lines(found))


def test_transformers_own_folder(upstream: Path) -> None:
    assert describe(upstream).config == load(upstream)[0].config


def test_a_spoiled_certificate_is_refused(tmp_path: Path) -> None:
    folder = save(tiny_model(), tiny_processor(), tmp_path / "model")
    (folder / "parity.json").write_text('{"parts": 3}')
    with pytest.raises(CheckpointError, match=r"parity.json: is not a parity certificate"):
        describe(folder)
