"""Parity of an Idefics1: outputs of transformers' own class, and its processor over many shapes of images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from lorgnette.inputs.processors.idefics1_files import IMAGE_NAME


def their_idefics1_parts(
    model: Any, processor: Any, shown: Sequence[Sequence[PIL.Image.Image]], messages: list[list[dict[str, Any]]]
) -> tuple[dict[str, Tensor], Tensor]:
    """Outputs of transformers' Idefics by part, one conversation at a time; and the token ids."""
    found: dict[str, list[Tensor]] = {"vision": [], "connector": [], "logits": []}
    tokens = []
    for images, one in zip(shown, messages, strict=True):
        inputs = processor(text=prompt_of(processor.apply_chat_template(one), images), return_tensors="pt")
        out = model(**inputs)
        tokens.append(inputs["input_ids"][0])
        found["logits"].append(out.logits[0])
        if images:
            states, features = their_idefics1_features(model, inputs["pixel_values"][0])
            found["vision"].append(states.flatten(0, 1))
            found["connector"].append(features.flatten(0, 1))
    parts = {name: torch.cat(tensors) for name, tensors in found.items()}
    return parts | {"language": found["logits"][1]}, torch.cat(tokens)


def their_idefics1_features(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Of transformers' Idefics: states of the vision encoder, and what the language model attends to.

    The output of the whole model holds the second up to transformers 5.23, and the first in its place since.
    pixels: images,3,height,width.
    """
    states = model.model.vision_model(pixels).last_hidden_state
    return states, model.model.perceiver_resampler(states) if model.config.use_resampler else states


def prompt_of(text: str, images: Sequence[PIL.Image.Image]) -> list[list[str | PIL.Image.Image]]:
    """A conversation as transformers' class takes it: texts and images in turn. text: with a slot for each image."""
    pieces = itertools.zip_longest(text.split(IMAGE_NAME), images)
    return [[piece for pair in pieces for piece in pair if piece is not None and piece != ""]]
