"""Idefics1's processor files: images stretched to the tower's own size, and the tokens around them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorgnette.inputs.config import ImageConfig, SpecialTokens
from lorgnette.inputs.preprocessor import CLIP_PIXELS
from lorgnette.inputs.processors.llava_files import llava_images, pixel_settings
from lorgnette.inputs.tokenizer_files import named_tokens, read_backend, read_settings
from lorgnette.untrusted import quoted

VISION_OF_IDEFICS1: dict[str, Any] = {"image_size": 224, "patch_size": 14, "num_hidden_layers": 32} | {
    "num_attention_heads": 16, "intermediate_size": 5120, "hidden_act": "gelu", "layer_norm_eps": 1e-5
}  # fmt: skip
"""Settings of the vision tower where a config.json is silent, as of transformers' class."""
IMAGE_NAME = "<image>"
"""The only name of the image token in transformers' class."""
IMAGE_CLASS = "IdeficsImageProcessor"


def idefics1_special(words: Path) -> SpecialTokens:
    """Special tokens of an Idefics1 that lorgnette did not write.

    The base model has no token for the end of an utterance: its answers end with the sequence.
    words: folder of the tokenizer. Raises: ValueError if there is neither.
    """
    special = SpecialTokens(space_after_image=False)
    if read_backend(words / "tokenizer.json").token_to_id(special.end_of_utterance) is not None:
        return special
    named = named_tokens(read_settings(words))
    if "eos_token" not in named:
        raise ValueError(f"the tokenizer has neither {special.end_of_utterance} nor an eos_token to end an answer")
    return special.model_copy(update={"end_of_utterance": named["eos_token"]})


def idefics1_pixels(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Image settings of a folder with the defaults of their class. Raises: ValueError for a class that is not read."""
    given = settings.get("image_processor_type", IMAGE_CLASS)
    if str(given).removesuffix("Fast").removesuffix("Pil") != IMAGE_CLASS:
        raise ValueError(f"image_processor_type is {quoted(given, 60)}; for an Idefics1 known is {IMAGE_CLASS}")
    side = settings.get("image_size") or 224
    defaults = CLIP_PIXELS | {"size": {"height": side, "width": side}}
    said = {key: value for key, value in settings.items() if value is not None or key.startswith("do_")}
    if said.get("image_size") is not None:  # its class lets it overrule `size`
        said["size"] = defaults["size"]
    return defaults | said | {"do_center_crop": False}


def idefics1_images(
    settings: Mapping[str, Any], vision: Mapping[str, Any], ours: Mapping[str, Any], where: str
) -> ImageConfig:
    """Sizes and filter of images: squares of the tower's own size, stretched.

    vision: the `vision_config`. Raises: ValueError naming the key that cannot be obeyed, SettingsError.
    """
    return llava_images(settings, VISION_OF_IDEFICS1 | dict(vision), ours, where)


def idefics1_slots(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the slots of an image: one. config: `config.json`."""
    if not config.get("use_resampler"):
        return {"kind": "one_slot", "connector": {"kind": "identity", "class_tokens": 1}}
    latents = (config.get("perceiver_config") or {}).get("resampler_n_latents", 64)
    return {"kind": "one_slot", "connector": {"kind": "perceiver", "latents": latents}}


def idefics1_files(images: ImageConfig, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    """`processor_config.json` that transformers opens as an IdeficsProcessor, with the image settings inside."""
    return {
        "processor_class": "IdeficsProcessor",
        "image_processor": {
            "image_processor_type": IMAGE_CLASS,
            "size": {"height": images.longest, "width": images.longest},
            **pixel_settings(images, mean, std),
        },
    }
