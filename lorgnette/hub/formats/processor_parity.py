"""Parity of processors: token ids of many conversations, and pixels of images of many shapes."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import PIL.Image
import torch

from lorgnette.errors import CheckpointError
from lorgnette.inputs.image import image_patches
from lorgnette.inputs.processor import Processor
from lorgnette.sample import Sample

CONVERSATIONS, SHAPES = 30, 100
FEW_TILED = 20
"""Conversations and shapes where an image is cut in tiles, each of which is as large as another's whole image."""
SPOKEN = ("What", "is", "this?", "", "Two", "naïve", "ﬁn,", "日本語", "🎈", "x**2", "==", "4.5%", "a\nb", "don't")


def check_processor_files(folder: str | Path, processor: Processor, theirs: Any) -> dict[str, int]:
    """Compare token ids of conversations, and pixels of images of many shapes, with transformers' processor.

    Returns how many of each were equal, which are all. Raises: CheckpointError naming the first that differs.
    """
    draw = random.Random(0)
    conversations, shapes = (FEW_TILED, FEW_TILED) if processor.images.policy == "tiles" else (CONVERSATIONS, SHAPES)
    for number in range(conversations):
        messages, images = _conversation(draw, number)
        text = theirs.apply_chat_template(messages)
        given = {"images": [images]} if images else {}
        ids = theirs(text=[text], **given)["input_ids"][0]
        if [*map(int, ids)] != processor([Sample.from_messages(messages)]).tokens_T.tolist():
            raise CheckpointError(f"{folder}: transformers writes conversation {number} of the check as other tokens")
    for _ in range(shapes):
        size = (round(10 ** draw.uniform(0, 2.6)), round(10 ** draw.uniform(0, 2.6)))
        _check_pixels(folder, _noise(*size, draw), processor, theirs)
    return {"conversations": conversations, "shapes": shapes}


def _check_pixels(folder: str | Path, image: PIL.Image.Image, processor: Processor, theirs: Any) -> None:
    """Raises: CheckpointError for an image, of which transformers makes other crops or other pixels."""
    raw = theirs.image_processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
    expected = raw.flatten(0, -4)
    crops = image_patches(image, processor.images, processor.images.split)
    ours = [
        torch.from_numpy(crop.pixels_PC)
        .unflatten(1, (3, *(2 * [processor.images.patch])))
        .unflatten(0, (crop.rows, crop.columns))
        .permute(2, 0, 3, 1, 4)
        .flatten(3)
        .flatten(1, 2)
        for crop in crops
    ]
    if len(ours) != len(expected) or not torch.equal(torch.stack(ours), expected.to(torch.uint8)):
        raise CheckpointError(
            f"{folder}: transformers makes other pixels of an image of {image.width} x {image.height}"
        )


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
