"""Idefics1 in and out: transformers' own IdeficsForVisionText2Text and IdeficsProcessor are the oracles."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.idefics.processing_idefics import (
    image_attention_mask_for_packed_input_ids,
    incremental_to_binary_attention_mask,
)

from lorgnette.errors import CheckpointError, LorgnetteError
from lorgnette.hub import keys
from lorgnette.hub.export import export, save
from lorgnette.hub.formats.idefics1 import idefics1_rules, read_idefics1, write_idefics1
from lorgnette.hub.formats.idefics1_keys import WHOLE_IDEFICS1
from lorgnette.hub.load import load
from lorgnette.hub.parity import check_parity
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.config import ImageConfig, SpecialTokens
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.templates.template import Idefics2Template
from lorgnette.inputs.tokenizer import Tokenizer, train_tokenizer
from lorgnette.model.config import VLMConfig
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, Sample, Text
from tests.hub.tiny import ROWS, SAMPLES, WORDS, picture, tiny_config, tiny_model, tiny_processor

KINDS: dict[str, dict[str, Any]] = {
    "vector gates": {},
    "scalar gates": {"alpha_type": "float", "alpha_initializer": "ones"},
    "no norms": {"qk_layer_norms": False, "perceiver_config": {"qk_layer_norms_perceiver": False}},
    "no resampler": {"use_resampler": False},
    "a block for each layer, tied": {"cross_layer_interval": 1, "tie_word_embeddings": True},
}
every_kind = pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
EXTRA = 3
"""Rows after the table: of the two tokens of an image, and of the end of an utterance."""
DOCUMENTS = (
    *SAMPLES,
    Sample((Text("the cat sat"), Image(picture(40, 40)), Text(" on "), Image(picture(50, 20, 1)), Text(" the mat"))),
)
"""Documents with text before their first image, with one, several and none."""


@cache
def words() -> Tokenizer:
    return train_tokenizer(WORDS * 3, vocabulary=ROWS, special=SpecialTokens(space_after_image=False))


def upstream_config(**changes: Any) -> transformers.IdeficsConfig:
    """The tiny Idefics1 that serves as oracle."""
    resampler = {"use_resampler": True, "resampler_n_latents": 5, "resampler_depth": 2, "resampler_n_heads": 3}
    resampler |= {"resampler_head_dim": 8, "qk_layer_norms_perceiver": True} | changes.pop("perceiver_config", {})
    tower = {"embed_dim": 24, "image_size": 28, "patch_size": 14, "intermediate_size": 36, "num_hidden_layers": 2}
    values = {"vocab_size": ROWS - EXTRA, "additional_vocab_size": EXTRA, "hidden_size": 32, "intermediate_size": 48}
    values |= {"num_hidden_layers": 4, "num_attention_heads": 4, "cross_layer_interval": 2, "qk_layer_norms": True}
    values |= {"alpha_initializer": "normal", "alphas_initializer_range": 0.5, "alpha_type": "vector"}
    values |= {"use_resampler": True, "freeze_text_layers": False, "freeze_vision_layers": False}
    return transformers.IdeficsConfig(
        **values | changes,
        vision_config=tower | {"num_attention_heads": 2, "hidden_act": "gelu"},
        perceiver_config=resampler,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        pad_token_id=None,
    )


def write_folder(folder: Path, tokens: Tokenizer | None = None, **changes: Any) -> Path:
    """An Idefics1 as transformers itself writes it, processor files included."""
    torch.manual_seed(0)
    model = transformers.IdeficsForVisionText2Text(upstream_config(**changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.tie_weights()
    model.save_pretrained(folder)
    (tokens or words()).save(folder)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    processor = transformers.IdeficsProcessor(transformers.IdeficsImageProcessorPil(image_size=28), tokenizer)
    processor.chat_template = Idefics2Template(SpecialTokens()).source
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def idefics1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("idefics1"))


@pytest.fixture
def copied(idefics1: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(idefics1, tmp_path / "copied"))


@torch.no_grad()
def their_logits(theirs: Any, folder: Path, sample: Sample, tokens_T: torch.Tensor) -> torch.Tensor:
    """Logits of transformers' class: T,K. Without images it wants one of zeros, and a mask that hides it."""
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    count = max(len(sample.images), 1)
    pixels, mask = torch.zeros(1, 1, 3, 28, 28), torch.zeros(1, len(tokens_T), 1)
    if sample.images:
        images = [one.source for one in sample.images]
        pixels = transformers.IdeficsImageProcessorPil(image_size=28)(images, return_tensors="pt")[None]
        seen, _ = image_attention_mask_for_packed_input_ids(tokens_T[None].clone(), tokenizer, "pt")
        mask = incremental_to_binary_attention_mask(seen, "pt", num_classes=count)
    return theirs(input_ids=tokens_T[None], pixel_values=pixels, image_attention_mask=mask).logits[0]


def assert_logits_agree(model: VLM, processor: Processor, folder: Path) -> None:
    theirs = transformers.IdeficsForVisionText2Text.from_pretrained(folder).eval()
    batch = processor(DOCUMENTS)
    tokens = batch.tokens_T.split(list(batch.documents.lengths))
    expected = [their_logits(theirs, folder, *pair) for pair in zip(DOCUMENTS, tokens, strict=True)]
    with torch.no_grad():
        ours = model(batch).logits.split(list(batch.documents.lengths))
    for mine, their in zip(ours, expected, strict=True):
        assert float((mine - their).abs().max()) <= 1e-5 * float(their.abs().max())


# --- In ---------------------------------------------------------------------------------------------------------------


@every_kind
def test_an_idefics1_of_transformers_computes_the_same_here(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = write_folder(tmp_path / "idefics1", **changes)
    model, processor = load(folder)
    assert (model.config.language.vocabulary, model.config.extra_vocabulary) == (ROWS - EXTRA, EXTRA)
    assert model.config.image_token == words().id("<image>")
    assert_logits_agree(model, processor, folder)
    assert {*check_parity(folder).checked().parts} == {"vision", "connector", "language", "logits"}
    again = load(save(model, processor, tmp_path / "ours"))[0]
    assert again.config == model.config
    read = dict(again.named_parameters())
    assert all(torch.equal(tensor, read[name]) for name, tensor in model.named_parameters())


def test_an_image_is_one_slot_between_its_tokens(idefics1: Path) -> None:
    _, processor = load(idefics1)
    text = processor.decode(processor([SAMPLES[2]]).tokens_T.tolist())
    fake = "<fake_token_around_image>"
    assert text.count("<image>×1") == 3
    assert f"{fake}<image>×1{fake}<image>×1{fake}<image>×1{fake}" in text
    assert (processor.mean, processor.images.resample) == ((0.48145466, 0.4578275, 0.40821073), "bicubic")


def test_a_base_model_ends_its_answers_with_the_sequence(tmp_path: Path) -> None:
    tokens = train_tokenizer(WORDS * 3, vocabulary=ROWS, special=SpecialTokens(end_of_utterance="</s>"))
    _, processor = load(write_folder(tmp_path / "base", tokens))
    assert processor.special == SpecialTokens(end_of_utterance="</s>", space_after_image=False)


def test_older_files_of_a_processor_are_read(copied: Path) -> None:
    pixels = {"image_num_channels": 3, "image_processor_type": "IdeficsImageProcessor", "image_size": 28}
    pixels |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    (copied / "processor_config.json").unlink()
    (copied / "preprocessor_config.json").write_text(json.dumps(pixels))
    assert load(copied)[1].images == load(copied)[1].images.model_copy(update={"longest": 28, "policy": "square"})


def published() -> dict[str, Any]:
    """Settings of HuggingFaceM4/idefics-9b."""
    perceiver = {"qk_layer_norms_perceiver": True, "resampler_depth": 6, "resampler_head_dim": 96}
    tower = {"embed_dim": 1280, "hidden_act": "gelu", "image_size": 224, "intermediate_size": 5120, "patch_size": 14}
    return {
        "additional_vocab_size": 2, "alpha_initializer": "zeros", "alpha_type": "float", "cross_layer_interval": 4,
        "alphas_initializer_range": 0.0, "architectures": ["IdeficsForVisionText2Text"], "dropout": 0.0,
        "freeze_lm_head": False, "freeze_text_layers": False, "freeze_vision_layers": False, "hidden_act": "silu",
        "hidden_size": 4096, "intermediate_size": 11008, "model_type": "idefics", "num_attention_heads": 32,
        "num_hidden_layers": 32, "pad_token_id": 0, "qk_layer_norms": True, "rms_norm_eps": 1e-06, "use_cache": True,
        "perceiver_config": perceiver | {"resampler_n_heads": 16, "resampler_n_latents": 64, "use_resampler": True},
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_resampler": True, "vocab_size": 32000,
        "vision_config": tower | {"num_attention_heads": 16, "num_hidden_layers": 32, "layer_norm_eps": 1e-05},
    }  # fmt: skip


def test_idefics1_9b_by_count() -> None:
    """8,929,679,632 weights there, of which 2,560 are the norm of a pooled state that nothing reads."""
    config = read_idefics1(published(), "config.json")
    with torch.device("meta"):
        model = VLM(config)
        theirs = transformers.IdeficsForVisionText2Text(transformers.IdeficsConfig(**published()))
    counts = {part: sum(one.numel() for one in weights) for part, weights in model.parts().items()}
    assert counts["fusion"] == 8 * 179_314_946
    assert counts["connector"] == 125_961_984
    assert counts["fusion"] + counts["connector"] + counts["extra_vocabulary"] == 1_560_497_936
    assert sum(one.numel() for one in theirs.parameters()) == 8_929_679_632 == sum(counts.values()) + 2 * 1280
    stored = {name: tuple(one.shape) for name, one in theirs.state_dict().items() if "post_layernorm" not in name}
    shapes = {name: one.shape for name, one in model.named_parameters()}
    assert {rule.theirs: rule.their_shape(shapes) for rule in idefics1_rules(config)} == stored
    preset = VLMConfig.parse({"preset": "idefics1"}).plain()
    pixels = {key: preset["vision"].pop(key) for key in ("mean", "std")}  # which stand with the processor
    assert preset | {"vision": preset["vision"] | dict.fromkeys(pixels, [0.5] * 3)} == config.plain()
    keys.check_section(WHOLE_IDEFICS1, published(), "config.json")


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "an unknown gate": ("", {"alpha_type": "matrix"}, "alpha_type is .?matrix.?; known are float, vector"),
    "no switch": ("", {"use_resampler": "yes"}, "use_resampler is .?yes.?; expected true or false"),
    "blocks between layers": ("", {"cross_layer_interval": 3}, "a block for every 3 layers"),
    "another activation": ("", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; lorgnette knows 'silu' only"),
    "two widths": ("vision_config", {"hidden_size": 48}, "embed_dim is 24, but hidden_size 48"),
    "another size": ("vision_config", {"image_size": 56}, "image_size of the vision tower is 56"),
    "too few rows": ("", {"additional_vocab_size": 2}, "300 tokens, but vocab_size and additional_vocab_size give 299"),
}


@pytest.mark.parametrize(("group", "values", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_ours_is_refused_by_name(copied: Path, group: str, values: dict[str, Any], message: str) -> None:
    read = json.loads((copied / "config.json").read_text())
    (read[group] if group else read).update(values)
    (copied / "config.json").write_text(json.dumps(read))
    with pytest.raises(LorgnetteError, match=message) as caught:
        load(copied)
    assert str(copied) in str(caught.value)


PIXELS: dict[str, tuple[dict[str, Any], str]] = {
    "another class": ({"image_processor_type": "CLIPImageProcessor"}, "image_processor_type is .*for an Idefics1"),
    "not resized": ({"do_resize": False}, "do_resize is false or null"),
    "no square": ({"size": {"height": 28, "width": 14}, "image_size": None}, "makes no square"),
}


@pytest.mark.parametrize(("values", "message"), PIXELS.values(), ids=PIXELS)
def test_images_that_are_not_squares_are_refused(copied: Path, values: dict[str, Any], message: str) -> None:
    file = copied / "processor_config.json"
    read = json.loads(file.read_text())
    read["image_processor"].update(values)
    file.write_text(json.dumps(read))
    with pytest.raises(CheckpointError, match=message):
        load(copied)


def test_tied_rows_that_differ_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tied", tie_word_embeddings=True)
    stored = load_file(folder / "model.safetensors")
    extra = stored["model.embed_tokens.additional_embedding.weight"]
    save_file(stored | {"lm_head.additional_fc.weight": extra.clone()}, folder / "model.safetensors", {"format": "pt"})
    assert load(folder)[0].config.language.tied_embeddings, "an equal second one counts as not there"
    save_file(stored | {"lm_head.additional_fc.weight": extra + 1}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"differs from .*, but tie_word_embeddings is true"):
        load(folder)


# --- Out --------------------------------------------------------------------------------------------------------------


def ours(changes: dict[str, Any] | None = None, **fusion: Any) -> tuple[VLM, Processor]:
    """A model of lorgnette that Idefics can represent. changes: groups of settings over those."""
    tower = {"width": 24, "layers": 2, "heads": 2, "mlp_width": 36, "patch": 14, "grid": 2, "activation": "gelu"}
    tower |= {"class_token": "kept", "norm_before": True, "norm_after": False, "patch_bias": False, "norm_eps": 1e-5}
    pixels = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
    perceiver = {"width_of": "vision", "latents": 4, "depth": 2, "heads": 3, "kv_heads": 3, "head_width": 8}
    perceiver |= {"norm": "layer", "norm_eps": 1e-5, "mlp": "relu", "qk_norm": True}
    language = tiny_config(family="llama", kv_heads=4).language.plain()
    groups = {"vision": tower | pixels, "connector": perceiver, "language": language, "image_token": 298}
    groups["fusion"] = {"kind": "cross_attention", "every": 2, "kv_heads": 4, "gate_init": 0.5} | fusion
    config = VLMConfig.parse(groups | (changes or {}))
    sizes = {"policy": "square", "shortest": 28, "longest": 28, "patch": 14, "grid": 2, "resample": "bicubic"}
    return tiny_model(config), Processor(words(), ImageConfig(**sizes), config.slots, **pixels)


@pytest.mark.parametrize("gate", ["scalar", "vector"])
def test_transformers_computes_what_was_exported(tmp_path: Path, gate: str) -> None:
    model, processor = ours(gate=gate)
    folder = export(model, processor, tmp_path / "out", format="idefics1", verify=True)
    assert json.loads((folder / "parity.json").read_text())["passed"]
    assert_logits_agree(model, processor, folder)
    again, reader = load(folder)
    assert again.config == model.config
    assert reader.special == processor.special
    settings = GenerationConfig(max_tokens=6)
    assert generate(again, reader, SAMPLES, settings) == generate(model, processor, SAMPLES, settings)


def test_what_idefics_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    cases = {
        "fusion=autoregressive": (tiny_model(), tiny_processor()),
        "fusion.sees is 'group'": ours(sees="group"),
        "fusion.first is 1": ours(first=1),
        "fusion.kv_heads is 2": ours(kv_heads=2),
        "fusion.norm is 'layer'": ours(norm="layer"),
        "fusion.mlp_width is 40": ours(mlp_width=40),
        "language.family is 'mistral'": ours({"language": tiny_config(kv_heads=4).language.plain()}),
        "connector.kind=linear": ours({"connector": {"kind": "mapping_network"}}),
    }
    cases["connector.kind=mapping_network"] = cases.pop("connector.kind=linear")
    for message, (model, processor) in cases.items():
        with pytest.raises(CheckpointError, match=message):
            export(model, processor, tmp_path / "out", format="idefics1")
    model, processor = ours()
    cut = ImageConfig.parse(processor.images.plain() | {"crop_from": 30})
    with pytest.raises(CheckpointError, match=r"images\.crop_from is 30"):
        export(model, Processor(words(), cut, model.config.slots), tmp_path / "out", format="idefics1")
    assert not (tmp_path / "out").exists()


def test_settings_come_back_from_transformers_class() -> None:
    for changes in ({}, {"connector": {"kind": "identity", "class_tokens": 1}}):
        config = ours(changes)[0].config
        theirs = transformers.IdeficsConfig(**json.loads(json.dumps(write_idefics1(config)))).to_dict()
        plain = read_idefics1(theirs, "there").plain()
        half = dict.fromkeys(("mean", "std"), [0.5] * 3)  # which stand with the processor
        expected = config.plain() | {"vision": config.vision.plain() | half}
        assert plain | {"image_token": 298} == expected
