"""Initialisation of new weights: a standard deviation for each kind of parameter."""

from __future__ import annotations

import torch
from torch import nn

from lorgnette.seeds import derive_seed


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """Draw every parameter in place. Each depends on `seed`, its name and its shape alone, on any device."""
    depths = {
        name: getattr(part, "decoder_layers", len(list(getattr(part, "layers", ()))))
        for name, part in model.named_children()
    }
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif name.endswith("norm.weight"):
            parameter.fill_(getattr(model.get_submodule(name.rpartition(".")[0]), "first", 1.0))
        elif name.endswith("_scale"):
            parameter.fill_(1.0)
        elif name.endswith("_gate"):
            parameter.fill_(model.get_submodule(name.rpartition(".")[0]).gate_init)  # type: ignore[arg-type]
        else:
            generator = torch.Generator().manual_seed(derive_seed(seed, name))
            std = deviation(name, parameter.shape[-1], depths[name.split(".")[0]])
            parameter.copy_(torch.empty(parameter.shape).normal_(std=std, generator=generator))


def deviation(name: str, fan_in: int, depth: int) -> float:
    """Standard deviation of a matrix: those of the released training code for the connector and the decoder.

    Linear layers there: sqrt(0.4 / fan in), with twice the fan in for `down` and 2 x depth times for an attention's
    `output`; token rows, and matrices that are a part's own as a perceiver's latents: sqrt(1 / width). The vision
    encoder, never trained from random weights there, keeps the variance of its input: sqrt(1 / fan in). Its positions
    are half as strong as its patches, whose variance is 1: at sqrt(1 / width) a small model takes very long to find out
    where things are (docs/notebook.md). Blocks of cross-attention, as there: sqrt(0.4 / fan in), with 2 x depth times
    the fan in for `down`, depth the decoder's layers; gates begin as their settings say. A mapping network's constants
    are standard normal, as in MAPL's code.
    """
    if name == "connector.constants":
        return 1.0
    if name.endswith(("position_embedding.weight", ".class_position")):
        return 0.5
    if name.startswith("fusion."):
        return (0.4 / (fan_in * (2.0 * depth if name.endswith("down.weight") else 1.0))) ** 0.5
    if name.count(".") == 1 or name.endswith((".table", ".extra")) or name.startswith("vision."):
        return (1.0 / fan_in) ** 0.5
    factor = 2.0 * depth if name.endswith("attention.output.weight") else 2.0 if name.endswith("down.weight") else 1.0
    return (0.4 / (fan_in * factor)) ** 0.5
