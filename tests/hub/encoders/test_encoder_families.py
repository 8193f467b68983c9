"""A published encoder of each family becomes a model: from its own files, on its own pictures, to its own states."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from lorgnette.errors import CheckpointError
from lorgnette.hub import keys
from lorgnette.hub.encoders.encoder_families import find_family
from lorgnette.hub.encoders.encoder_names import timm_rules
from lorgnette.hub.export import export, save
from lorgnette.hub.join import VisionBackbone, build, default_images
from lorgnette.hub.load import load
from lorgnette.infer.batch_invariance import examine
from lorgnette.infer.generate import generate
from lorgnette.infer.image_cache import ImageFeatureCache
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.config import ImageConfig
from lorgnette.model.config import VisionConfig
from lorgnette.model.configs.connector_config import LinearConfig, PerceiverConfig
from lorgnette.model.vision import build_encoder
from lorgnette.sample import Image, Sample, Text
from tests.hub.test_join import CONNECTOR, SIZES, randomise, write_decoder
from tests.hub.tiny import SAMPLES, picture

TEXT = SIZES | {"vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1}
PICTURES = [picture(70, 45), picture(45, 70, seed=1), picture(300, 20, seed=2), picture(56, 56, seed=3)]
TIMM = {"embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 1.5, "img_size": 56, "patch_size": 14}


def write_clip(folder: Path, whole: bool = False) -> Callable[[PIL.Image.Image], Tensor]:
    vision = SIZES | {"image_size": 56, "patch_size": 14, "hidden_act": "gelu"}
    if whole:
        model = transformers.CLIPModel(transformers.CLIPConfig(vision_config=vision, text_config=TEXT))
    else:
        model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**vision))
    processor = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    return saved(model, processor, folder, model.vision_model if whole else model)


def write_whole_clip(folder: Path) -> Callable[[PIL.Image.Image], Tensor]:
    return write_clip(folder, whole=True)


def write_dinov2(folder: Path) -> Callable[[PIL.Image.Image], Tensor]:
    config = transformers.Dinov2Config(**SIZES, mlp_ratio=2, image_size=70, patch_size=14)
    processor = BitImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56})
    processor.image_mean, processor.image_std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return saved(transformers.Dinov2Model(config), processor, folder)


def write_naflex(folder: Path) -> Callable[[PIL.Image.Image], Tensor]:
    config = transformers.Siglip2VisionConfig(**SIZES, patch_size=14, num_patches=16)
    return saved(
        transformers.Siglip2VisionModel(config), Siglip2ImageProcessorPil(patch_size=14, max_num_patches=25), folder
    )


def saved(model: Any, processor: Any, folder: Path, encoder: Any = None) -> Callable[[PIL.Image.Image], Tensor]:
    """Write a model with random weights and its image processor. Returns what they compute together."""
    randomise(model)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)

    @torch.no_grad()
    def states(image: PIL.Image.Image) -> Tensor:
        read = dict(processor(image, return_tensors="pt"))
        mask = read.get("pixel_attention_mask")
        out: Tensor = (encoder or model)(**read).last_hidden_state[0]
        return out if mask is None else out[mask[0].bool()]

    return states


def write_timm(folder: Path, prefix: str = "") -> Callable[[PIL.Image.Image], Tensor]:
    """As timm stores an EVA-02-CLIP-E; the states are those of tests/model/test_encoders.py."""
    from tests.model.test_encoders import eva_image

    config = VisionConfig(
        width=32, layers=2, heads=4, mlp_width=48, patch=14, grid=4, activation="gelu", class_token="kept",
        block_norm="after", key_bias=False,
    )  # fmt: skip
    whole = torch.nn.Module()
    whole.vision = build_encoder(config)
    for name, parameter in whole.named_parameters():
        generator = torch.Generator().manual_seed(len(name))
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2 + name.endswith("norm.weight")
    weights = {rule.theirs: rule.to_theirs(dict(whole.named_parameters())) for rule in timm_rules(config, "")}
    stored = {prefix + name: tensor.clone() for name, tensor in weights.items()}
    stored |= {f"{prefix}head.weight": torch.zeros(8, 32), f"{prefix}head.bias": torch.zeros(8)}
    folder.mkdir(parents=True)
    safetensors.torch.save_file(
        stored | ({"text.ln.weight": torch.ones(3)} if prefix else {}), folder / "model.safetensors"
    )
    values = {"architecture": "eva02_enormous_patch14_clip_224", "num_classes": 8, "model_args": TIMM}
    (folder / "config.json").write_text(json.dumps(values))
    processor = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})

    @torch.no_grad()
    def states(image: PIL.Image.Image) -> Tensor:
        return eva_image(weights, processor(image, return_tensors="pt")["pixel_values"], config)

    return states


def write_openclip(folder: Path) -> Callable[[PIL.Image.Image], Tensor]:
    return write_timm(folder, "visual.trunk.")


OPEN_CLIP_NAMES = {
    "embeddings.patch_embedding": "conv1", "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "positional_embedding", "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post", "encoder.layers": "transformer.resblocks", "layer_norm1": "ln_1",
    "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
}  # fmt: skip
OPEN_CLIP_TOWER = {"layers": 2, "width": 32, "head_width": 8, "mlp_ratio": 1.5, "patch_size": 14, "image_size": 56}
OPEN_CLIP_PIXELS = {"size": 56, "mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest"}


def write_open_clip(folder: Path) -> Callable[[PIL.Image.Image], Tensor]:
    """A CLIP of transformers under the names of OpenCLIP's own ViT, its text model beside it."""
    states = write_clip(folder)
    theirs = safetensors.torch.load_file(folder / "model.safetensors")
    stored = {"token_embedding.weight": torch.ones(3, 2), "logit_scale": torch.ones(()), "visual.proj": torch.ones(2)}
    stored |= {"positional_embedding": torch.ones(3, 2), "transformer.resblocks.0.ln_1.weight": torch.ones(2)}
    for name, tensor in theirs.items():
        for old, new in OPEN_CLIP_NAMES.items():
            name = name.replace(old, new)
        stored[f"visual.{name}"] = tensor
    for layer in range(2):
        for kind in ("weight", "bias"):
            pieces = [stored.pop(f"visual.transformer.resblocks.{layer}.self_attn.{one}_proj.{kind}") for one in "qkv"]
            stored[f"visual.transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(pieces)
    for file in folder.iterdir():
        file.unlink()
    safetensors.torch.save_file(stored, folder / "open_clip_model.safetensors")
    model = {"embed_dim": 2, "vision_cfg": OPEN_CLIP_TOWER, "text_cfg": {"width": 2}}
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    pixels = OPEN_CLIP_PIXELS | {"mean": mean, "std": std}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": pixels}))
    return states


@dataclass(frozen=True)
class Family:
    write: Callable[[Path], Callable[[PIL.Image.Image], Tensor]]
    takes: tuple[str, ...]
    """What its own class gives: its states are compared with these settings."""
    images: dict = field(default_factory=dict)


SQUARE = {"policy": "square", "longest": 56, "crop_from": 56, "resample": "bicubic", "grid": 4}
FAMILIES = {
    "CLIP": Family(write_clip, ("class_token=kept",), SQUARE),
    "CLIP with text": Family(write_whole_clip, ("class_token=kept",), SQUARE),
    "DINOv2": Family(write_dinov2, ("class_token=kept",), SQUARE | {"crop_from": 64, "grid": 5}),
    "NaFlex": Family(write_naflex, (), {"policy": "naflex", "longest": 70, "grid": 4, "resample": "bilinear"}),
    "timm": Family(write_timm, ("class_token=kept",), SQUARE),
    "OpenCLIP's names of timm's": Family(write_openclip, ("class_token=kept",), SQUARE),
    "OpenCLIP": Family(write_open_clip, ("class_token=kept",), SQUARE),
}
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def states_of(choices: tuple[str, ...]) -> VisionConfig | None:
    return VisionConfig.parse(dict(choice.split("=") for choice in choices)) if choices else None


@every_family
def test_its_pictures_become_the_states_that_its_own_class_gives(family: Family, tmp_path: Path) -> None:
    oracle = family.write(tmp_path / "vision")
    write_decoder(tmp_path / "language", "llama", {})
    model, processor = build(
        tmp_path / "vision", tmp_path / "language", connector=CONNECTOR, states=states_of(family.takes)
    )
    assert {name: getattr(processor.images, name) for name in family.images} == family.images
    batch = processor([Sample((Image(one), Text("x"))) for one in PICTURES])
    with torch.no_grad():
        ours = model.vision(batch.patches_PC, batch.patch_positions_P, batch.grids)
    theirs = torch.cat([oracle(one) for one in PICTURES])
    assert ours.shape == theirs.shape
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() <= 1e-5
    assert generate(model, processor, SAMPLES[:1], GenerationConfig(max_tokens=3))[0].tokens


@every_family
def test_a_joined_model_is_saved_and_opened_bit_for_bit(family: Family, tmp_path: Path) -> None:
    family.write(tmp_path / "vision")
    write_decoder(tmp_path / "language", "llama", {})
    model, processor = build(tmp_path / "vision", tmp_path / "language", connector=LinearConfig())
    assert model.config.vision.class_token in ("none", "dropped")
    save(model, processor, tmp_path / "saved")
    again, read = load(tmp_path / "saved")
    assert again.config == model.config and read.images == processor.images and read.mean == processor.mean
    stored = dict(again.named_parameters())
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.named_parameters())
    perceived, processor = build(tmp_path / "vision", tmp_path / "language", connector=CONNECTOR)
    with pytest.raises(CheckpointError, match=r"vision\.\w+ is .*, but for transformers it must be"):
        export(perceived, processor, tmp_path / "exported")


def test_the_states_that_llava_takes_are_one_choice(tmp_path: Path) -> None:
    write_clip(tmp_path / "vision")
    write_decoder(tmp_path / "language", "llama", {})
    states = VisionConfig.parse({"skipped_layers": 1})
    model, processor = build(tmp_path / "vision", tmp_path / "language", connector=LinearConfig(), states=states)
    assert len(model.vision.layers) == 1
    oracle = transformers.CLIPVisionModel.from_pretrained(tmp_path / "vision").eval()
    read = CLIPImageProcessorPil.from_pretrained(tmp_path / "vision")(PICTURES[0], return_tensors="pt")
    batch = processor([Sample((Image(PICTURES[0]), Text("x")))])
    with torch.no_grad():
        theirs = oracle(**read, output_hidden_states=True).hidden_states[-2][0, 1:]
        ours = model.vision(batch.patches_PC, batch.patch_positions_P, batch.grids)
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() <= 1e-5


def test_any_shape_is_one_choice_with_its_images(tmp_path: Path) -> None:
    write_clip(tmp_path / "vision")
    write_decoder(tmp_path / "language", "llama", {})
    images = ImageConfig(shortest=28, longest=112, grid=4, positions="interpolated", resample="bicubic")
    states = VisionConfig.parse({"position_rule": "bicubic"})
    model, processor = build(
        tmp_path / "vision", tmp_path / "language", connector=CONNECTOR, states=states, images=images
    )
    batch = processor([Sample((Image(picture(112, 30)), Text("x")))])
    assert batch.grids == ((2, 8),), "more columns than the table has"
    assert model(batch).logits.isfinite().all()
    opened = VisionBackbone.open(tmp_path / "vision")
    assert default_images(opened, states).positions == "interpolated"


def test_a_table_for_squares_is_resized_once_to_their_side(tmp_path: Path) -> None:
    oracle = write_clip(tmp_path / "vision")
    write_decoder(tmp_path / "language", "llama", {})
    images = ImageConfig(policy="square", shortest=84, longest=84, crop_from=84, grid=6, resample="bicubic")
    states = states_of(("class_token=kept",))
    model, processor = build(
        tmp_path / "vision", tmp_path / "language", connector=CONNECTOR, states=states, images=images
    )
    assert oracle and model.vision.position_embedding.weight.shape == (36, 32)
    larger = transformers.CLIPVisionModel.from_pretrained(tmp_path / "vision").eval()
    cut = CLIPImageProcessorPil(size={"shortest_edge": 84}, crop_size={"height": 84, "width": 84})
    batch = processor([Sample((Image(PICTURES[0]), Text("x")))])
    with torch.no_grad():
        pixels = cut(PICTURES[0], return_tensors="pt")["pixel_values"]
        theirs = larger(pixels, interpolate_pos_encoding=True).last_hidden_state[0]
        ours = model.vision(batch.patches_PC, batch.patch_positions_P, batch.grids)
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() <= 1e-5


def rewritten(folder: Path, **change: Any) -> Path:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | change))
    return folder


@pytest.mark.parametrize(
    ("write", "change", "said"),
    [
        (write_dinov2, {"use_swiglu_ffn": True}, "use_swiglu_ffn is True; .* no gated MLP"),
        (write_dinov2, {"qkv_bias": False}, "qkv_bias is False"),
        (write_dinov2, {"mlp_ratio": "wide"}, "mlp_ratio is wide; expected a number above 0"),
        (write_dinov2, {"model_type": "dinov2_with_registers"}, "model_type is 'dinov2_with_registers'"),
        (write_naflex, {"num_patches": 20}, "num_patches is 20; expected the square of a whole number"),
        (
            write_timm,
            {"architecture": "eva02_large_patch14_clip_224"},
            "architecture is eva02_large_patch14",
        ),
        (write_timm, {"model_args": TIMM | {"use_rot_pos_emb": True}}, "model_args.use_rot_pos_emb is True"),
        (write_timm, {"model_args": TIMM | {"use_post_norm": False}}, "model_args.use_post_norm is False"),
        (write_timm, {"model_args": 3}, "model_args is a int"),
        (write_clip, {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        (write_clip, {"num_hidden_layers": 3}, "lacks|asks for"),
    ],
)
def test_what_is_not_ours_is_refused_by_name(write: Callable, change: dict, said: str, tmp_path: Path) -> None:
    write(tmp_path / "vision")
    with pytest.raises(CheckpointError, match=said):
        VisionBackbone.open(rewritten(tmp_path / "vision", **change))


OPEN_CLIP_REFUSED: dict[str, tuple[dict, dict, dict, str]] = {
    "another of timm's": ({}, {"timm_model_name": "vit_base"}, {}, "timm_model_name is vit_base; of timm's lorgnette"),
    "heads": ({}, {"head_width": 7}, {}, "head_width is 7, of which a width of 32 is no multiple"),
    "an MLP": ({}, {"mlp_ratio": "wide"}, {}, "mlp_ratio is wide; expected a number above 0"),
    "layers scaled": ({}, {"ls_init_value": 0.1}, {}, "ls_init_value is 0.1: lorgnette's vision transformer does not"),
    "padded": ({}, {}, {"resize_mode": "longest"}, "resize_mode is longest; lorgnette crops"),
    "a filter": ({}, {}, {"interpolation": "random"}, "interpolation is random; known are"),
    "no side": ({}, {}, {"size": [56, 40]}, "size is .56, 40.; expected a side, or two equal ones"),
    "other layers": ({}, {"layers": 3}, {}, "lacks"),
    "another gate": ({"quick_gelu": True}, {}, {}, ""),
    "stretched": ({}, {}, {"resize_mode": "squash"}, ""),
}


@pytest.mark.parametrize(("model", "tower", "pixels", "said"), OPEN_CLIP_REFUSED.values(), ids=OPEN_CLIP_REFUSED)
def test_settings_of_open_clip_are_obeyed_or_refused(model, tower, pixels, said, tmp_path: Path) -> None:
    write_open_clip(tmp_path / "vision")
    file = tmp_path / "vision" / "open_clip_config.json"
    values = json.loads(file.read_text())
    values["model_cfg"] |= model
    values["model_cfg"]["vision_cfg"] |= tower
    values["preprocess_cfg"] |= pixels
    file.write_text(json.dumps(values))
    if not said:
        opened = VisionBackbone.open(tmp_path / "vision")
        assert opened.config.activation == ("quick_gelu" if model else "gelu")
        assert (default_images(opened).crop_from is None) == bool(pixels)
        return
    with pytest.raises(CheckpointError, match=said):
        VisionBackbone.open(tmp_path / "vision")


def test_a_tower_of_timms_is_known_by_its_name(tmp_path: Path) -> None:
    model = {"vision_cfg": {"timm_model_name": "eva02_enormous_patch14_clip_224", "image_size": 224}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    family, values = find_family(tmp_path)
    config = family.read(values, "here")
    assert (config.width, config.layers, config.mlp_width, config.block_norm) == (1792, 64, 15360, "after")


def test_a_class_token_cannot_be_made_or_denied(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    write_naflex(tmp_path / "naflex")
    with pytest.raises(CheckpointError, match="class_token is none, but of this CLIP it is kept or dropped"):
        VisionBackbone.open(tmp_path / "clip").joined(VisionConfig.parse({"class_token": "none"}), 4)
    with pytest.raises(CheckpointError, match="class_token is kept, but of this SigLIP 2 NaFlex it is none"):
        VisionBackbone.open(tmp_path / "naflex").joined(VisionConfig.parse({"class_token": "kept"}), 4)


def test_a_processor_without_squares_is_refused_where_images_are_not_given(tmp_path: Path) -> None:
    write_clip(tmp_path / "vision")
    write_decoder(tmp_path / "language", "llama", {})
    file = tmp_path / "vision" / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_center_crop": False}))
    with pytest.raises(CheckpointError, match="do_center_crop false makes no square"):
        build(tmp_path / "vision", tmp_path / "language", connector=PerceiverConfig())


WRITTEN = [
    (keys.VISION, [transformers.CLIPVisionConfig()]),
    (keys.NAFLEX, [transformers.Siglip2VisionConfig()]),
    (keys.DINOV2, [transformers.Dinov2Config()]),
    (keys.SIGLIP, [transformers.CLIPConfig(), transformers.Siglip2Config()]),
    (keys.IMAGES, [CLIPImageProcessorPil(), BitImageProcessorPil(), Siglip2ImageProcessorPil()]),
]


@pytest.mark.parametrize(("section", "given"), WRITTEN, ids=["CLIP", "NaFlex", "DINOv2", "with text", "images"])
def test_every_key_that_their_classes_write_has_its_place(section: keys.Section, given: list) -> None:
    assert {key for one in given for key in one.to_dict()} <= section.known


@pytest.mark.parametrize("name", ["CLIP", "NaFlex", "DINOv2"])
@pytest.mark.parametrize("split", [False, True])
def test_answers_depend_neither_on_the_batch_nor_on_kept_visual_tokens(name: str, split: bool, tmp_path: Path) -> None:
    FAMILIES[name].write(tmp_path / "vision")
    write_decoder(tmp_path / "language", "llama", {})
    states = states_of(FAMILIES[name].takes)
    model, processor = build(tmp_path / "vision", tmp_path / "language", connector=CONNECTOR, states=states)
    found = examine(model, processor, PICTURES[:2])
    assert found.passed, found.verdict()
    kept, settings = ImageFeatureCache(model, processor, split=split), GenerationConfig(max_tokens=4)
    expected = generate(model, processor, SAMPLES, settings, split=split)
    for _ in range(2):
        assert generate(model, processor, SAMPLES, settings, image_cache=kept) == expected


def test_the_pictures_that_timm_states_are_obeyed_or_refused(tmp_path: Path) -> None:
    write_timm(tmp_path / "vision")
    given = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "input_size": [3, 56, 56], "crop_pct": 0.9}
    opened = VisionBackbone.open(rewritten(tmp_path / "vision", pretrained_cfg=given | {"interpolation": "lanczos"}))
    assert (opened.config.mean, opened.config.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    images = default_images(opened)
    assert (images.policy, images.longest, images.crop_from, images.resample) == ("square", 56, 62, "lanczos")
    for wrong, said in (
        ({"interpolation": "random"}, "interpolation is random"),
        ({"input_size": [3, 56, 40]}, "input_size is .3, 56, 40.; expected channels and two equal sides"),
        ({"crop_pct": 2}, "crop_pct is 2; expected a number from 0.1 to 1"),
        ({"mean": [0.1]}, "image_mean"),
    ):
        with pytest.raises(CheckpointError, match=said):
            VisionBackbone.open(rewritten(tmp_path / "vision", pretrained_cfg=given | wrong))
