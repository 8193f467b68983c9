"""Folders of OpenCLIP: the image tower of `open_clip_config.json`, its own ViT or, by name, one of timm's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorgnette.errors import CheckpointError
from lorgnette.hub import keys
from lorgnette.hub.config_map import read_vision
from lorgnette.hub.decoders.setting_rows import Json, group_of, whole_number
from lorgnette.inputs.config import FILTERS
from lorgnette.inputs.tokenizer import read_json
from lorgnette.model.configs.vision_config import VisionConfig
from lorgnette.untrusted import quoted

_HERE = "hub/encoders/open_clip.py"
_POOLED, _TEXT = "of the one vector that it pools an image to", "its text model is not used"
_OTHER = "lorgnette's vision transformer does not compute this"
CLIP_FILE = keys.Section(obeyed=keys.keys("model_cfg preprocess_cfg", _HERE))
"""Keys of open_clip_config.json."""
CLIP_MODEL = keys.Section(
    obeyed=keys.keys("vision_cfg quick_gelu", _HERE),
    irrelevant=keys.keys("embed_dim init_logit_scale init_logit_bias nonscalar_logit_scale", _POOLED)
    | keys.keys("text_cfg custom_text multimodal_cfg hf_model_name hf_tokenizer_name", _TEXT)
    | keys.keys("cast_dtype", keys.RUNNING),
)
CLIP_TOWER = keys.Section(
    obeyed=keys.keys("layers width head_width mlp_ratio patch_size image_size timm_model_name", _HERE),
    irrelevant=keys.keys("pool_type global_average_pool output_tokens final_ln_after_pool", _POOLED)
    | keys.keys("timm_pool timm_proj timm_proj_bias timm_use_rope", _POOLED)
    | keys.keys("patch_dropout timm_drop timm_drop_path timm_model_pretrained", keys.TRAINING),
    refused=keys.unless(
        _OTHER, ls_init_value=None, no_ln_pre=False, attentional_pool=False, pos_embed_type="learnable",
        input_patchnorm=False, block_type=None, qk_norm=False, scaled_cosine_attn=False, norm_kwargs=(None, {}),
        act_kwargs=(None, {}),
    ),
)  # fmt: skip
CLIP_IMAGES = keys.Section(
    obeyed=keys.keys("size mean std interpolation resize_mode", _HERE), irrelevant={"mode": "RGB"}
)


def timm_name(values: Json) -> Any:
    """The name of timm's model that its tower is, or None."""
    return values["model_cfg"]["vision_cfg"].get("timm_model_name")


def read_open_clip(file: Path) -> Json:
    """The values of an open_clip_config.json. Raises: CheckpointError for a key that is not ours."""
    values = read_json(file)
    model = group_of(values, "model_cfg", str(file))
    tower = group_of(model, "vision_cfg", f"{file}: model_cfg")
    keys.check_section(CLIP_FILE, values, str(file))
    keys.check_section(CLIP_MODEL, model, f"{file}: model_cfg")
    keys.check_section(CLIP_TOWER, tower, f"{file}: model_cfg.vision_cfg")
    keys.check_section(CLIP_IMAGES, group_of(values, "preprocess_cfg", str(file)), f"{file}: preprocess_cfg")
    return values | {"model_cfg": model | {"vision_cfg": tower}}


def open_clip_tower(values: Json, where: str) -> VisionConfig:
    """Settings of OpenCLIP's own ViT, which is CLIP's. Raises: CheckpointError for what is no size."""
    model = group_of(values, "model_cfg", where)
    tower, here = group_of(model, "vision_cfg", where), f"{where}: model_cfg.vision_cfg"
    width, head = whole_number(tower, "width", here, 768), whole_number(tower, "head_width", here, 64)
    ratio = tower.get("mlp_ratio", 4.0)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= width:
        raise CheckpointError(f"{here}: mlp_ratio is {quoted(ratio, 60)}; expected a number above 0")
    if width % head:
        raise CheckpointError(f"{here}: head_width is {head}, of which a width of {width} is no multiple")
    sizes = {
        "hidden_size": width,
        "num_hidden_layers": whole_number(tower, "layers", here, 12),
        "num_attention_heads": width // head,
        "intermediate_size": int(width * ratio),
        "patch_size": whole_number(tower, "patch_size", here, 16),
        "image_size": whole_number(tower, "image_size", here, 224),
        "hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu",
    }
    return read_vision(sizes, here, "clip")


def open_clip_pixels(values: Json, where: str) -> Json:
    """Settings of its images under transformers' keys. Raises: ValueError naming a key that cannot be obeyed."""
    given = group_of(values, "preprocess_cfg", where)
    tower = group_of(group_of(values, "model_cfg", where), "vision_cfg", where)
    read: Json = {theirs: given[key] for key, theirs in (("mean", "image_mean"), ("std", "image_std")) if key in given}
    named = given.get("interpolation", "bicubic")
    if named not in FILTERS:
        raise ValueError(f"preprocess_cfg.interpolation is {quoted(named, 60)}; known are {', '.join(FILTERS)}")
    side: Any = given.get("size", tower.get("image_size", 224))
    side = side[0] if isinstance(side, list) and side and side == side[:1] * 2 else side
    if isinstance(side, bool) or not isinstance(side, int):
        raise ValueError(f"preprocess_cfg.size is {quoted(side, 60)}; expected a side, or two equal ones")
    mode = given.get("resize_mode", "shortest")
    if mode not in ("shortest", "squash"):
        raise ValueError(f"preprocess_cfg.resize_mode is {quoted(mode, 60)}; lorgnette crops (shortest) or stretches")
    square = {"height": side, "width": side}
    cut = {"size": {"shortest_edge": side}, "crop_size": square, "do_center_crop": True}
    stretched = {"size": square, "do_center_crop": False}
    return read | {"resample": FILTERS.index(named)} | (cut if mode == "shortest" else stretched)
