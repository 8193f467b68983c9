"""Parity of a LLaVA: outputs of transformers' own class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import PIL.Image
import torch
from torch import Tensor


def their_llava_parts(
    model: Any, processor: Any, shown: Sequence[Sequence[PIL.Image.Image]], messages: list[list[dict[str, Any]]]
) -> tuple[dict[str, Tensor], Tensor]:
    """Outputs of transformers' Llava, without padding, by part; and the token ids."""
    texts = [processor.apply_chat_template(one) for one in messages]
    images = [image for one in shown for image in one]
    inputs = processor(text=texts, images=images, padding=True, padding_side="right", return_tensors="pt")
    real = inputs["attention_mask"].bool()
    logits = model(**{key: inputs[key] for key in ("input_ids", "attention_mask", "pixel_values")}).logits
    config = model.config
    seen = model.model.get_image_features(
        pixel_values=inputs["pixel_values"],
        vision_feature_layer=config.vision_feature_layer,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        return_dict=True,
    )
    states = seen.hidden_states[config.vision_feature_layer]
    return {
        "vision": states[:, int(config.vision_feature_select_strategy == "default") :].flatten(0, 1),
        "connector": torch.cat(list(seen.pooler_output)),
        "language": logits[1][real[1]],
        "logits": logits[real],
    }, inputs["input_ids"][real]
