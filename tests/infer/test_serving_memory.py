"""Sizes that `lorgnette show --serve` prints, against what an engine allocates."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.hub.export import save
from lorgnette.infer.engine.config import EngineConfig
from lorgnette.infer.serving_memory import lines, serving_memory
from lorgnette.model.config import VLMConfig
from lorgnette.sample import Image, Sample, Text, Turn
from tests.hub.tiny import picture, tiny_model, tiny_processor
from tests.infer.engine.driving import engine_of, every_fusion, request

LIMITS = EngineConfig(kv_bytes=2**18, max_running=8)


def sizes(config: VLMConfig, limits: EngineConfig = LIMITS):
    model = tiny_model(config, seed=1)
    weights = sum(one.nbytes for one in model.parameters())
    return serving_memory(config, tiny_processor(config).images, torch.float32, weights, limits)


@every_fusion
def test_the_numbers_are_those_of_an_engine(config: VLMConfig) -> None:
    found, engine = sizes(config), engine_of(config)
    assert found.weights == sum(one.nbytes for one in engine.model.parameters())
    assert found.token == engine.store.slot_bytes
    assert sum(one[:1].nbytes for one in (*engine.store.keys, *engine.store.values)) == found.token
    side = engine.processor.images.crop_side
    shown = Sample((Turn("user"), Image(picture(side, side)), Text("what colour is the cat?")))
    prompt = engine.add(request("a", shown, max_tokens=4))
    assert len(prompt.places) == found.image_slots
    engine.step()
    assert engine.image_cache.bytes == found.image_cached
    assert engine.stats().image_kv_bytes_used == found.image_kv
    assert engine.stats().kv_bytes_used == found.request(len(prompt.tokens), 4)


@pytest.mark.parametrize("kv_bytes", [2**16, 2**17, 2**18])
def test_so_many_requests_run_side_by_side(kv_bytes: int) -> None:
    config = tiny_model(seed=1).config
    found = sizes(config, EngineConfig(kv_bytes=kv_bytes, max_running=8))
    engine = engine_of(config, kv_bytes=kv_bytes, tokens_per_step=256)
    words = Sample((Turn("user"), Text("what colour is the cat? " * 3)))
    for number in range(9):
        prompt = engine.add(request(number, words, max_tokens=40, ignore_eos=True))
    for _ in range(3):
        engine.step()
    assert engine.stats().running == found.fitting(len(prompt.tokens), 40) > 0


def test_the_command_prints_them(tmp_path) -> None:
    save(tiny_model(seed=1), tiny_processor(), tmp_path / "tiny")
    done = CliRunner().invoke(app, ["show", str(tmp_path / "tiny"), "--serve"], catch_exceptions=False)
    assert done.exit_code == 0
    found = sizes(tiny_model(seed=1).config, EngineConfig())
    for label, value in lines(found, tiny_model(seed=1).config.language.context_length):
        assert label in done.output and value.split(",")[0] in done.output
