"""LoRA and DoRA by PEFT (paper §3.1: what makes the autoregressive architecture trainable with unfrozen backbones)."""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from lorgnette.errors import SettingsError
from lorgnette.run import LoraConfig

ADAPTER = "default"


def add_adapters(part: nn.Module, config: LoraConfig, *, dora: bool, seed: int) -> None:
    """Put an adapter beside every linear layer of `part`, in place. The layers themselves stay frozen.

    Adapters start as the identity. Raises: SettingsError if PEFT is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise SettingsError("modes lora and dora need PEFT: run `pip install 'lorgnette[lora]'`")
    import peft

    targets = [name for name, module in part.named_modules() if type(module) is nn.Linear]
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        use_dora=dora,
        init_lora_weights="gaussian",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, part, adapter_name=ADAPTER)


def merge_adapters(model: nn.Module) -> None:
    """Add every adapter to the layer that it adapts and remove it, in place. Does nothing where there is none."""
    if importlib.util.find_spec("peft") is None:
        return
    adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A") and hasattr(module, "merge")]
    for name in adapted:
        parent_name, _, child = name.rpartition(".")
        layer = model.get_submodule(name)
        layer.merge(safe_merge=True)  # type: ignore[operator]
        setattr(model.get_submodule(parent_name), child, layer.get_base_layer())  # type: ignore[operator]
