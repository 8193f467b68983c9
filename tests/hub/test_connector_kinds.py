"""Models with every connector: saved and opened, answering with and without kept visual tokens, refused by export."""

from __future__ import annotations

import pytest
import torch

from lorgnette.errors import CheckpointError
from lorgnette.hub.describe import describe, lines
from lorgnette.hub.export import export, save
from lorgnette.hub.load import load
from lorgnette.infer.batch_invariance import examine
from lorgnette.infer.generate import generate
from lorgnette.infer.image_cache import ImageFeatureCache
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.model.config import LinearConfig, PixelShuffleConfig, VLMConfig
from tests.hub.tiny import SAMPLES, picture, tiny_config, tiny_model, tiny_processor

KINDS = {"linear": LinearConfig(), "pixel shuffle": PixelShuffleConfig(side=2)}
SETTINGS = GenerationConfig(max_tokens=6)
every_kind = pytest.mark.parametrize("connector", KINDS.values(), ids=KINDS)


def whole(connector) -> VLMConfig:
    return VLMConfig.parse(tiny_config().plain() | {"connector": connector.plain()})


@every_kind
def test_it_is_saved_and_opened_in_lorgnettes_own_form(connector, tmp_path):
    config = whole(connector)
    model, processor = tiny_model(config), tiny_processor(config)
    save(model, processor, tmp_path / "saved")
    again, read = load(tmp_path / "saved")
    assert again.config == config and read.connector == connector and read.images == processor.images
    stored = dict(again.named_parameters())
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.named_parameters())
    before, after = (generate(one, two, SAMPLES, SETTINGS) for one, two in ((model, processor), (again, read)))
    assert before == after
    assert connector.about in "\n".join(lines(describe(tmp_path / "saved")))
    with pytest.raises(CheckpointError, match=f"cannot hold connector.kind={connector.kind}"):
        export(model, processor, tmp_path / "exported")


@every_kind
@pytest.mark.parametrize("split", [False, True])
def test_kept_visual_tokens_give_the_same_answers(connector, split):
    config = whole(connector)
    model, processor = tiny_model(config), tiny_processor(config)
    kept = ImageFeatureCache(model, processor, split=split)
    expected = generate(model, processor, SAMPLES, SETTINGS, split=split)
    for _ in range(2):
        assert generate(model, processor, SAMPLES, SETTINGS, image_cache=kept) == expected
    with torch.no_grad():
        batch, visual_VD = kept.prompts(SAMPLES)
        together = processor(SAMPLES, add_generation_prompt=True, split=split)
        assert torch.equal(batch.tokens_T, together.tokens_T)
        torch.testing.assert_close(visual_VD, model.encode_images(together), atol=1e-5, rtol=1e-5)


@every_kind
def test_answers_do_not_depend_on_the_batch(connector):
    config = whole(connector)
    found = examine(tiny_model(config), tiny_processor(config), [picture(60, 40), picture(84, 84, seed=1)])
    assert found.passed, found.verdict()


def test_images_are_sized_for_squares_of_patches():
    processor = tiny_processor(whole(PixelShuffleConfig(side=3)))
    assert processor.images.multiple == 3
    crops = [crop for sample in SAMPLES for crop in processor.render(sample, split=True).images]
    assert len({(crop.rows, crop.columns) for crop in crops}) > 1
    assert all(crop.rows % 3 == crop.columns % 3 == 0 for crop in crops)
