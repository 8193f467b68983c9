"""Parity of a LLaVA: outputs of transformers' own class, and its processor over many conversations and shapes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from lorgnette.errors import CheckpointError
from lorgnette.inputs.image import image_patches
from lorgnette.inputs.processor import Processor
from lorgnette.sample import Sample

CONVERSATIONS, SHAPES = 30, 100
SPOKEN = ("What", "is", "this?", "", "Two", "naïve", "ﬁn,", "日本語", "🎈", "x**2", "==", "4.5%", "a\nb", "don't")


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


def check_llava_files(folder: str | Path, processor: Processor, theirs: Any) -> dict[str, int]:
    """Compare token ids of conversations, and pixels of images of many shapes, with transformers' processor.

    Returns how many of each were equal, which are all. Raises: CheckpointError naming the first that differs.
    """
    draw = random.Random(0)
    for number in range(CONVERSATIONS):
        messages, images = _conversation(draw, number)
        text = theirs.apply_chat_template(messages)
        given = {"images": images} if images else {}
        ids = theirs(text=[text], **given)["input_ids"][0]
        if [*map(int, ids)] != processor([Sample.from_messages(messages)]).tokens_T.tolist():
            raise CheckpointError(f"{folder}: transformers writes conversation {number} of the check as other tokens")
    for _ in range(SHAPES):
        size = (round(10 ** draw.uniform(0, 2.6)), round(10 ** draw.uniform(0, 2.6)))
        image = _noise(*size, draw)
        [ours] = image_patches(image, processor.images, split=False)
        cells = torch.from_numpy(ours.pixels_PC).unflatten(1, (3, *(2 * [processor.images.patch])))
        picture = cells.unflatten(0, (ours.rows, ours.columns)).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
        their = theirs.image_processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")
        if not torch.equal(picture, their["pixel_values"][0].to(picture.dtype)):
            raise CheckpointError(f"{folder}: transformers makes other pixels of an image of {size[0]} x {size[1]}")
    return {"conversations": CONVERSATIONS, "shapes": SHAPES}


def _conversation(draw: random.Random, number: int) -> tuple[list[dict[str, Any]], list[PIL.Image.Image]]:
    """A conversation of one to six turns, and its images."""
    messages, images = list[dict[str, Any]](), list[PIL.Image.Image]()
    for role in itertools.islice(itertools.cycle(("user", "assistant")), draw.randint(1, 6)):
        parts: list[dict[str, Any]] = []
        for _ in range(draw.randint(0, 2) if role == "user" else 0):
            images.append(_noise(draw.randint(1, 90), draw.randint(1, 90), draw))
            parts.append({"type": "image", "image": images[-1]})
        words = " ".join(draw.choices(SPOKEN, k=draw.randint(1, 12)))
        messages.append({"role": role, "content": [*parts, {"type": "text", "text": words}]})
    return messages, images


def _noise(width: int, height: int, draw: random.Random) -> PIL.Image.Image:
    return PIL.Image.frombytes("RGB", (width, height), draw.randbytes(3 * width * height))
