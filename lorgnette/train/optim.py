"""AdamW groups and the learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from lorgnette.model.vlm import VLM
from lorgnette.run import StageConfig
from lorgnette.train.muon import Muon
from lorgnette.train.stages import named_parts, part_config


def build_optimiser(model: VLM, stage: StageConfig) -> torch.optim.Optimizer:
    """The stage's optimiser over every trainable parameter, each in exactly one group.

    A part has a group for what decays, one for what does not (vectors, embeddings and latents, as in the original
    training code) and, with `muon`, one for the matrices of its layers. A group keeps its names in `names` and its peak
    learning rate in `peak_lr`.
    """
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    inner = {id(parameter) for block in model.blocks() for parameter in block.parameters()}
    for part, name, parameter in named_parts(model):
        if parameter.requires_grad:
            kind = _kind(name, parameter, stage.optimiser == "muon" and id(parameter) in inner)
            group = groups.setdefault((part, kind), _group(part, kind, stage))
            group["names"].append(name)
            group["params"].append(parameter)
    cls = Muon if stage.optimiser == "muon" else torch.optim.AdamW
    return cls(list(groups.values()), betas=stage.betas, fused=True)


def _kind(name: str, parameter: nn.Parameter, muon: bool) -> str:
    """Group of a parameter. Matrices that are a part's own, and not a layer's, are vectors one above the other."""
    if parameter.ndim < 2 or "embed" in name or "position" in name or name.count(".") == 1:
        return "bare"
    return "muon" if muon and parameter.ndim == 2 else "decaying"


def _group(part: str, kind: str, stage: StageConfig) -> dict[str, Any]:
    config = part_config(stage, part)
    decay = stage.weight_decay if config.weight_decay is None else config.weight_decay
    peak_lr = config.lr or stage.lr
    if kind == "muon":  # the same share of its usual rate
        peak_lr *= stage.muon_lr / stage.lr
    return {
        "names": [],
        "params": [],
        "peak_lr": peak_lr,
        "lr": peak_lr,
        "weight_decay": 0.0 if kind == "bare" else decay,
        "muon": kind == "muon",
    }


def schedule(stage: StageConfig, step: int) -> float:
    """Share of the peak learning rate at a step of the stage (0 is its first)."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    done = (step - stage.warmup) / max(1, stage.steps - 1 - stage.warmup)
    if stage.schedule == "constant":
        return 1.0
    falling = 1 - done if stage.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return stage.final_lr + (1 - stage.final_lr) * falling


def set_lr(optimiser: torch.optim.Optimizer, share: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * share
