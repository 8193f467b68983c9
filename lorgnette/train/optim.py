"""AdamW groups and the learning-rate schedule."""

from __future__ import annotations

import math

import torch

from lorgnette.model.vlm import VLM
from lorgnette.run import StageConfig
from lorgnette.train.stages import named_parts, part_config


def build_optimiser(model: VLM, stage: StageConfig) -> torch.optim.AdamW:
    """AdamW over every trainable parameter, each in exactly one group: one per part, with and without weight decay.

    Vectors (norms, biases), embeddings and latents do not decay, as in the original training code. A group keeps its names
    in `names` and its peak learning rate in `peak_lr`.
    """
    groups: dict[tuple[str, bool], dict[str, list[object]]] = {}
    for part, name, parameter in named_parts(model):
        if parameter.requires_grad:
            decays = parameter.ndim >= 2 and not any(word in name for word in ("embed", "position", "latents"))
            group = groups.setdefault((part, decays), {"names": [], "params": []})
            group["names"].append(name)
            group["params"].append(parameter)
    settings = []
    for (part, decays), group in groups.items():
        config = part_config(stage, part)
        decay = stage.weight_decay if config.weight_decay is None else config.weight_decay
        peak_lr = config.lr or stage.lr
        settings.append({**group, "peak_lr": peak_lr, "lr": peak_lr, "weight_decay": decay if decays else 0.0})
    return torch.optim.AdamW(settings, betas=stage.betas, fused=True)


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
