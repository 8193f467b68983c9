"""LLaVA-1.5 in and out: transformers' own LlavaForConditionalGeneration and LlavaProcessor are the oracles."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import CheckpointError, LorgnetteError
from lorgnette.hub import keys
from lorgnette.hub.describe import describe
from lorgnette.hub.export import export, save
from lorgnette.hub.formats.llava import read_llava, write_llava
from lorgnette.hub.load import load
from lorgnette.hub.parity import check_parity
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.config import ImageConfig, SpecialTokens
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.templates.template import Idefics2Template
from lorgnette.inputs.tokenizer import Tokenizer, train_tokenizer
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs.connector_config import MLPConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.run import Run
from lorgnette.sample import Image, Sample, Text, Turn
from lorgnette.train.setup import build
from tests.hub.tiny import ROWS, SAMPLES, WORDS, tiny_config, tiny_model, tiny_processor

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""The template of llava-hf/llava-1.5-7b-hf."""
SPECIAL = SpecialTokens(around_image="", end_of_utterance="</s>")
LOCAL = {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 3, "tie_word_embeddings": True}
TEXTS = {
    "llama": {"model_type": "llama"},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "tied": {"model_type": "llama", "tie_word_embeddings": True},
    "gemma2": LOCAL | {"model_type": "gemma2", "attn_logit_softcapping": 0.5, "final_logit_softcapping": 2.0},
    "gemma3_text": LOCAL | {"model_type": "gemma3_text", "num_hidden_layers": 6},
}
CLIP_PIXELS = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}


@cache
def tokenizer() -> Tokenizer:
    return train_tokenizer(WORDS * 3, vocabulary=ROWS, special=SPECIAL)


def upstream_config(tower: str = "clip", **text: Any) -> transformers.LlavaConfig:
    """The tiny LLaVA that serves as oracle. tower: clip or siglip. text: settings of the decoder over Llama's."""
    sizes = {"hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 3, "num_attention_heads": 2}
    decoder = {"vocab_size": ROWS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    decoder |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    seen = {"vision_feature_select_strategy": "full", "vision_feature_layer": -1} if tower == "siglip" else {}
    return transformers.LlavaConfig(
        vision_config=sizes | {"model_type": f"{tower}_vision_model", "image_size": 28, "patch_size": 14},
        text_config={"model_type": "llama"} | decoder | text,
        image_token_index=tokenizer().id("<image>"),
        image_seq_length=4,
        **seen,
    )


def write_llava_folder(folder: Path, tower: str = "clip", **text: Any) -> Path:
    """A LLaVA as transformers itself writes it, processor files included."""
    torch.manual_seed(0)
    config = upstream_config(tower, **text)
    model = transformers.LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    tokenizer().save(folder)
    words = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    kind = transformers.CLIPImageProcessorPil if tower == "clip" else transformers.SiglipImageProcessorPil
    pixels = CLIP_PIXELS if tower == "clip" else {"size": {"height": 28, "width": 28}}
    processor = transformers.LlavaProcessor(
        kind(**pixels),
        words,
        patch_size=14,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=int(tower == "clip"),
        chat_template=TEMPLATE,
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava_folder(tmp_path_factory.mktemp("llava"))


@pytest.fixture
def copied(llava: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llava, tmp_path / "copied"))


def llava_config(vision: dict[str, Any] | None = None, **language: Any) -> VLMConfig:
    """A model of lorgnette that LLaVA can represent."""
    clip = {"activation": "quick_gelu", "class_token": "dropped", "norm_before": True, "patch_bias": False}
    sizes = {"width": 24, "layers": 3, "heads": 2, "mlp_width": 36, "patch": 14, "grid": 2, "norm_after": False}
    decoder = {"width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_width": 8, "mlp_width": 48}
    return VLMConfig(
        vision=VisionConfig(**sizes | (clip if vision is None else vision)),
        connector=MLPConfig(),
        language=LanguageConfig(**{"vocabulary": ROWS - 1} | decoder | language),
        extra_vocabulary=1,
        image_token=tokenizer().id("<image>"),
    )


def llava_processor(config: VLMConfig, **images: Any) -> Processor:
    sizes = {"policy": "square", "shortest": 28, "longest": 28, "patch": 14, "grid": 2, "resample": "bicubic"}
    return Processor(tokenizer(), ImageConfig(**sizes | images), config.slots, Idefics2Template(SPECIAL))


# --- In ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_llava_of_transformers_computes_the_same_here(tmp_path: Path, text: dict[str, Any]) -> None:
    report = check_parity(write_llava_folder(tmp_path / "llava", **text)).checked()
    assert {*report.parts} == {"vision", "connector", "language", "logits"}
    assert report.compared == {"conversations": 30, "shapes": 100}


def test_a_llava_with_a_siglip_tower_takes_its_states_before_the_last_norm(tmp_path: Path) -> None:
    folder = write_llava_folder(tmp_path / "llava", "siglip")
    assert check_parity(folder).checked().compared["shapes"] == 100
    vision = load(folder)[0].config.vision
    assert (vision.norm_after, vision.class_token, vision.skipped_layers) == (False, "none", 0)


@pytest.mark.parametrize("layer", [-1, 1, 2, [-2]])
def test_states_are_taken_after_the_layer_that_is_named(copied: Path, layer: Any) -> None:
    values = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(values | {"vision_feature_layer": layer}))
    model, processor = load(copied)
    theirs = transformers.LlavaForConditionalGeneration.from_pretrained(copied).eval()
    batch = processor([SAMPLES[0]])
    pixels = transformers.CLIPImageProcessorPil.from_pretrained(copied)(
        SAMPLES[0].images[0].source, return_tensors="pt"
    )
    with torch.no_grad():
        expected = theirs(input_ids=batch.tokens_T[None], pixel_values=pixels["pixel_values"]).logits[0]
    torch.testing.assert_close(model(batch).logits, expected, atol=1e-5, rtol=1e-5)


def names_of_models(name: str) -> str:
    """Names that a model of transformers 5 has in memory, which some files have."""
    name = name.replace("language_model.model.", "language_model.").replace("language_model.lm_head", "lm_head")
    return name if name.startswith("lm_head") else f"model.{name}"


NAMES: dict[str, Callable[[str], str]] = {
    "transformers 4": lambda name: name.replace("vision_tower.", "vision_tower.vision_model."),
    "transformers 5": lambda name: name,
    "a model in memory": names_of_models,
}


@pytest.mark.parametrize("renamed", NAMES.values(), ids=NAMES)
def test_all_three_forms_of_names_are_read(llava: Path, copied: Path, renamed: Callable[[str], str]) -> None:
    stored = load_file(copied / "model.safetensors")
    save_file(
        {renamed(name): tensor for name, tensor in stored.items()}, copied / "model.safetensors", {"format": "pt"}
    )
    ours, again = load(llava)[0], load(copied)[0]
    read = dict(again.named_parameters())
    assert ours.config == again.config
    assert all(torch.equal(tensor, read[name]) for name, tensor in ours.named_parameters())


@pytest.mark.parametrize(("tower", "strategy"), [("clip", "full"), ("siglip", "default")])
def test_states_other_than_all_patches_are_refused(tower: str, strategy: str) -> None:
    values = upstream_config(tower).to_dict() | {"vision_feature_select_strategy": strategy}
    with pytest.raises(
        CheckpointError, match=rf"strategy is .?{strategy}.?; of a {tower}_vision_model lorgnette takes"
    ):
        read_llava(values, "config.json")


def test_two_tensors_of_one_name_are_refused(copied: Path) -> None:
    stored = load_file(copied / "model.safetensors")
    stored["lm_head.weight"] = stored["language_model.lm_head.weight"].clone()
    save_file(stored, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"lm_head\.weight.* and .*language_model\.lm_head\.weight.*, which are one"
    ):
        load(copied)


def test_an_image_is_its_slots_and_nothing_around(llava: Path) -> None:
    _, processor = load(llava)
    assert processor.special == SPECIAL
    sample = Sample((Turn("user"), Image(PIL.Image.new("RGB", (50, 20))), Text("What colour?")))
    text = processor.decode(processor([sample]).tokens_T.tolist())
    assert text == "<s>USER: <image>×4\nWhat colour? "


def test_a_published_config_is_llava_1_5() -> None:
    """The config.json of llava-hf/llava-1.5-7b-hf: 7,063,427,072 weights, of which a layer of the tower is not run."""
    published = {
        "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": 32000,
        "model_type": "llava", "pad_token_id": 32001, "projector_hidden_act": "gelu", "torch_dtype": "float16",
        "text_config": {
            "_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"],
            "max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05, "torch_dtype": "float16",
            "vocab_size": 32064,
        },
        "vision_config": {
            "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model",
            "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
            "vocab_size": 32000,
        },
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064,
    }  # fmt: skip
    config = read_llava(published, "config.json")
    assert config.connector.visual_tokens(config.vision.grid, config.vision.grid) == 576
    assert (config.vision.layers, config.vision.layer_count, config.image_token) == (24, 23, 32000)
    assert read_llava({"model_type": "llava"}, "here").vision == config.vision
    theirs = transformers.LlavaConfig(**published)
    assert theirs.text_config.intermediate_size == config.language.mlp_width
    keys.check_section(keys.WHOLE_LLAVA, published, "config.json")


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "tanh GELU": ("", {"projector_hidden_act": "gelu_pytorch_tanh"}, "projector_hidden_act is 'gelu_pytorch_tanh'"),
    "no biases": ("", {"multimodal_projector_bias": False}, "multimodal_projector_bias is False"),
    "two layers": ("", {"vision_feature_layer": [-2, -1]}, r"vision_feature_layer is \[-2, -1\]"),
    "no layer": ("", {"vision_feature_layer": 0}, "vision_feature_layer is 0; lorgnette takes the states after one"),
    "beyond the layers": ("", {"vision_feature_layer": -4}, "vision_feature_layer is -4"),
    "the class token": (
        "",
        {"vision_feature_select_strategy": "full"},
        "strategy of processor_config.json is .*'full'",
    ),
    "another tower": ("vision_config", {"model_type": "pixtral"}, "model_type is .?pixtral.?; known towers are clip"),
    "another image token": ("", {"image_token_index": 7}, "the id of the image token: 7 against 299"),
    "another size": ("vision_config", {"image_size": 56}, "image_size of the vision tower is 56"),
}


@pytest.mark.parametrize(("group", "values", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_ours_is_refused_by_name(copied: Path, group: str, values: dict[str, Any], message: str) -> None:
    read = json.loads((copied / "config.json").read_text())
    (read[group] if group else read).update(values)
    (copied / "config.json").write_text(json.dumps(read))
    with pytest.raises(LorgnetteError, match=message) as caught:
        load(copied)
    assert str(copied) in str(caught.value)


IMAGES_AND_SLOTS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "older slots": ("", {"num_additional_image_tokens": None, "patch_size": None}, None),
    "a slot too few": ("", {"num_additional_image_tokens": 0}, "num_additional_image_tokens of processor_config"),
    "another patch": ("", {"patch_size": 7}, "patch_size of processor_config.json is .?7"),
    "another strategy": ("", {"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy of processor"),
    "another class": ("image_processor", {"image_processor_type": "LlavaImageProcessor"}, "image_processor_type is"),
    "padded": ("image_processor", {"do_pad": True}, "do_pad is .*True.*: images are made square"),
    "no crop": ("image_processor", {"do_center_crop": False}, "makes no square"),
    "a crop of another size": ("image_processor", {"crop_size": {"height": 14, "width": 14}}, "images of 14 pixels"),
}


@pytest.mark.parametrize(("group", "values", "message"), IMAGES_AND_SLOTS.values(), ids=IMAGES_AND_SLOTS)
def test_keys_of_the_processor_are_held_to_the_model(
    copied: Path, group: str, values: dict[str, Any], message: str | None
) -> None:
    file = copied / "processor_config.json"
    read = json.loads(file.read_text())
    (read[group] if group else read).update(values)
    file.write_text(json.dumps(read))
    if message is None:
        assert load(copied)[1].images.longest == 28
        return
    with pytest.raises(LorgnetteError, match=message):
        load(copied)


def test_older_files_of_a_processor_are_read(llava: Path, copied: Path) -> None:
    """Before 5: the template in chat_template.json, images in preprocessor_config.json, sizes as numbers."""
    new = json.loads((copied / "processor_config.json").read_text())
    pixels = new.pop("image_processor") | {"size": 28, "crop_size": 28, "image_processor_type": "CLIPImageProcessor"}
    (copied / "preprocessor_config.json").write_text(json.dumps(pixels))
    (copied / "processor_config.json").write_text(json.dumps({"processor_class": "LlavaProcessor"}))
    (copied / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (copied / "chat_template.jinja").unlink()
    ours, older = load(llava)[1], load(copied)[1]
    assert (older.images, older.mean, older.template.source) == (ours.images, ours.mean, TEMPLATE)
    assert older([SAMPLES[2]]).tokens_T.tolist() == ours([SAMPLES[2]]).tokens_T.tolist()


def test_every_key_of_the_installed_version_has_its_place(llava: Path) -> None:
    sections = {
        "config": (keys.WHOLE_LLAVA, upstream_config().to_dict()),
        "vision_config": (keys.LLAVA_VISION, upstream_config().vision_config.to_dict()),
        "siglip": (keys.LLAVA_VISION, upstream_config("siglip").vision_config.to_dict()),
        "processor": (keys.LLAVA_PROCESSOR, json.loads((llava / "processor_config.json").read_text())),
        "images": (keys.LLAVA_IMAGES, transformers.CLIPImageProcessorPil().to_dict()),
    }
    for name, (section, values) in sections.items():
        assert values.keys() <= section.known, name
        places = [*section.obeyed, *section.irrelevant, *section.refused, *section.said]
        assert len(places) == len(set(places)), name
    package = Path(keys.__file__).parents[1]
    for section in (keys.WHOLE_LLAVA, keys.LLAVA_VISION, keys.LLAVA_PROCESSOR, keys.LLAVA_IMAGES):
        assert all(key in (package / module).read_text() for key, module in section.obeyed.items())


def test_an_untouched_folder_says_nothing(llava: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys.warn_once.cache_clear()
    load(llava)
    assert not caplog.text


# --- Out --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_import_then_export_is_bit_equal(tmp_path: Path, tower: str) -> None:
    """All tensors but those that LLaVA does not run: the last layer of the tower, and what pools its states."""
    first = write_llava_folder(tmp_path / "first", tower)
    model, processor = load(first)
    second = export(model, processor, tmp_path / "second", format="llava", verify=True)
    theirs, ours = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    renamed = {NAMES["transformers 4"](name): tensor for name, tensor in theirs.items()}
    left_out = {name for name in renamed if name not in ours}
    assert ours.keys() <= renamed.keys()
    assert all(".post_layernorm." in name or ".head." in name or ".layers.2." in name for name in left_out)
    assert all(torch.equal(tensor, renamed[name]) for name, tensor in ours.items())
    parity = json.loads((second / "parity.json").read_text())
    assert parity["passed"] and parity["compared"] == {"conversations": 30, "shapes": 100}
    assert load(second)[0].config == model.config
    third = export(*load(second), tmp_path / "third", format="llava")
    assert (third / "config.json").read_text() == (second / "config.json").read_text()
    assert (third / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert describe(second).form == "LLaVA-1.5"


GEMMA = {"activation": "gelu_tanh", "norm_offset": True, "scaled_embedding": True, "tied_embeddings": True}
GEMMA |= {"sliding_window": 5, "global_every": 2}
EXPORTED = {
    "llama": ({"family": "llama"}, None, {"crop_from": 28}),
    "qwen3": ({"family": "qwen3", "qk_norm": True, "head_width": 16}, None, {"crop_from": 32}),
    "gemma2": (GEMMA | {"family": "gemma2", "post_norms": True, "score_cap": 0.5}, None, {"crop_from": 28}),
    "gemma3_text": (
        GEMMA | {"family": "gemma3_text", "post_norms": True, "qk_norm": True, "local_rope_theta": 70.0},
        None,
        {},
    ),
    "tied, an extra layer of the tower": ({"tied_embeddings": True}, {"skipped_layers": 1, "layers": 4}, {}),
}


@pytest.mark.parametrize(("language", "vision", "images"), EXPORTED.values(), ids=EXPORTED)
def test_a_model_made_here_opens_in_transformers(
    tmp_path: Path, language: dict[str, Any], vision: dict[str, Any] | None, images: dict[str, Any]
) -> None:
    config = llava_config(vision, **language)
    model, processor = tiny_model(config), llava_processor(config, **images)
    save(model, processor, tmp_path / "own")
    assert load(tmp_path / "own")[0].config == config
    command = ["export", "--model", str(tmp_path / "own"), str(tmp_path / "out"), "--format", "llava", "--verify"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "out"
    again, theirs = load(folder)
    assert again.config == config and theirs.images == processor.images and theirs.template == processor.template
    assert "LLaVA-1.5" in (folder / "README.md").read_text()


def test_transformers_generates_the_same_tokens(llava: Path) -> None:
    model, processor = load(llava)
    oracle = transformers.AutoModelForImageTextToText.from_pretrained(llava).eval()
    reader = transformers.AutoProcessor.from_pretrained(llava)
    sample = SAMPLES[0]
    content = [{"type": "image"}, {"type": "text", "text": sample.text}]
    text = reader.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = reader(text=[text], images=[sample.images[0].source], return_tensors="pt")
    with torch.no_grad():
        found = oracle.generate(**inputs, max_new_tokens=16, do_sample=False, eos_token_id=processor.tokenizer.eos)
    [answer] = generate(model, processor, [sample], GenerationConfig(max_tokens=16))
    theirs = found[0, inputs["input_ids"].shape[1] :].tolist()
    assert list(answer.tokens) == theirs[: len(answer.tokens)]


def test_a_llava_is_trained_and_exported_again(llava: Path, tmp_path: Path) -> None:
    pack = {"tokens": 512, "patches": 512}
    stage = {
        "name": "tune",
        "steps": 5,
        "pack": pack,
        "sources": [{"kind": "messages", "path": "builtin:validation/conversations"}],
    }
    model, processor = build(Run.parse({"name": "tuned", "init": {"model": str(llava)}, "stages": [stage]}))
    assert processor.special == SPECIAL and processor.images == load(llava)[1].images
    model.train()
    spoken = Sample((*SAMPLES[0].segments, Turn("assistant"), Text("red", supervised=True)))
    batch = processor([spoken])
    optimizer, losses = torch.optim.AdamW(model.parameters(), 1e-2), []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(model(batch).logits, batch.targets_T)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    folder = export(model.eval(), processor, tmp_path / "tuned", format="llava", verify=True)
    assert torch.equal(load(folder)[0](batch).logits, model(batch).logits)


REFUSALS: dict[str, tuple[Callable[[], VLMConfig], dict[str, Any], str]] = {
    "perceiver": (tiny_config, {}, r"one slot for each patch.*connector\.kind=perceiver"),
    "normed SigLIP": (
        lambda: llava_config({"norm_after": True}), {}, r"vision\.norm_after is True.*before its last norm"
    ),
    "a wider MLP": (
        lambda: llava_config().override("connector.hidden=64"), {}, r"connector\.hidden is 64.*as wide as the decoder"
    ),
    "DINOv2": (
        lambda: llava_config({"class_token": "dropped", "layer_scale": True}), {}, r"vision\.\w+ is .* what its CLIP"
    ),
    "capped scores": (
        lambda: llava_config().override("language.logit_cap=3.0"), {}, r"language\.logit_cap is 3\.0.*caps no scores"
    ),
    "own aspect ratio": (llava_config, {"policy": "native"}, r"images\.policy is 'native'.*'square'"),
    "smaller images": (llava_config, {"longest": 14, "shortest": 14}, r"images\.longest is 14.*28"),
    "quadrants": (llava_config, {"split": True}, r"images\.split is True"),
}  # fmt: skip


@pytest.mark.parametrize(("config", "images", "message"), REFUSALS.values(), ids=REFUSALS)
def test_a_model_that_llava_cannot_hold_is_refused_with_the_reason(
    tmp_path: Path, config: Callable[[], VLMConfig], images: dict[str, Any], message: str
) -> None:
    made = config()
    processor = tiny_processor(made) if made == tiny_config() else llava_processor(made, **images)
    with pytest.raises(CheckpointError, match=message):
        export(tiny_model(made), processor, tmp_path / "out", format="llava")
    assert not (tmp_path / "out").exists()


def test_formats_exclude_each_other(tmp_path: Path) -> None:
    config = llava_config()
    with pytest.raises(CheckpointError, match=r"it cannot hold connector\.kind=mlp"):
        export(tiny_model(config), llava_processor(config), tmp_path / "out")
    around = Processor(tokenizer(), tiny_processor().images, tiny_config().slots, Idefics2Template(SPECIAL))
    perceiver = tiny_config().override(f"image_token={around.image_token}")
    with pytest.raises(CheckpointError, match=r"special\.around_image is empty, but transformers' Idefics2"):
        export(tiny_model(perceiver), around, tmp_path / "out")
    assert load(save(tiny_model(perceiver), around, tmp_path / "own"))[1].special == SPECIAL
    with pytest.raises(
        CheckpointError, match=r"format .?gguf.?: lorgnette writes idefics2, idefics1, idefics3, smolvlm, llava"
    ):
        export(tiny_model(), tiny_processor(), tmp_path / "out", format="gguf")


def test_settings_come_back_from_transformers_class() -> None:
    for vision in (None, {"activation": "gelu_tanh"}, {"layers": 4, "skipped_layers": 1}):
        config = llava_config(vision)
        written = json.loads(json.dumps(write_llava(config)))
        theirs = transformers.LlavaConfig(**written).to_dict()
        plain = read_llava(theirs, "there").plain()
        held = {"layers": config.vision.layer_count, "skipped_layers": 0}
        assert plain["vision"] == config.vision.plain() | held
        assert plain["language"] == config.language.plain() | {"vocabulary": ROWS}
