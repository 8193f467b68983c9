"""LoRA and DoRA by PEFT (paper §3.3: what makes the autoregressive architecture trainable with unfrozen backbones)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorgnette.errors import SettingsError
from lorgnette.files import new_folder, write_json
from lorgnette.hub.checkpoint import save_tensors
from lorgnette.hub.formats.format import Format
from lorgnette.model.adapted_layers import Int8Linear, replace_layers
from lorgnette.model.vlm import VLM
from lorgnette.run import LoraConfig, StageConfig
from lorgnette.train.adapters.fused_lora import speed_up
from lorgnette.train.adapters.lm_head import adapt_head, adapted_head, head_tensors, merge_head, plain_name
from lorgnette.train.planner.requirements import check_peft

ADAPTER = "default"
ADAPTED = ("vision", "fusion", "language")
"""The parts that can be adapted; others are new and train in full."""
WRITTEN_ADAPTER = ("adapter_model.safetensors", "adapter_config.json")
"""Names of the files of an adapter; writing one replaces them and nothing else."""


def add_adapters(part: nn.Module, config: LoraConfig, *, dora: bool, seed: int) -> None:
    """Put an adapter beside the linear layers of `part` that the settings name, in place. The layers stay frozen.

    A decoder's output table is adapted too where `head` is named. Adapters start as the identity.
    Raises: SettingsError if PEFT is not installed, if the part has no such layer, or if the head is tied.
    """
    targets = [name for name in _linears(part) if name.rpartition(".")[2] in config.targets]
    if not targets:
        raise SettingsError(
            f"lora.targets {list(config.targets)} name no linear layer of the part; for example query is in each"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _peft().inject_adapter_in_model(_settings(config, targets, dora), part, adapter_name=ADAPTER)
        if "head" in config.targets and hasattr(part, "head"):
            adapt_head(part, config, dora=dora)
    speed_up(part, ADAPTER)


def float_base(model: nn.Module) -> None:
    """Make the weights of layers in 8 bits float32 again, in place: those that the integers stand for."""
    replace_layers(model, lambda module: module.in_float() if isinstance(module, Int8Linear) else None)


def adapted_layers(model: nn.Module) -> list[str]:
    """Names of the layers that have an adapter."""
    return [name for name, module in model.named_modules() if hasattr(module, "lora_A") and hasattr(module, "merge")]


def merge_adapters(model: nn.Module) -> None:
    """Add every adapter to the layer that it adapts and remove it, in place. Does nothing where there is none.

    Layers that the stage held in 8 bits become those that they stood for, in float32.
    """
    float_base(model)
    for name in adapted_layers(model):
        parent_name, _, child = name.rpartition(".")
        layer = model.get_submodule(name)
        layer.merge(safe_merge=True)  # type: ignore[operator]
        setattr(model.get_submodule(parent_name), child, layer.get_base_layer())  # type: ignore[operator]
    merge_head(model)
    for module in model.modules():
        if hasattr(module, "peft_config"):  # else the next stage's adapters would be said to be the second
            del module.peft_config


def save_adapters(model: VLM, stage: StageConfig, folder: Path, form: Format) -> list[Path]:
    """Write the adapters in PEFT's format, for the model as transformers names it. Returns the folders written.

    The model that they stand on is named as `folder/base`, where it is to be written in this form.

    One adapter is of one kind: where one backbone has LoRA and the other DoRA, each has a folder of its own.
    """
    by_kind: dict[str, list[str]] = {}
    for part in ADAPTED:
        mode = getattr(stage, part).mode
        if part in model.stacks() and mode in ("lora", "dora"):
            by_kind.setdefault(mode, []).append(part)
    return [_save_kind(model, stage.lora, parts, folder / kind, form) for kind, parts in by_kind.items()]


def base_tensors(model: VLM) -> dict[str, Tensor]:
    """The model that adapters stand on: its parameters under their own names, adapters left out, in float32."""
    names = ((plain_name(name.replace(".base_layer", "")), parameter) for name, parameter in model.named_parameters())
    tensors = {name: parameter.detach() for name, parameter in names if ".lora_" not in name}
    for name, module in model.named_modules():
        if isinstance(module, Int8Linear):
            plain = name.replace(".base_layer", "")
            del tensors[f"{plain}.rounded"], tensors[f"{plain}.steps"]
            tensors[f"{plain}.weight"] = module.weight
    return tensors


def _save_kind(model: VLM, config: LoraConfig, parts: list[str], folder: Path, form: Format) -> Path:
    rules = {name: rule for rule in form.rules(model.config) for name in rule.ours}
    adapted = [name for name in adapted_layers(model) if name.split(".")[0] in parts]
    tensors, ranks = dict[str, Tensor](), dict[str, int]()
    for rule in dict.fromkeys(rules[f"{name}.weight"] for name in adapted):
        target = form.module(rule.theirs.removesuffix(".weight"))
        layers = [model.get_submodule(name.removesuffix(".weight")) for name in rule.ours]
        found = _joined(layers) if len(layers) > 1 else dict(_tensors_of(layers[0]))
        ranks[target] = len(found["lora_A.weight"])
        tensors |= {f"base_model.model.{target}.{key}": tensor for key, tensor in found.items()}
    targets, head = [*ranks], adapted_head(model)
    if head is not None and "language" in parts:
        targets.append(form.module(rules["language.head.table"].theirs.removesuffix(".weight")))
        tensors |= {f"base_model.model.{targets[-1]}.{key}": tensor for key, tensor in head_tensors(head)}
    settings = _settings(config, targets, folder.name == "dora").to_dict()
    wider = {target: rank for target, rank in ranks.items() if rank != config.rank}
    settings["rank_pattern"] = wider
    settings["alpha_pattern"] = {target: config.alpha * rank / config.rank for target, rank in wider.items()}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    with new_folder(folder, WRITTEN_ADAPTER) as beside:
        save_tensors(tensors, beside / "adapter_model.safetensors", {"format": "pt"})
        library, _, named = form.model_class.rpartition(".")
        opens = {"base_model_class": named, "parent_library": library}  # what PEFT's AutoPeftModel opens the base with
        base = {"base_model_name_or_path": str((folder.parent / "base").resolve()), "auto_mapping": opens}
        write_json(beside / "adapter_config.json", plain | {"peft_type": "LORA", "inference_mode": True} | base)
    return folder


def _tensors_of(layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The adapter of one layer, under PEFT's names in a file (without the adapter's own name)."""
    for name, parameter in layer.named_parameters():
        if name.startswith("lora_"):
            key = name.replace(f".{ADAPTER}", "")
            yield key.replace("lora_magnitude_vector.weight", "lora_magnitude_vector"), parameter.detach().contiguous()


def _joined(layers: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Adapters of layers whose rows are one tensor in a file (Phi-3's), as one of that tensor: their first matrices one
    above the other, their second along the diagonal. A layer without an adapter has zeros, and in DoRA its own lengths.
    """
    own = [dict(_tensors_of(layer)) for layer in layers]
    bases: list[Any] = [getattr(layer, "base_layer", layer) for layer in layers]
    weights: list[Tensor] = [base.weight.detach() for base in bases]
    seconds = [one.get("lora_B.weight", all_.new_zeros(len(all_), 0)) for one, all_ in zip(own, weights, strict=True)]
    joined = {
        "lora_A.weight": torch.cat([one["lora_A.weight"] for one in own if one]),
        "lora_B.weight": torch.block_diag(*seconds),
    }
    lengths = [one.get("lora_magnitude_vector") for one in own]
    if any(length is not None for length in lengths):
        plain = [torch.linalg.vector_norm(weight, dim=1) for weight in weights]
        joined["lora_magnitude_vector"] = torch.cat(
            [other if length is None else length for length, other in zip(lengths, plain, strict=True)]
        )
    return joined


def _linears(part: nn.Module) -> list[str]:
    """Linear layers within the layers of a part; not the one that embeds patches."""
    return [
        name
        for name, module in part.named_modules()
        if type(module) in (nn.Linear, Int8Linear) and name.startswith("layers.")
    ]


def _settings(config: LoraConfig, targets: list[str], dora: bool) -> Any:
    return _peft().LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        use_dora=dora,
        init_lora_weights="gaussian" if config.init == "gaussian" else True,
    )


def _peft() -> Any:
    check_peft()
    import peft

    return peft
