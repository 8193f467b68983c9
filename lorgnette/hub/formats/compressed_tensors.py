"""Checkpoints whose decoder is stored as 8-bit integers, in the form of compressed-tensors (vLLM, transformers).

Each linear layer of the decoder has `weight` (int8) and `weight_scale` (a step for each row, of shape rows by 1).
`quantization_config` in config.json says so, and that activations are rounded by token in each pass: what
`load(..., quantize="int8")` computes. Everything else is stored as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lorgnette.errors import CheckpointError
from lorgnette.hub.formats.format import Format
from lorgnette.hub.weight_map import Rule
from lorgnette.model.ops.int8_product import dequantised, quantise_rows
from lorgnette.model.vlm import VLM
from lorgnette.untrusted import quoted

QUANTIZATION_KEY = "quantization_config"
_WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
_ACTIVATIONS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
FIXED = {"quant_method": "compressed-tensors", "format": "int-quantized"}
"""Values of the group by which the form is known."""


@dataclass(frozen=True)
class ScaleRule(Rule):
    """The steps of a matrix's rows, which stand in one column there."""

    def their_shape(self, shapes: Mapping[str, torch.Size]) -> tuple[int, ...]:
        return sum(shapes[name][0] for name in self.ours), 1

    def to_ours(self, tensor: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        parts = tensor.flatten().split([shapes[name][0] for name in self.ours])
        return dict(zip(self.ours, parts, strict=True))

    def to_theirs(self, ours: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([ours[name].detach() for name in self.ours])[:, None]


def in_8_bits(values: Mapping[str, Any], where: str) -> bool:
    """Return whether config.json says that the decoder is stored as integers.

    Raises: CheckpointError for rounding of another kind than is read.
    """
    group = values.get(QUANTIZATION_KEY)
    if not isinstance(group, Mapping) or any(group.get(key) != value for key, value in FIXED.items()):
        return False  # refused with the keys, if it is there
    groups = group.get("config_groups")
    found = [*groups.values()] if isinstance(groups, Mapping) else []
    for name, wanted in (("weights", _WEIGHTS), ("input_activations", _ACTIVATIONS)):
        said = [one.get(name) if isinstance(one, Mapping) else None for one in found]
        if len(said) != 1 or not isinstance(said[0], Mapping) or any(said[0].get(k) != v for k, v in wanted.items()):
            raise CheckpointError(
                f"{where}: {QUANTIZATION_KEY} rounds {name} as {quoted(said, 120)}; lorgnette reads 8-bit integers,"
                " symmetric, weights by row and activations by token: load the checkpoint that this one was made from"
            )
    return True


def group_of(rules: Iterable[Rule], form: Format) -> dict[str, Any]:
    """`quantization_config` for the weights of these rules."""
    names = {form.module(rule.theirs.removesuffix(".weight")) for rule in rules}
    targets = sorted({re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(name)) for name in names})
    rounded = {"weights": _WEIGHTS, "input_activations": _ACTIVATIONS, "output_activations": None}
    return FIXED | {
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": [f"re:{target}$" for target in targets]} | rounded},
        "ignore": [],
        "kv_cache_scheme": None,
    }


def rounded_rules(rules: Iterable[Rule], model: VLM) -> list[Rule]:
    """The rules whose tensors are stored as integers: of the linear layers within the decoder's layers."""
    return [rule for rule in rules if all(_is_rounded(name, model) for name in rule.ours)]


def _is_rounded(name: str, model: VLM) -> bool:
    module, _, kind = name.rpartition(".")
    within = kind == "weight" and name.startswith("language.layers.")
    return within and isinstance(model.get_submodule(module), nn.Linear)


def in_integers(rules: Iterable[Rule], rounded: Iterable[Rule]) -> list[Rule]:
    """The rules of a checkpoint some of whose tensors are stored as integers, each beside its steps."""
    whole = {rule.theirs for rule in rounded}
    found: list[Rule] = []
    for rule in rules:
        if rule.theirs not in whole:
            found.append(rule)
            continue
        modules = [name.removesuffix(".weight") for name in rule.ours]
        found.append(Rule(rule.theirs, tuple(f"{module}.rounded" for module in modules)))
        found.append(ScaleRule(f"{rule.theirs}_scale", tuple(f"{module}.steps" for module in modules)))
    return found


def rounded_tensors(tensors: Mapping[str, Tensor], rounded: Iterable[Rule]) -> dict[str, Tensor]:
    """The tensors of a float model, with integers and steps in the place of the weights that are rounded."""
    found = dict(tensors)
    for name in (name for rule in rounded for name in rule.ours):
        module = name.removesuffix(".weight")
        found[f"{module}.rounded"], found[f"{module}.steps"] = quantise_rows(found.pop(name))
    return found


def rounding_error(tensors: Mapping[str, Tensor], written: Mapping[str, Tensor], rounded: Iterable[Rule]) -> float:
    """The root mean square of the difference that rounding makes in these weights, over that of the weights."""
    changed = whole = 0.0
    for name in (name for rule in rounded for name in rule.ours):
        module = name.removesuffix(".weight")
        weight = tensors[name].detach().float()
        difference = dequantised(written[f"{module}.rounded"], written[f"{module}.steps"]) - weight
        changed, whole = changed + float(difference.square().sum()), whole + float(weight.square().sum())
    return (changed / whole) ** 0.5 if whole else 0.0
