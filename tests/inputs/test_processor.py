"""The processor's files: ours, upstream's new ones and upstream's old ones."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from transformers import AutoProcessor

from lorgnette.errors import CheckpointError
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.templates.template import Idefics2Template, JinjaTemplate
from lorgnette.model.configs.connector_config import PixelShuffleConfig
from lorgnette.sample import Sample
from tests.inputs.conftest import noise, old_checkpoint

CONFIGS = [
    ImageConfig(shortest=28, longest=70, grid=5),
    ImageConfig(shortest=28, longest=70, grid=5, split=True),
    ImageConfig(shortest=14, longest=56, grid=7, keep_aspect=True, positions="exact", resize="fast"),
    ImageConfig(policy="square", shortest=28, longest=56, grid=9, max_pixels=10**6),
    ImageConfig(shortest=24, longest=64, patch=8, grid=8),
]


@pytest.mark.parametrize("images", CONFIGS, ids=range(len(CONFIGS)))
def test_load_undoes_save(images, processor, tmp_path):
    saved = dataclasses.replace(processor, images=images, mean=(0.4, 0.5, 0.6), std=(0.25, 0.5, 0.25))
    saved.save(tmp_path)
    loaded = Processor.load(tmp_path)
    assert loaded.images == images
    assert (loaded.mean, loaded.std, loaded.connector) == (saved.mean, saved.std, saved.connector)
    assert loaded.template == Idefics2Template()
    assert loaded.special == saved.special


def test_a_connector_that_joins_squares_is_saved_whatever_the_shortest_side(processor, tmp_path):
    """`image_seq_len` is that of the smallest image, whose sides are multiples of the square's."""
    images = ImageConfig(shortest=3 * 14, longest=70, grid=5)
    dataclasses.replace(processor, images=images, connector=PixelShuffleConfig(side=2)).save(tmp_path)
    assert json.loads((tmp_path / "processor_config.json").read_text())["image_seq_len"] == 4
    assert Processor.load(tmp_path).images.multiple == 2


@pytest.mark.parametrize("images", CONFIGS[:2], ids=["whole", "split"])
def test_upstream_opens_what_was_saved(images, processor, tmp_path):
    dataclasses.replace(processor, images=images, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).save(tmp_path)
    theirs, ours = AutoProcessor.from_pretrained(tmp_path), Processor.load(tmp_path)
    assert type(theirs).__name__ == "Idefics2Processor"
    conversation = [
        {"role": "user", "content": [{"type": "image", "image": noise(70, 40)}, {"type": "text", "text": "What?"}]}
    ]
    prompt = theirs.apply_chat_template(conversation, add_generation_prompt=True)
    expected = theirs(text=prompt, images=[[noise(70, 40)]], return_tensors="pt")
    batch = ours([Sample.from_messages(conversation)], add_generation_prompt=True)
    assert batch.tokens_T.tolist() == expected["input_ids"][0].tolist()
    patches = expected["pixel_values"][0].unfold(2, 14, 14).unfold(3, 14, 14).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    real = expected["pixel_attention_mask"][0].unfold(1, 14, 14).unfold(2, 14, 14).sum((-1, -2)).flatten() == 14 * 14
    assert np.allclose(batch.patches_PC.numpy() / 255, patches.flatten(1)[real].numpy(), atol=1e-6)


def test_an_old_folder_opens(tmp_path):
    ours = Processor.load(old_checkpoint(tmp_path))
    assert ours.images == ImageConfig(shortest=28, longest=70, grid=5)
    assert ours.connector.latents == 64
    assert ours.mean == (0.5, 0.5, 0.5)


def test_an_old_folder_may_give_the_template_and_the_visual_tokens_elsewhere(tmp_path):
    folder = old_checkpoint(tmp_path)
    (folder / "chat_template.jinja").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_seq_len": 8}))
    assert Processor.load(folder).template == Idefics2Template()
    assert Processor.load(folder).connector.latents == 8
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    template = Processor.load(folder).template
    assert isinstance(template, JinjaTemplate)
    assert template.source == "{{ messages }}"


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("preprocessor_config.json", None, "holds neither processor_config.json nor preprocessor_config.json"),
        ("preprocessor_config.json", {"size": {"width": 3}}, "has neither shortest_edge"),
        ("preprocessor_config.json", {"size": 3}, "cannot be understood"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 990, "longest_edge": 980}}, "shortest side 990"),
        (
            "preprocessor_config.json",
            {"size": {"shortest_edge": 28, "longest_edge": 990}},
            "exceeds the position table",
        ),
        (
            "preprocessor_config.json",
            {"size": {"shortest_edge": 28, "longest_edge": 70}, "image_mean": "grey"},
            "cannot be",
        ),
        ("processor_config.json", {"image_seq_len": "many"}, "cannot be understood"),
        ("processor_config.json", {"image_processor": 5}, "cannot be understood"),
        ("lorgnette.json", {"images": {"keep_aspekt": True}}, "did you mean 'keep_aspect'"),
        ("lorgnette.json", {"images": []}, "cannot be understood"),
        ("lorgnette.json", {"special": {"image": 3}}, "cannot be understood"),
        ("config.json", {"vision_config": 3}, "cannot be understood"),
        ("config.json", {"vision_config": {"patch_size": 0}}, "cannot be understood"),
        ("chat_template.json", {"chat_template": [1]}, r"holds several chat templates \(\), none called default"),
    ],
)
def test_a_damaged_folder_is_refused(file, content, reason, tmp_path):
    folder = old_checkpoint(tmp_path)
    (folder / "chat_template.jinja").unlink()
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=reason) as error:
        Processor.load(folder)
    assert str(tmp_path) in str(error.value)


NAMED = {"tool_use": "{{ tools }}", "default": "{{ messages[0].content }}</s>"}


@pytest.mark.parametrize("templates", [NAMED, [{"name": name, "template": text} for name, text in NAMED.items()]])
@pytest.mark.parametrize("file", ["processor_config.json", "tokenizer_config.json", "chat_template.json"])
def test_of_several_templates_the_default_is_used(file, templates, tmp_path):
    folder = old_checkpoint(tmp_path)
    (folder / "chat_template.jinja").unlink()
    values = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(values | {"chat_template": templates}))
    processor = Processor.load(folder)
    assert processor.template.source == NAMED["default"]
    processor.save(folder / "saved")
    assert Processor.load(folder / "saved").template.source == NAMED["default"]


def test_one_template_of_a_name_is_not_guessed(tmp_path):
    folder = old_checkpoint(tmp_path, chat_template=[{"name": "rag", "template": "{{ documents }}"}])
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match=r"several chat templates \(rag\), none called default"):
        Processor.load(folder)


def test_other_templates_beside_the_first_change_nothing(tmp_path):
    folder = old_checkpoint(tmp_path)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    assert Processor.load(folder).template == Idefics2Template()
