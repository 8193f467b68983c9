"""Image settings of a checkpoint folder: `processor_config.json`, or the older `preprocessor_config.json`, key by key.

Every key is obeyed as transformers' Idefics2ImageProcessor obeys it, or refused by its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorgnette.inputs.config import FILTERS, ImageConfig
from lorgnette.inputs.tokenizer import read_json
from lorgnette.untrusted import quoted

_CLASSES = ("Idefics2ImageProcessor", "Idefics2ImageProcessorFast", "Idefics2ImageProcessorPil")
"""Classes of transformers that size images as `ImageConfig` does."""
SIZE = {"shortest_edge": 378, "longest_edge": 980}
"""Sides of an image where the file is silent, as of transformers' class."""
CLIP_PIXELS: dict[str, Any] = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "do_center_crop": True,
}
"""Settings of CLIP's image processor where a file is silent."""
GREY = 255.0


def read_image_settings(folder: Path) -> dict[str, Any]:
    """Read the image settings of a folder; empty if it states none. Raises: CheckpointError, ValueError."""
    files = (folder / "processor_config.json", folder / "preprocessor_config.json")
    nested, old = (read_json(file) if file.is_file() else {} for file in files)
    settings = nested.get("image_processor") or old
    if not isinstance(settings, dict):
        raise ValueError(f"image_processor is a {type(settings).__name__}; expected a group of settings")
    return settings


def image_config(
    settings: Mapping[str, Any], vision: Mapping[str, Any], ours: Mapping[str, Any], where: str
) -> ImageConfig:
    """Sizes and filter from upstream's keys; what only lorgnette's own file says (`keep_aspect`, ...) is taken from it.

    vision: the `vision_config`. Raises: ValueError naming the key that cannot be obeyed, SettingsError.
    """
    kind = settings.get("image_processor_type", _CLASSES[0])
    if kind not in _CLASSES:
        raise ValueError(f"image_processor_type is {quoted(kind, 60)}; known is {_CLASSES[0]}")
    if not flag(settings, "do_resize", True):
        raise ValueError("do_resize is false or null, but images are always sized here; set it to true")
    patch = int(vision.get("patch_size", ours.get("patch", 14)))
    side = int(vision.get("image_size", patch * ours.get("grid", 70)))
    split = flag(settings, "do_image_splitting", False)
    values = {**ours, "split": split, "patch": patch, "grid": side // patch, "resample": resample_filter(settings)}
    return ImageConfig.parse(values | _sides(settings, ours), where)


def resample_filter(settings: Mapping[str, Any]) -> str:
    """The resampling filter by its name in Pillow, which upstream gives as Pillow's number."""
    number = settings.get("resample")
    number = 2 if number is None else number
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(FILTERS):
        known = ", ".join(f"{place} {name}" for place, name in enumerate(FILTERS))
        raise ValueError(f"resample is {quoted(number, 60)}; known are {known}")
    return FILTERS[number]


def _sides(settings: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The policy and the sides of images, from any form of `size` that upstream's class can obey."""
    size = settings.get("size")
    size = SIZE if size is None else size
    if isinstance(size, list | tuple) and len(size) == 2:
        size = {"height": size[0], "width": size[1]}
    given = {key: value for key, value in size.items() if value is not None} if isinstance(size, Mapping) else {}
    if given.keys() == {"shortest_edge", "longest_edge"}:
        shortest, longest = whole(given, "shortest_edge"), whole(given, "longest_edge")
        return {"policy": "native", "shortest": shortest, "longest": longest}
    if given.keys() == {"height", "width"} and given["height"] == given["width"]:
        longest = whole(given, "height")
        if ours.get("policy") == "naflex":
            return {"longest": longest, "shortest": longest}
        return {"policy": "square", "longest": longest, "shortest": min(longest, ours.get("shortest", longest))}
    raise ValueError(f"size {quoted(size, 80)} has neither shortest_edge and longest_edge nor equal height and width")


def square_sides(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Policy and sides of an encoder that takes squares, from its own processor's keys (CLIP's, DINOv2's, SigLIP's).

    Raises: ValueError naming a key by which images would have several sizes, or that is no size.
    """
    size, crops = settings["size"], flag(settings, "do_center_crop", False)
    size = dict(size) if isinstance(size, Mapping) else {"shortest_edge": size}
    if not flag(settings, "do_resize", True):
        raise ValueError("do_resize is false or null, but images are always sized here; set it to true")
    if size.keys() == {"shortest_edge"} and crops:
        crop_from = whole(size, "shortest_edge")
        cut = settings.get("crop_size", crop_from)
        cut = dict(cut) if isinstance(cut, Mapping) else {"height": cut, "width": cut}
        if cut.keys() == {"height", "width"} and cut["height"] == cut["width"]:
            side = whole(cut, "height")
            return {"policy": "square", "crop_from": crop_from, "longest": side, "shortest": side}
        raise ValueError(f"crop_size {quoted(settings.get('crop_size'), 80)} is no square; expected equal sides")
    if size.keys() == {"height", "width"} and size["height"] == size["width"] and not crops:
        side = whole(size, "height")
        return {"policy": "square", "crop_from": None, "longest": side, "shortest": side}
    raise ValueError(
        f"size {quoted(settings['size'], 80)} with do_center_crop {str(crops).lower()} makes no square; expected"
        " shortest_edge and a crop, or equal height and width without one"
    )


def naflex_sides(settings: Mapping[str, Any], patch: int) -> dict[str, Any]:
    """Policy and sides of SigLIP 2 NaFlex. Raises: ValueError for a number of patches that is no square."""
    most = whole({"max_num_patches": 256} | dict(settings), "max_num_patches")
    if math.isqrt(most) ** 2 != most:
        raise ValueError(f"max_num_patches is {most}; expected the square of a whole number")
    if (given := settings.get("patch_size", patch)) != patch:
        raise ValueError(f"patch_size is {quoted(given, 60)}, but the encoder's patches are of {patch} pixels")
    side = math.isqrt(most) * patch
    return {"policy": "naflex", "positions": "interpolated", "longest": side, "shortest": side}


def normalisation(settings: Mapping[str, Any], channels: int = 3) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation by which the encoder normalises pixels that are fractions of 255.

    Upstream multiplies a pixel by `rescale_factor`, then subtracts `image_mean` and divides by `image_std`; what it is
    told to leave out, or to multiply by another factor, is the same as another mean and deviation here.
    Raises: ValueError naming the key that is no number, or not as many numbers as there are channels.
    """
    mean, std = (_channels(settings, key, channels) for key in ("image_mean", "image_std"))
    if not flag(settings, "do_normalize", True):
        mean, std = (0.0,) * channels, (1.0,) * channels
    factor = settings.get("rescale_factor")
    factor = 1 / GREY if factor is None else _number(factor, "rescale_factor")
    if not flag(settings, "do_rescale", True):
        factor = 1.0
    if not factor:
        raise ValueError("rescale_factor is 0, which makes every image black")
    if abs(factor * GREY - 1) <= 1e-7:
        return mean, std
    return tuple(value / (factor * GREY) for value in mean), tuple(value / (factor * GREY) for value in std)


def _channels(settings: Mapping[str, Any], key: str, channels: int) -> tuple[float, ...]:
    value = settings.get(key)
    values = [0.5 if value is None else value] * channels if not isinstance(value, Sequence) else list(value)
    if len(values) != channels:
        raise ValueError(f"{key}: mean and std need a value for each of the {channels} channels")
    return tuple(_number(one, key) for one in values)


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} is {quoted(value, 60)}; expected a number")
    return float(value)


def flag(settings: Mapping[str, Any], key: str, default: bool) -> bool:
    """A switch; as upstream, null is off, and nothing is its default. Raises: ValueError for what is no switch."""
    value = settings.get(key, default)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{key} is {quoted(value, 60)}; expected true or false")
    return bool(value)


def whole(settings: Mapping[str, Any], key: str) -> int:
    """A whole number of at least 1. Raises: ValueError naming the key."""
    value = settings[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} is {quoted(value, 60)}; expected a whole number of at least 1")
    return value
