"""Idefics3, SmolVLM and SmolVLM2 in and out: transformers' own classes are the oracles."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import CheckpointError, DataError, LorgnetteError
from lorgnette.hub import keys
from lorgnette.hub.describe import describe, lines
from lorgnette.hub.export import export, save
from lorgnette.hub.formats import idefics3_keys
from lorgnette.hub.formats.format import SMOLVLM
from lorgnette.hub.formats.idefics3 import read_idefics3, write_idefics3
from lorgnette.hub.load import load
from lorgnette.hub.parity import check_parity
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.templates.template import turns
from lorgnette.inputs.tiles import tag_of, tiles_of
from lorgnette.inputs.tokenizer import Tokenizer, train_tokenizer
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs.connector_config import PixelShuffleConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.vlm import VLM
from lorgnette.run import Run
from lorgnette.sample import Image, Sample, Text, Turn
from lorgnette.train.adapters.peft import merge_adapters, save_adapters
from lorgnette.train.planner.cost_table import CostedModel, rows
from lorgnette.train.setup import build
from lorgnette.train.stages import prepare_parts
from tests.hub.tiny import ROWS, SAMPLES, WORDS, picture, tiny_config, tiny_model, tiny_processor
from tests.infer.engine.driving import ask, engine, request

TEMPLATE = (
    "<s>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""The template of SmolVLM-256M-Instruct, whose first token is called <|im_start|> there."""
KINDS = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}
SIDE, LONGEST, JOINED = 28, 84, 2
VIDEO = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 512}}


@cache
def tokenizer(tags: bool = True) -> Tokenizer:
    """tags: whether the vocabulary holds the tags of tiles, as SmolVLM's does and Idefics3-8B's does not.

    What it puts around a text itself is left out, since the template writes the beginning, as SmolVLM's.
    """
    made = train_tokenizer(WORDS * 3, vocabulary=ROWS)
    values = json.loads(made.to_json())
    values["post_processor"] = None
    backend = tokenizers.Tokenizer.from_str(json.dumps(values))
    if tags:
        added = [AddedToken(tag_of(tile), special=True, normalized=False) for tile in tiles_of(3, 3)]
        backend.add_special_tokens(added)
    return Tokenizer(backend, made.settings, made.special)


def upstream_config(kind: str = "idefics3", **text: Any) -> Any:
    """The tiny model that serves as oracle. text: settings of the decoder over Llama's."""
    decoder = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 1024}
    decoder |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": tokenizer().vocabulary}
    vision = {"hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 2}
    return getattr(transformers, f"{KINDS[kind]}Config")(
        vision_config=vision | {"image_size": SIDE, "patch_size": 7},
        text_config={"model_type": "llama", "pad_token_id": 3} | decoder | text,
        scale_factor=JOINED,
        image_token_id=tokenizer().id("<image>"),
        tie_word_embeddings=bool(text.get("tie_word_embeddings")),
    )


def write_folder(folder: Path, kind: str = "idefics3", tags: bool = True, **text: Any) -> Path:
    """A model as transformers itself writes it. Its processor's files are those of versions before 5."""
    torch.manual_seed(0)
    model = getattr(transformers, f"{KINDS[kind]}ForConditionalGeneration")(upstream_config(kind, **text))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
            if name.endswith("o_proj.bias"):
                parameter.zero_()
    model.save_pretrained(folder)
    tokenizer(tags).save(folder)
    pictures = {
        "do_convert_rgb": True, "do_image_splitting": True, "do_normalize": True, "do_pad": True, "do_rescale": True,
        "do_resize": True, "image_mean": [0.5] * 3, "image_processor_type": f"{KINDS[kind]}ImageProcessor",
        "image_std": [0.5] * 3, "max_image_size": {"longest_edge": SIDE}, "resample": 1,
        "processor_class": f"{KINDS[kind]}Processor", "rescale_factor": 1 / 255, "size": {"longest_edge": LONGEST},
    }  # fmt: skip
    if kind == "smolvlm":
        pictures["video_sampling"] = VIDEO
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    words = {"image_seq_len": 4, "processor_class": f"{KINDS[kind]}Processor"}
    (folder / "processor_config.json").write_text(json.dumps(words))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder


@pytest.fixture(scope="module")
def idefics3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("idefics3"))


@pytest.fixture(scope="module")
def smolvlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("smolvlm"), "smolvlm")


@pytest.fixture
def copied(idefics3: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(idefics3, tmp_path / "copied"))


def own_config(vision: dict[str, Any] | None = None, **language: Any) -> VLMConfig:
    """A model of lorgnette that Idefics3 can represent."""
    sizes = {"width": 24, "layers": 2, "heads": 2, "mlp_width": 36, "patch": 7, "grid": 4}
    decoder = {"width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_width": 8, "mlp_width": 48}
    rows = tokenizer().vocabulary
    return VLMConfig(
        vision=VisionConfig(**sizes | (vision or {})),
        connector=PixelShuffleConfig(side=JOINED),
        language=LanguageConfig(**{"vocabulary": tokenizer().id("<fake_token_around_image>")} | decoder | language),
        extra_vocabulary=rows - tokenizer().id("<fake_token_around_image>"),
        image_token=tokenizer().id("<image>"),
    )


def own_processor(config: VLMConfig, **images: Any) -> Processor:
    sizes = {"policy": "tiles", "shortest": SIDE, "longest": LONGEST, "patch": 7, "grid": 4, "resample": "lanczos"}
    return Processor(tokenizer(), ImageConfig(**sizes | {"split": True} | images), config.slots)


# --- In ---------------------------------------------------------------------------------------------------------------

DECODERS: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied": {"tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2"},
    "qwen2 as llama": {"attention_bias": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
}


@pytest.mark.parametrize("tags", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_transformers_computes_the_same_here(tmp_path: Path, kind: str, tags: bool) -> None:
    report = check_parity(write_folder(tmp_path / kind, kind, tags)).checked()
    assert {*report.parts} == {"vision", "connector", "language", "logits"}
    assert report.compared == {"conversations": 20, "shapes": 20}


@pytest.mark.parametrize("text", DECODERS.values(), ids=DECODERS)
def test_any_decoder_that_is_read_computes_the_same(tmp_path: Path, text: dict[str, Any]) -> None:
    folder = write_folder(tmp_path / "model", **text)
    model, processor = load(folder)
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    batch = processor(SAMPLES[:1])
    with torch.no_grad():
        expected = theirs(**tensors(folder, SAMPLES[0], add_generation_prompt=False)).logits[0]
    torch.testing.assert_close(model(batch).logits, expected, atol=1e-5, rtol=1e-5)
    assert model.config.language.family == ("qwen2" if "attention_bias" in text else text.get("model_type", "llama"))


def reader_of(folder: Path) -> Any:
    words = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    pictures = transformers.Idefics3ImageProcessorPil.from_pretrained(folder)
    return transformers.Idefics3Processor(pictures, words, image_seq_len=4, chat_template=TEMPLATE)


def tensors(folder: Path, sample: Sample, add_generation_prompt: bool = True) -> Any:
    """What transformers' processor makes of a sample."""
    reader = reader_of(folder)
    messages = [{"role": role, "content": [_part(one) for one in contents]} for role, contents in turns(sample)]
    text = reader.apply_chat_template(messages, add_generation_prompt=add_generation_prompt)
    images = [one.source for one in sample.images]
    return reader(text=[text], **({"images": [images]} if images else {}), return_tensors="pt")


def _part(content: Text | Image) -> dict[str, str]:
    return {"type": "image"} if isinstance(content, Image) else {"type": "text", "text": content.text}


ASKED = {
    "one image": Sample((Turn("user"), Image(picture(60, 40)), Text("what colour?"))),
    "several": Sample((Turn("user"), Image(picture(90, 20)), Image(picture(20, 70)), Text("which?"))),
    "text alone": Sample((Turn("user"), Text("the cat sat on"))),
    "several turns": Sample(
        (
            *(Turn("system"), Text("be brief"), Turn("user"), Text("look"), Image(picture(28, 28)), Turn("assistant")),
            *(Text("a mat"), Turn("user"), Text("and the "), Image(picture(1, 9)), Text(" cat?")),
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("asked", ASKED)
def test_chat_generate_and_the_engine_answer_as_transformers(idefics3: Path, asked: str) -> None:
    sample = ASKED[asked]
    model, processor = load(idefics3)
    oracle = transformers.AutoModelForImageTextToText.from_pretrained(idefics3).eval()
    inputs = tensors(idefics3, sample)
    assert processor.prompts([sample]).tokens_T.tolist() == inputs["input_ids"][0].tolist()
    with torch.no_grad():
        found = oracle.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=processor.tokenizer.eos)
    theirs = found[0, inputs["input_ids"].shape[1] :].tolist()
    settings = GenerationConfig(max_tokens=12)
    [answer] = generate(model, processor, [sample], settings)
    assert len(answer.tokens) and list(answer.tokens) == theirs[: len(answer.tokens)]
    [again] = ask(engine(model, processor), request("a", sample, max_tokens=12)).values()
    assert again.tokens == answer.tokens


def test_tensors_of_a_wrapped_model_are_found(idefics3: Path, copied: Path) -> None:
    stored = load_file(copied / "model.safetensors")
    renamed = {f"base.{name}": tensor for name, tensor in stored.items()}
    save_file(renamed, copied / "model.safetensors", {"format": "pt"})
    ours, theirs = (dict(load(folder)[0].named_parameters()) for folder in (idefics3, copied))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_an_image_is_its_tiles_with_their_tags_and_the_whole(idefics3: Path) -> None:
    _, processor = load(idefics3)
    sample = Sample((Turn("user"), Image(picture(60, 20)), Text("What colour?")))
    text = processor.decode(processor([sample]).tokens_T.tolist())
    fake = "<fake_token_around_image>"
    tiles = "".join(f"{fake}<row_1_col_{column}><image>×4" for column in (1, 2, 3))
    whole = f"{fake}<global-img><image>×4{fake}"
    assert text == f"<s>User:{tiles}\n\n{whole}What colour?<end_of_utterance>\n"
    small = processor([sample], split=False).tokens_T.tolist()
    assert processor.decode(small) == f"<s>User:{whole}What colour?<end_of_utterance>\n"


def test_the_published_smolvlm_is_read_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The config.json of SmolVLM-256M-Instruct, with the keys of the code that trained it: 256,484,928 weights."""
    published = {
        "architectures": ["Idefics3ForConditionalGeneration"], "image_token_id": 49190, "model_type": "idefics3",
        "scale_factor": 4, "text_config": {
            "_flash_attn_2_enabled": True, "_name_or_path": "None", "architectures": ["VLlama3ForCausalLM"],
            "head_dim": 64, "hidden_size": 576, "intermediate_size": 1536, "is_llama_config": True,
            "max_position_embeddings": 8192, "model_type": "llama", "neftune_noise_alpha": 0.0,
            "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2,
            "pixel_shuffle_factor": 4, "qk_layer_norms": False, "rms_norm_eps": 1e-05, "rope_interleaved": False,
            "rope_scaling": None, "rope_theta": 100000, "torch_dtype": "bfloat16", "use_resampler": False,
            "vocab_size": 49280,
        },
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.46.0", "use_cache": True,
        "use_reentrant_checkpointing": False, "vision_config": {
            "hidden_size": 768, "image_size": 512, "max_image_size": {"longest_edge": 512}, "model_type": "idefics3",
            "num_attention_heads": 12, "patch_size": 16, "size": {"longest_edge": 2048}, "tie_word_embeddings": False,
            "use_base_siglip": True,
        },
        "vocab_size": 49280,
    }  # fmt: skip
    keys.warn_once.cache_clear()
    config = read_idefics3(published, "config.json")
    keys.check_section(idefics3_keys.IDEFICS3_WHOLE, published, "config.json")
    for group, section in idefics3_keys.IDEFICS3_SECTIONS.groups.items():
        keys.check_section(section, published[group], group)
    assert not caplog.text
    assert config.connector.visual_tokens(config.vision.grid, config.vision.grid) == 64
    theirs = transformers.Idefics3Config(**published)
    with torch.device("meta"):
        counted = transformers.Idefics3ForConditionalGeneration(theirs).num_parameters()
        ours = sum(one.numel() for one in VLM(config).parameters())
    assert ours == counted


def test_a_silent_config_is_upstreams(tmp_path: Path) -> None:
    theirs = transformers.Idefics3Config()
    read = read_idefics3({"model_type": "idefics3"}, "here")
    vision, text = theirs.vision_config, theirs.text_config
    assert (read.vision.width, read.vision.heads) == (vision.hidden_size, vision.num_attention_heads)
    assert (read.vision.mlp_width, read.vision.layers) == (vision.intermediate_size, vision.num_hidden_layers)
    assert (read.vision.patch, read.vision.grid) == (vision.patch_size, vision.image_size // vision.patch_size)
    assert (read.language.width, read.language.norm_eps) == (text.hidden_size, text.rms_norm_eps)
    assert (read.connector.multiple, read.image_token) == (theirs.scale_factor, theirs.image_token_id)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "another decoder": ("config.json/text_config", {"model_type": "gpt2"}, "model_type is 'gpt2'; known decoders"),
    "an oblong encoder": ("config.json/vision_config", {"image_size": [28, 14]}, "image_size is .*28, 14"),
    "another scale": ("config.json", {"scale_factor": 4}, "image_seq_len is 4, but a tile of 28 pixels"),
    "a scale that is none": ("config.json", {"scale_factor": 0}, "scale_factor is 0"),
    "other slots": ("processor_config.json", {"image_seq_len": 64}, "image_seq_len is 64, but a tile of 28 pixels"),
    "another image token": ("config.json", {"image_token_id": 7}, "disagree on the id of the image token: 7"),
    "no multiple of tiles": ("preprocessor_config.json", {"size": {"longest_edge": 80}}, "longest 80 is not a"),
    "two edges": (
        "preprocessor_config.json", {"size": {"longest_edge": 84, "shortest_edge": 28}}, "expected longest_edge alone"
    ),
    "a larger tile": ("preprocessor_config.json", {"max_image_size": {"longest_edge": 42}}, "exceeds the position"),
    "no resizing": ("preprocessor_config.json", {"do_resize": False}, "do_resize is false or null"),
    "another class": ("preprocessor_config.json", {"image_processor_type": "Other"}, "image_processor_type is"),
}  # fmt: skip


@pytest.mark.parametrize(("place", "values", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_ours_is_refused_by_name(copied: Path, place: str, values: dict[str, Any], message: str) -> None:
    name, _, group = place.partition("/")
    read = json.loads((copied / name).read_text())
    (read[group] if group else read).update(values)
    (copied / name).write_text(json.dumps(read))
    with pytest.raises(LorgnetteError, match=message) as caught:
        load(copied)
    assert str(copied) in str(caught.value)


def test_a_bias_of_the_output_is_refused_unless_it_is_zero(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", attention_bias=True)
    stored = load_file(folder / "model.safetensors")
    name = "model.text_model.layers.1.self_attn.o_proj.bias"
    assert name in stored
    save_file(stored | {name: torch.ones(32)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"o_proj\.bias is not zero; lorgnette's decoders have no bias"):
        load(folder)


def test_another_tag_of_the_whole_is_refused(smolvlm: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(smolvlm, tmp_path / "other"))
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"global_image_token": "<whole>"}))
    with pytest.raises(CheckpointError, match=r"global_image_token is .?<whole>.?; known is <global-img>"):
        load(folder)


def test_a_video_is_refused_by_name() -> None:
    content = [{"type": "video", "path": "clip.mp4"}, {"type": "text", "text": "What happens?"}]
    with pytest.raises(DataError, match="video"):
        Sample.from_messages([{"role": "user", "content": content}])


def test_an_untouched_folder_says_nothing(smolvlm: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys.warn_once.cache_clear()
    _, processor = load(smolvlm)
    assert not caplog.text and processor.video == {"video_sampling": VIDEO}
    said = "\n".join(lines(describe(smolvlm)))
    assert "SmolVLM, opens in transformers" in said and "tile, of up to 10 an image, of 28 x 28 pixels" in said


def test_every_key_of_the_installed_version_has_its_place(idefics3: Path) -> None:
    sections = {
        "config": (idefics3_keys.IDEFICS3_WHOLE, upstream_config().to_dict()),
        "smolvlm": (idefics3_keys.IDEFICS3_WHOLE, upstream_config("smolvlm").to_dict()),
        "vision_config": (idefics3_keys.IDEFICS3_VISION, upstream_config().vision_config.to_dict()),
        "text_config": (idefics3_keys.IDEFICS3_TEXT, upstream_config().text_config.to_dict()),
        "processor": (idefics3_keys.IDEFICS3_PROCESSOR, reader_of(idefics3).to_dict()),
        "images": (idefics3_keys.IDEFICS3_IMAGES, transformers.Idefics3ImageProcessorPil().to_dict()),
        "images of SmolVLM": (idefics3_keys.IDEFICS3_IMAGES, transformers.SmolVLMImageProcessorPil().to_dict()),
    }
    for name, (section, values) in sections.items():
        assert values.keys() <= section.known, name
        places = [*section.obeyed, *section.irrelevant, *section.refused, *section.said]
        assert len(places) == len(set(places)), name
    package = Path(keys.__file__).parents[1]
    for section, _ in sections.values():
        assert all(key in (package / module).read_text() for key, module in section.obeyed.items())


# --- Out --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_import_then_export_is_bit_equal(tmp_path: Path, kind: str, idefics3: Path, smolvlm: Path) -> None:
    first = {"idefics3": idefics3, "smolvlm": smolvlm}[kind]
    model, processor = load(first)
    second = export(model, processor, tmp_path / "second", format=kind, verify=True)
    theirs, ours = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    parity = json.loads((second / "parity.json").read_text())
    assert parity["passed"] and parity["compared"] == {"conversations": 20, "shapes": 20}
    again, read = load(second)
    assert again.config == model.config and read.images == processor.images
    assert read.video == read.video | processor.video
    assert read.template.source == TEMPLATE
    written = json.loads((second / "processor_config.json").read_text())
    assert written["processor_class"] == f"{KINDS[kind]}Processor" and written["image_seq_len"] == 4
    assert ("video_processor" in written) == (kind == "smolvlm")
    if kind == "smolvlm":
        assert written["video_processor"]["video_sampling"] == VIDEO
    older = json.loads((second / "preprocessor_config.json").read_text())
    assert older | {"processor_class": None} == written["image_processor"] | {"processor_class": None}
    third = export(again, read, tmp_path / "third", format=kind)
    assert (third / "config.json").read_text() == (second / "config.json").read_text()
    assert (third / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


EXPORTED: dict[str, dict[str, Any]] = {
    "llama": {"family": "llama"},
    "tied": {"tied_embeddings": True},
    "mistral": {"family": "mistral", "sliding_window": 4096, "max_positions": 4096},
    "qwen2": {"family": "qwen2", "attention_bias": True},
}


@pytest.mark.parametrize("language", EXPORTED.values(), ids=EXPORTED)
def test_a_model_made_here_opens_in_transformers(tmp_path: Path, language: dict[str, Any]) -> None:
    config = own_config(**language)
    model, processor = tiny_model(config), own_processor(config)
    save(model, processor, tmp_path / "own")
    kept, read = load(tmp_path / "own")
    assert kept.config == config and read.images == processor.images
    command = ["export", "--model", str(tmp_path / "own"), str(tmp_path / "out"), "--format", "idefics3", "--verify"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    again, theirs = load(tmp_path / "out")
    assert again.config == config and theirs.images == processor.images and theirs.template == processor.template
    assert "Idefics3 architecture" in (tmp_path / "out" / "README.md").read_text()
    opened = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    assert type(opened).__name__ == "Idefics3Processor"
    text = json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]
    if config.language.family == "qwen2":
        stored = load_file(tmp_path / "out" / "model.safetensors")
        zeros = [tensor for name, tensor in stored.items() if name.endswith("o_proj.bias")]
        assert (text["model_type"], text["attention_bias"]) == ("llama", True)
        assert len(zeros) == 2 and not torch.stack(zeros).any()


REFUSALS: dict[str, tuple[Callable[[], VLMConfig], dict[str, Any], str]] = {
    "perceiver": (tiny_config, {}, r"by pixel_shuffle; it cannot hold connector\.kind=perceiver"),
    "qwen3": (lambda: own_config(family="qwen3", qk_norm=True), {}, r"language\.family is qwen3, but servers .* Llama"),
    "a window": (
        lambda: own_config(family="mistral", sliding_window=64, max_positions=128), {}, r"sliding_window is 64, less"
    ),
    "a class token": (lambda: own_config({"class_token": "dropped"}), {}, r"vision\.class_token is 'dropped'"),
    "own aspect ratio": (
        own_config, {"policy": "native", "longest": SIDE}, r"images\.policy is 'native'.*'tiles'"
    ),
    "smaller tiles": (own_config, {"shortest": 14}, r"images\.shortest is 14.*28.*as large as the encoder's own"),
    "seven tiles": (own_config, {"longest": 7 * SIDE}, r"images\.longest is 196, but Idefics3 has names for 6 tiles"),
}  # fmt: skip


@pytest.mark.parametrize(("config", "images", "message"), REFUSALS.values(), ids=REFUSALS)
def test_a_model_that_idefics3_cannot_hold_is_refused_with_the_reason(
    tmp_path: Path, config: Callable[[], VLMConfig], images: dict[str, Any], message: str
) -> None:
    made = config()
    processor = tiny_processor(made) if made == tiny_config() else own_processor(made, **images)
    with pytest.raises(CheckpointError, match=message):
        export(tiny_model(made), processor, tmp_path / "out", format="idefics3")
    assert not (tmp_path / "out").exists()


def test_a_grid_that_squares_do_not_fill_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"vision\.grid is 5 patches, but .* a multiple of connector\.side, 2"):
        write_idefics3(own_config({"grid": 5}))


# --- Trained ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_smolvlm_is_trained_and_exported_again(smolvlm: Path, tmp_path: Path, mode: str) -> None:
    source = {"kind": "messages", "path": "builtin:validation/conversations"}
    stage = {"name": "tune", "steps": 3, "pack": {"tokens": 1024, "patches": 4096}, "sources": [source]}
    stage |= {part: {"mode": mode} for part in ("vision", "language")}
    run = Run.parse({"name": "tuned", "init": {"model": str(smolvlm)}, "stages": [stage]})
    model, processor = build(run)
    opened = load(smolvlm)[1]
    assert processor.images == opened.images and processor.template.source == TEMPLATE
    assert processor.video == opened.video
    model.train()
    prepare_parts(model, run.stages[0], seed=0)
    spoken = Sample((*SAMPLES[0].segments, Turn("assistant"), Text("red", supervised=True)))
    batch = processor([spoken])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, 1e-2), []
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(batch).logits, batch.targets_T)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    if mode == "lora":
        saved = save_adapters(model, run.stages[0], tmp_path / "adapters", SMOLVLM)
        merge_adapters(model)
        adapted = load(smolvlm, adapter=saved[0])[0]
        for part in ("vision", "language"):
            name = f"{part}.layers.1.attention.query.weight"
            torch.testing.assert_close(adapted.get_parameter(name), model.get_parameter(name))
    folder = export(model.eval(), processor, tmp_path / "tuned", format="smolvlm", verify=True)
    theirs = transformers.SmolVLMForConditionalGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = theirs(**tensors(folder, spoken, add_generation_prompt=False)).logits[0]
        torch.testing.assert_close(model(batch).logits, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(load(folder)[0](batch).logits, model(batch).logits)


def test_the_recipe_tunes_a_smolvlm_through_the_command_line(smolvlm: Path, tmp_path: Path) -> None:
    """The shipped recipe, with a tiny model and the package's conversations in the place of the hub's and yours."""
    source = "stages.0.sources.0={kind: chat, path: 'builtin:validation/chat'}"
    given = [f"init.model={smolvlm}", source, "stages.0.steps=2", "stages.0.warmup=0"]
    given += ["stages.0.pack={tokens: 1024, patches: 4096, samples: 4}", "threads=1"]
    folder = tmp_path / "run"
    done = CliRunner().invoke(app, ["train", "smolvlm", *given, "--folder", str(folder)])
    assert done.exit_code == 0, done.output
    base = json.loads((folder / "adapters" / "tune" / "base" / "config.json").read_text())
    assert base["model_type"] == "smolvlm", "PEFT finds the model that it adapts"
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["export", "--model", str(folder), "--format", "smolvlm", "--verify", str(out)])
    assert done.exit_code == 0, done.output
    before, after = load(smolvlm), load(out)
    assert after[1].template.source == TEMPLATE and after[1].images == before[1].images
    assert after[1].video == after[1].video | before[1].video
    name = "language.layers.0.attention.query.weight"
    [adapters] = [one.parent for one in (folder / "adapters" / "tune").glob("*/adapter_config.json")]
    torch.testing.assert_close(load(adapters)[0].get_parameter(name), after[0].get_parameter(name))
    assert not torch.equal(before[0].get_parameter(name), after[0].get_parameter(name))


def test_the_cost_of_an_image_is_that_of_all_its_tiles(smolvlm: Path) -> None:
    costed = CostedModel.open(str(smolvlm))
    assert (costed.image.crops, costed.slots) == (10, 40)
    pixels = dict(rows([costed]))
    assert pixels["image, pixels"] == ["10 tiles of 28 x 28"] and pixels["visual tokens"] == ["40"]
