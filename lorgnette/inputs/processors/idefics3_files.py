"""Idefics3's and SmolVLM's processor files: tiles of images, and the slots of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorgnette.inputs.config import FILTERS, ImageConfig, SpecialTokens
from lorgnette.inputs.preprocessor import flag, resample_filter, whole
from lorgnette.inputs.tiles import WHOLE_IMAGE, tag_of
from lorgnette.inputs.tokenizer_files import named_tokens, read_json, read_settings
from lorgnette.untrusted import quoted

CLASS_PREFIXES = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}
"""By `model_type`: the name with which upstream's classes begin. The two compute the same."""
TILED_CLASSES = tuple(f"{kind}ImageProcessor{end}" for kind in CLASS_PREFIXES.values() for end in ("", "Fast", "Pil"))
SILENT_IMAGES: dict[str, Any] = {
    "size": {"longest_edge": 1456}, "max_image_size": {"longest_edge": 364}, "resample": 1, "do_image_splitting": True
}  # fmt: skip
"""Settings of the image processors where a file is silent."""
SILENT_VISION = {"image_size": 224, "patch_size": 32}
"""Sizes of the vision encoder where its `vision_config` is silent."""
VIDEO_FILE = "video_preprocessor_config.json"
SPECIAL_NAMES = {
    "around_image": "fake_image_token",
    "image": "image_token",
    "end_of_utterance": "end_of_utterance_token",
}
"""Our names of special tokens, and those by which a tokenizer of SmolVLM may call them."""


def is_tiled(settings: Mapping[str, Any]) -> bool:
    """Return whether image settings are those of a processor that cuts tiles."""
    return settings.get("image_processor_type") in TILED_CLASSES


def tiled_images(
    settings: Mapping[str, Any], vision: Mapping[str, Any], ours: Mapping[str, Any], where: str
) -> ImageConfig:
    """Sides and filter of images that are cut in tiles.

    vision: the `vision_config`. Raises: ValueError naming the key that cannot be obeyed, SettingsError.
    """
    settings = SILENT_IMAGES | {
        key: value for key, value in settings.items() if value is not None or key.startswith("do_")
    }
    if not flag(settings, "do_resize", True):
        raise ValueError("do_resize is false or null, but images are always sized here; set it to true")
    longest, side = (_longest_edge(settings, key) for key in ("size", "max_image_size"))
    patch = whole(vision, "patch_size") if "patch_size" in vision else int(ours.get("patch", 32))
    grid = whole(vision, "image_size") // patch if "image_size" in vision else int(ours.get("grid", side // patch))
    values = {**ours, "policy": "tiles", "longest": longest, "shortest": side, "patch": patch, "grid": grid}
    values |= {"split": flag(settings, "do_image_splitting", True), "resample": resample_filter(settings)}
    return ImageConfig.parse(values, where)


def _longest_edge(settings: Mapping[str, Any], key: str) -> int:
    group = settings[key]
    given = {name: value for name, value in group.items() if value is not None} if isinstance(group, Mapping) else {}
    if given.keys() != {"longest_edge"}:
        raise ValueError(f"{key} is {quoted(group, 80)}; expected longest_edge alone, which tiles are cut by")
    return whole(given, "longest_edge")


def tiled_slots(values: Mapping[str, Any], config: Mapping[str, Any], images: ImageConfig) -> dict[str, Any]:
    """Settings of the connector, by which a tile has its slots in the text.

    values: `processor_config.json`; config: `config.json`. Raises: ValueError for another number of slots than it has.
    """
    side, along = whole({"scale_factor": 2} | dict(config), "scale_factor"), images.shortest // images.patch
    given = whole({"image_seq_len": 169} | dict(values), "image_seq_len")
    if given != (along // side) ** 2:
        raise ValueError(
            f"image_seq_len is {given}, but a tile of {images.shortest} pixels, in patches of {images.patch} of which"
            f" {side} x {side} are joined, has {(along // side) ** 2} visual tokens"
        )
    return {"kind": "pixel_shuffle", "side": side}


def tiled_special(words: Path, kind: str) -> SpecialTokens:
    """Special tokens of a folder that lorgnette did not write: as its tokenizer names them, where SmolVLM's class asks.

    words: folder of the tokenizer; kind: `model_type`. Raises: ValueError for another tag than `<global-img>`.
    """
    if kind != "smolvlm":
        return SpecialTokens()
    named = named_tokens(read_settings(words))
    if named.get("global_image_token", tag_of(WHOLE_IMAGE)) != tag_of(WHOLE_IMAGE):
        raise ValueError(
            f"global_image_token is {quoted(named['global_image_token'], 60)}; known is {tag_of(WHOLE_IMAGE)}"
        )
    return SpecialTokens.parse({ours: named[theirs] for ours, theirs in SPECIAL_NAMES.items() if theirs in named})


def video_settings(folder: Path, values: Mapping[str, Any], pictures: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a SmolVLM's video processor, which are kept for export and not obeyed; empty where there are none.

    values: `processor_config.json`; pictures: the image settings, in which older files keep how frames are sampled.
    """
    found = values.get("video_processor")
    if not isinstance(found, dict):
        file = folder / VIDEO_FILE
        found = read_json(file) if file.is_file() else {}
    sampling = pictures.get("video_sampling")
    return {"video_sampling": sampling} | found if sampling else dict(found)


def idefics3_files(
    images: ImageConfig,
    slots: int,
    pixels: tuple[tuple[float, ...], tuple[float, ...]],
    kind: str = "idefics3",
    video: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`processor_config.json` that transformers opens as an Idefics3Processor or a SmolVLMProcessor.

    slots: visual tokens of a tile. pixels: mean and deviation. video: settings of SmolVLM's video processor.
    """
    name, mean, std = CLASS_PREFIXES[kind], *map(list, pixels)
    pictures = {
        "image_processor_type": f"{name}ImageProcessor",
        "do_convert_rgb": True,
        "do_image_splitting": images.split,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": mean,
        "image_std": std,
        "max_image_size": {"longest_edge": images.shortest},
        "resample": FILTERS.index(images.resample),
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": images.longest},
    }
    values = {"processor_class": f"{name}Processor", "image_seq_len": slots, "image_processor": pictures}
    if kind != "smolvlm":
        return values
    frames = {
        key: value for key, value in pictures.items() if key not in ("do_image_splitting", "image_processor_type")
    }
    frames |= {"video_processor_type": "SmolVLMVideoProcessor", "size": {"longest_edge": images.shortest}}
    return values | {"video_processor": frames | dict(video or {})}
