"""LLaVA's processor files: the slots of an image, and squares as the vision tower's own image processor makes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorgnette.inputs.config import FILTERS, ImageConfig, SpecialTokens
from lorgnette.inputs.preprocessor import CLIP_PIXELS, resample_filter, square_sides
from lorgnette.inputs.tokenizer_files import named_tokens, read_settings
from lorgnette.untrusted import quoted

IMAGE_CLASSES: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}} | CLIP_PIXELS,
    "SiglipImageProcessor": {"size": {"height": 224, "width": 224}, "resample": 3},
}
"""Image processors of towers, with their defaults for keys that a folder leaves out."""
STRATEGIES = {"default": 1, "full": 0}
"""`vision_feature_select_strategy`: states before those of patches that are left out."""


def llava_special(words: Path, values: Mapping[str, Any]) -> SpecialTokens:
    """Special tokens of a LLaVA that lorgnette did not write: its image token, and the end of sequence after an answer.

    words: folder of the tokenizer. values: `processor_config.json`. Raises: ValueError if there is no end of sequence.
    """
    named = named_tokens(read_settings(words))
    if "eos_token" not in named:
        raise ValueError("tokenizer_config.json names no eos_token, which ends an answer of LLaVA's")
    image = named.get("image_token") or values.get("image_token") or SpecialTokens().image
    return SpecialTokens(around_image="", image=image, end_of_utterance=named["eos_token"])


def llava_pixels(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Image settings of a folder with the defaults of their class. Raises: ValueError for a class that is not read."""
    given = settings.get("image_processor_type", "CLIPImageProcessor")
    name = str(given).removesuffix("Fast").removesuffix("Pil")
    if name not in IMAGE_CLASSES:
        raise ValueError(
            f"image_processor_type is {quoted(given, 60)}; for a LLaVA known are {', '.join(IMAGE_CLASSES)}"
        )
    return IMAGE_CLASSES[name] | {
        key: value for key, value in settings.items() if value is not None or key.startswith("do_")
    }


def llava_images(
    settings: Mapping[str, Any], vision: Mapping[str, Any], ours: Mapping[str, Any], where: str
) -> ImageConfig:
    """Sizes and filter of images: squares of the tower's own size, stretched or cut from the centre.

    vision: the `vision_config`. Raises: ValueError naming the key that cannot be obeyed, SettingsError.
    """
    patch, side = int(vision.get("patch_size", 14)), int(vision.get("image_size", 336))
    sides = square_sides(settings)
    if sides["longest"] != side:
        raise ValueError(f"images of {sides['longest']} pixels, but image_size of the vision tower is {side}")
    if side % patch:
        raise ValueError(f"image_size {side} is not a multiple of the tower's patch_size {patch}; a rest would be cut")
    values = {**ours, "split": False, "patch": patch, "grid": side // patch, "resample": resample_filter(settings)}
    return ImageConfig.parse(values | sides, where)


def check_slots(values: Mapping[str, Any], config: Mapping[str, Any], patch: int) -> None:
    """Hold `processor_config.json` to the model: slots that are not the tower's patches would be refused by upstream.

    config: `config.json`. Raises: ValueError naming the key.
    """
    key = "vision_feature_select_strategy"
    wanted = config.get(key, "default")
    for name, expected in (
        ("patch_size", patch),
        (key, wanted),
        ("num_additional_image_tokens", STRATEGIES.get(wanted, 0)),
    ):
        if (given := values.get(name)) not in (None, expected):
            raise ValueError(
                f"{name} of processor_config.json is {quoted(given, 60)}, but by config.json it is {expected!r}"
            )


def llava_files(
    images: ImageConfig, special: SpecialTokens, mean: tuple[float, ...], std: tuple[float, ...], strategy: str
) -> dict[str, Any]:
    """`processor_config.json` that transformers opens as a LlavaProcessor, with the image settings inside."""
    side = {"height": images.longest, "width": images.longest}
    sized: dict[str, Any] = {"image_processor_type": "SiglipImageProcessor", "size": side}
    if images.crop_from is not None:
        sized = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": images.crop_from}}
        sized |= {"crop_size": side, "do_center_crop": True}
    return {
        "processor_class": "LlavaProcessor",
        "image_token": special.image,
        "num_additional_image_tokens": STRATEGIES[strategy],
        "patch_size": images.patch,
        "vision_feature_select_strategy": strategy,
        "image_processor": sized | pixel_settings(images, mean, std),
    }


def pixel_settings(images: ImageConfig, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    """Settings of an image processor of transformers that resizes, rescales and normalises."""
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(mean),
        "image_std": list(std),
        "resample": FILTERS.index(images.resample),
        "rescale_factor": 1 / 255,
    }
