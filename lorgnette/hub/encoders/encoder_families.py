"""Families of published vision encoders: what their files say, and the pictures that each was made for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorgnette.errors import CheckpointError
from lorgnette.hub import keys
from lorgnette.hub.config_map import read_vision
from lorgnette.hub.decoders.setting_rows import Json, group_of
from lorgnette.hub.encoders.encoder_names import (
    dinov2_rules,
    naflex_rules,
    open_clip_rules,
    siglip_rules,
    timm_rules,
)
from lorgnette.hub.encoders.open_clip import CLIP_FILE, open_clip_pixels, open_clip_tower, read_open_clip, timm_name
from lorgnette.hub.source import OPEN_CLIP
from lorgnette.hub.weight_map import Rule
from lorgnette.inputs.config import FILTERS, ImageConfig
from lorgnette.inputs.preprocessor import CLIP_PIXELS, naflex_sides, read_image_settings, resample_filter, square_sides
from lorgnette.inputs.tokenizer import read_json
from lorgnette.model.configs.vision_config import VisionConfig
from lorgnette.untrusted import quoted

SHORTEST = 27
"""Patches along the shortest side of a SigLIP's image: SO400M's own 378 pixels (paper §3.2)."""
GRID = 70
"""Side of the position table of a SigLIP that is given images of any shape."""
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
EVA: dict[str, Json] = {
    "eva02_enormous_patch14_clip_224": {
        "embed_dim": 1792, "depth": 64, "num_heads": 16, "mlp_ratio": 15360 / 1792, "patch_size": 14, "img_size": 224,
    },
}  # fmt: skip
"""Architectures of timm that are read, with their sizes: EVA-02-CLIP-E/14 and, of another text model, E/14+."""


@dataclass(frozen=True)
class EncoderFamily:
    """One family: how its files are read."""

    name: str
    read: Callable[[Json, str], VisionConfig]
    """Settings from its config.json and where that is. Raises: CheckpointError for what is not ours."""
    rules: Callable[[VisionConfig, str], list[Rule]]
    section: keys.Section
    """Keys of its own config.json."""
    pixels: Mapping[str, Any]
    """Defaults of its image processor, for keys that a folder leaves out."""
    ignored: re.Pattern[str] = re.compile("$^")
    """Names of tensors of its class that the encoder does not have."""
    stated: Callable[[Json, str], Json] = lambda values, where: {}
    """Settings of images, under transformers' keys, that its own settings file says. Raises: ValueError."""
    file: str = "config.json"
    """Its settings file."""
    prefixes: tuple[str, ...] = ("vision_model.", "")
    """What may stand before the names of its tensors."""
    antialias: bool = False
    """Its own code resizes tables of positions with antialiasing."""


def _read_siglip(values: Json, where: str) -> VisionConfig:
    return read_vision(values, where)


def _read_clip(values: Json, where: str) -> VisionConfig:
    return read_vision(values, where, "clip")


def _read_naflex(values: Json, where: str) -> VisionConfig:
    patches, patch = values.get("num_patches", 256), values.get("patch_size", 16)
    if not isinstance(patches, int) or not isinstance(patch, int) or patches < 1 or math.isqrt(patches) ** 2 != patches:
        raise CheckpointError(f"{where}: num_patches is {quoted(patches, 60)}; expected the square of a whole number")
    return read_vision(values | {"image_size": math.isqrt(patches) * patch}, where, "siglip2")


def _read_dinov2(values: Json, where: str) -> VisionConfig:
    for key, known, why in (
        ("use_swiglu_ffn", False, "lorgnette's vision transformer has no gated MLP, as DINOv2 giant's"),
        ("qkv_bias", True, "lorgnette's queries and values have biases"),
    ):
        if (given := values.get(key)) not in (None, known):
            raise CheckpointError(f"{where}: {key} is {quoted(given, 60)}; {why}")
    return read_vision(_with_mlp(values, "mlp_ratio", 4, values.get("hidden_size", 768), where), where, "dinov2")


def _read_timm(values: Json, where: str) -> VisionConfig:
    sizes = EVA[values["architecture"]] | group_of(values, "model_args", where)
    known = {*EVA["eva02_enormous_patch14_clip_224"], *TIMM_FIXED, "num_classes", "class_token"}
    for key, value in sizes.items():
        if key not in known or (key in TIMM_FIXED and value != TIMM_FIXED[key]):
            raise CheckpointError(
                f"{where}: model_args.{quoted(key, 40)} is {quoted(value, 60)}; of timm's Eva lorgnette reads the"
                " EVA-02-CLIP-E, with norms behind the branches and positions in a table alone"
            )
    named = {"embed_dim": "hidden_size", "depth": "num_hidden_layers", "num_heads": "num_attention_heads"}
    named |= {"img_size": "image_size", "patch_size": "patch_size"}
    read = {theirs: sizes[key] for key, theirs in named.items()}
    return read_vision(_with_mlp(sizes | read, "mlp_ratio", 4, sizes["embed_dim"], where), where, "timm")


def _timm_pixels(values: Json, where: str) -> Json:
    """Settings of timm's `pretrained_cfg` under transformers' keys: the short side is resized to side / `crop_pct`.

    Raises: ValueError naming a key that cannot be obeyed.
    """
    given = group_of(values, "pretrained_cfg", where)
    keys_there = {"mean": "image_mean", "std": "image_std"}
    read: Json = {theirs: given[key] for key, theirs in keys_there.items() if given.get(key) is not None}
    if (named := given.get("interpolation")) is not None:
        if named not in FILTERS:
            raise ValueError(f"pretrained_cfg.interpolation is {quoted(named, 60)}; known are {', '.join(FILTERS)}")
        read["resample"] = FILTERS.index(named)
    if (size := given.get("input_size")) is not None:
        share = given.get("crop_pct") or 1.0
        if not isinstance(size, list) or not all(isinstance(one, int) for one in size) or size[1:] != size[-1:] * 2:
            raise ValueError(f"pretrained_cfg.input_size is {quoted(size, 60)}; expected channels and two equal sides")
        if not isinstance(share, int | float) or not 0.1 <= share <= 1:
            raise ValueError(f"pretrained_cfg.crop_pct is {quoted(share, 60)}; expected a number from 0.1 to 1")
        read |= {"size": {"shortest_edge": math.floor(size[-1] / share)}, "crop_size": size[-1]}
    return read


WIDEST_MLP = 1e4
"""Hidden width of an MLP over its own beyond which a file is damaged."""
TIMM_FIXED: Json = {"use_post_norm": True, "global_pool": "token", "qkv_fused": True, "swiglu_mlp": False}


def _with_mlp(values: Json, key: str, silent: float, width: Any, where: str) -> Json:
    """The values with the hidden width of an MLP, which is given as a multiple of the width."""
    ratio = values.get(key, silent)
    is_number = isinstance(ratio, int | float) and not isinstance(ratio, bool) and 0 < ratio < WIDEST_MLP
    if not is_number or not isinstance(width, int):
        raise CheckpointError(f"{where}: {key} is {quoted(ratio, 60)}; expected a number above 0")
    return values | {"intermediate_size": int(width * ratio)}


SIGLIP_FAMILY = EncoderFamily("SigLIP", _read_siglip, siglip_rules, keys.VISION, {})
CLIP_FAMILY = EncoderFamily("CLIP", _read_clip, siglip_rules, keys.VISION, CLIP_PIXELS)
NAFLEX_FAMILY = EncoderFamily("SigLIP 2 NaFlex", _read_naflex, naflex_rules, keys.NAFLEX, {"resample": 2})
DINOV2_FAMILY = EncoderFamily(
    "DINOv2",
    _read_dinov2,
    dinov2_rules,
    keys.DINOV2,
    CLIP_PIXELS | IMAGENET,
    re.compile(r"(^|\.)embeddings\.mask_token$|^classifier\."),
)
TIMM_FAMILY = EncoderFamily(
    "EVA-02-CLIP-E of timm",
    _read_timm,
    timm_rules,
    keys.TIMM,
    CLIP_PIXELS,
    re.compile(r"(^|\.)head\.|^text\.|^logit_"),
    _timm_pixels,
    antialias=True,
)
OPEN_CLIP_FAMILY = EncoderFamily(
    "CLIP of OpenCLIP",
    open_clip_tower,
    open_clip_rules,
    CLIP_FILE,
    CLIP_PIXELS,
    re.compile(r"^(?!visual\.)|^visual\.proj$"),
    open_clip_pixels,
    OPEN_CLIP,
    ("visual.",),
    antialias=True,
)
OPEN_CLIP_TIMM_FAMILY = replace(
    TIMM_FAMILY,
    read=lambda values, where: _read_timm({"architecture": timm_name(values)}, where),
    ignored=re.compile(r"^(?!visual\.)|(^|\.)head\."),
    stated=open_clip_pixels,
    file=OPEN_CLIP,
    prefixes=("visual.trunk.",),
)
ALONE = {
    "siglip_vision_model": SIGLIP_FAMILY,
    "clip_vision_model": CLIP_FAMILY,
    "siglip2_vision_model": NAFLEX_FAMILY,
    "dinov2": DINOV2_FAMILY,
}
"""By `model_type`, of an encoder by itself."""
WITH_TEXT = {"siglip": SIGLIP_FAMILY, "clip": CLIP_FAMILY, "siglip2": NAFLEX_FAMILY}
"""By `model_type`, of models that have a text model too."""


def find_family(folder: Path) -> tuple[EncoderFamily, Json]:
    """The family of the encoder in a folder, and its own settings in config.json.

    Raises: CheckpointError if it is of no family that is read, or a key of it is not ours.
    """
    file = folder / "config.json"
    if not file.is_file():
        return _of_open_clip(folder / OPEN_CLIP)
    values = read_json(file)
    kind, architecture = values.get("model_type"), values.get("architecture")
    if kind is None and isinstance(architecture, str):
        if architecture not in EVA:
            raise CheckpointError(
                f"{file}: architecture is {quoted(architecture, 60)}; of timm's lorgnette reads {', '.join(EVA)}"
            )
        keys.check_keys(folder, keys.TIMM)
        return TIMM_FAMILY, values
    inner = values if kind in ALONE else values.get("vision_config")
    family = (ALONE | WITH_TEXT).get(kind) if isinstance(kind, str) else None
    if family is None or not isinstance(inner, dict):
        raise CheckpointError(
            f"{file}: model_type is {kind!r:.60}; as vision encoder lorgnette reads a siglip, siglip2, clip or dinov2,"
            " and EVA-02-CLIP-E of timm"
        )
    keys.check_keys(folder, family.section if inner is values else keys.SIGLIP)
    keys.check_section(family.section, inner, str(file))
    return family, inner


def _of_open_clip(file: Path) -> tuple[EncoderFamily, Json]:
    values = read_open_clip(file)
    named = timm_name(values)
    if named is None:
        return OPEN_CLIP_FAMILY, values
    if not isinstance(named, str) or named not in EVA:
        raise CheckpointError(
            f"{file}: timm_model_name is {quoted(named, 60)}; of timm's lorgnette reads {', '.join(EVA)}"
        )
    return OPEN_CLIP_TIMM_FAMILY, values


def image_settings(folder: Path, family: EncoderFamily, values: Json) -> Json:
    """Settings of the family's image processor in the folder, its defaults where the folder is silent."""
    return {**family.pixels, **family.stated(values, str(folder / family.file)), **read_image_settings(folder)}


def images_of(family: EncoderFamily, config: VisionConfig, pixels: Mapping[str, Any]) -> ImageConfig:
    """Settings of images for an encoder of a family: SigLIP's on a grid of 70 x 70, others as their own processor.

    config: with the side of its own table. pixels: settings of its image processor.
    Raises: ValueError naming a key that cannot be obeyed.
    """
    patch = config.patch
    values: Json = {"patch": patch, "grid": config.grid, "resample": resample_filter(pixels)}
    if family is SIGLIP_FAMILY:
        values = {"patch": patch, "grid": GRID, "shortest": patch * SHORTEST, "longest": patch * GRID}
    elif family is NAFLEX_FAMILY:
        values |= naflex_sides(pixels, patch)
    else:
        sides = square_sides({"size": {"shortest_edge": config.grid * patch}} | dict(pixels))
        values |= sides | {"grid": sides["longest"] // patch}
    if config.interpolates:
        values |= {"positions": "interpolated", "grid": config.grid}
    return ImageConfig.parse(values)
