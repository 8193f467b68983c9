"""Presets: written out when settings are read, overridden by what stands beside them, refused by the nearest name."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import SettingsError
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs import presets
from lorgnette.model.configs.connector_config import LinearConfig, PerceiverConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.run import Run, find_recipe


@pytest.mark.parametrize("name", presets.MODEL)
def test_a_preset_is_the_block_written_out(name):
    model = VLMConfig.parse({"preset": name})
    assert VLMConfig.parse(model.plain()) == model
    assert isinstance(model.connector, PerceiverConfig)
    projects = model.connector.width_of == "decoder"
    assert model.connector.projection_width == (model.language.mlp_width if projects else None)
    assert model.image_token == model.language.vocabulary + 1


def test_idefics2_is_the_papers():
    assert VLMConfig.parse({"preset": "idefics2"}) == VLMConfig(language=LanguageConfig(sliding_window=4096))


def test_settings_beside_a_preset_win():
    micro = VLMConfig.parse({"preset": "micro"})
    model = VLMConfig.parse({"preset": "micro", "vision": {"layers": 2}, "image_token": 2045})
    assert micro.diff(model) == {"vision.layers": (4, 2), "image_token": (2046, 2045)}


def test_a_part_has_presets_of_its_own_within_a_whole():
    model = VLMConfig.parse({"preset": "idefics2", "language": {"preset": "smollm2-135m", "max_positions": 99}})
    assert model.language == LanguageConfig.parse({"preset": "smollm2-135m", "max_positions": 99})
    assert (model.image_token, model.connector.projection_width) == (49153, 1536), "both follow the decoder"
    assert model.vision == VisionConfig.parse({"preset": "siglip-so400m"}) == VisionConfig()


def test_another_kind_of_connector_takes_the_place_of_the_whole_group():
    assert VLMConfig.parse({"preset": "micro", "connector": {"kind": "linear"}}).connector == LinearConfig()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"preset": "idefic"}, "preset 'idefic' is unknown; did you mean 'idefics2'"),
        ({"preset": "zzz"}, "preset 'zzz' is unknown; known presets: idefics2, idefics1, micro"),
        ({"preset": ["micro"]}, r"preset \['micro'\] is unknown"),
        ({"language": {"preset": "qwen3-06b"}}, "language: preset 'qwen3-06b' is unknown; did you mean 'qwen3-0.6b'"),
        ({"vision": {"preset": "siglip"}}, "vision: preset 'siglip' is unknown; did you mean 'siglip-so400m'"),
        ({"preset": "micro", "vision": {"layer": 2}}, "vision.layer: no such setting; did you mean 'layers'"),
        ({"preset": "micro", "vision": 3}, "vision: "),
    ],
)
def test_what_is_not_known_is_refused(values, said):
    with pytest.raises(SettingsError, match=said):
        VLMConfig.parse(values)


def test_a_preset_beside_the_whole_block_is_refused():
    with pytest.raises(SettingsError, match="preset 'micro' has no effect, as all of its settings stand beside it"):
        VLMConfig().override("preset=micro")


def test_an_override_on_the_command_line_stands_beside_the_preset():
    run = Run.load(find_recipe("micro"), ["model.vision.layers=1", "model.language.family=mistral"])
    assert (run.model.vision.layers, run.model.language.family, run.model.language.layers) == (1, "mistral", 4)


def test_the_command_prints_every_preset():
    done = CliRunner().invoke(app, ["presets"], terminal_width=200)
    assert done.exit_code == 0, done.output
    assert all(name in done.output for name in (*presets.MODEL, *presets.VISION_PRESETS, *presets.LANGUAGE))
    assert "8,403 M" in done.output, "Idefics2 with its three extra rows"
