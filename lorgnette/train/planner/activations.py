"""Activation memory: bytes that layers keep for the backward pass."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lorgnette.model.batch import Grid
from lorgnette.model.config import ConnectorConfig, VLMConfig
from lorgnette.model.connectors import Connector, build_connector
from lorgnette.model.flops import Curve
from lorgnette.run import LoraConfig, Mode
from lorgnette.train.adapters.fused_lora import fewer_products


@dataclass(frozen=True)
class Kept:
    """Numbers that one layer keeps: for each row (a token or a patch), and whatever the number of rows."""

    by_row: int
    at_all: int = 0


@dataclass(frozen=True)
class _Layer:
    """A layer of a backbone."""

    linears: dict[str, tuple[int, int]]
    """Width in and width out of each linear layer."""
    passing: int
    """Kept for each row for the gradient to pass through, though nothing in the layer trains."""
    inputs: int
    """Of the linear layers, for each row, what they share counted once: kept where they train."""
    known: frozenset[str]
    """Linear layers whose output is kept by what follows in any case."""


def kept(model: VLMConfig, part: str, mode: Mode, lora: LoraConfig) -> Kept:
    """By one layer of a backbone, `vision` or `language`, in float32 on the CPU, as tests measure it.

    An adapted linear layer keeps its input and its weight, and that weight's gradient or with DoRA its output
    (`lora.py`). With dropout PEFT computes it, and keeps the mask and the inner product; with DoRA two outputs
    for each row, and a square as wide as the input.
    """
    layer = _vision(model) if part == "vision" else _language(model)
    if mode == "full":
        return Kept(layer.passing + layer.inputs)
    if mode == "frozen":
        return Kept(layer.passing if part == "language" else 0)  # before the encoder there is nothing to reach
    adapted = [sizes for name, sizes in layer.linears.items() if name in lora.targets]
    outputs = sum(width for _, width in adapted)
    weights = sum(width * out for width, out in adapted)
    if not lora.dropout:
        whole = {name for name, sizes in layer.linears.items() if fewer_products(*sizes, lora.rank)}
        adapted_names = set(lora.targets) & set(layer.linears)
        own = sum(layer.linears[name][1] for name in adapted_names - layer.known - whole)
        gradients = sum(math.prod(layer.linears[name]) for name in adapted_names & whole)
        return Kept(layer.passing + layer.inputs + (own if mode == "dora" else 0), weights + gradients)
    by_row = layer.passing + lora.rank * len(adapted) + 2 * sum(width for width, _ in adapted)
    if mode == "lora":
        return Kept(by_row)
    at_all = sum(width * (width + lora.rank) for width, _ in adapted)
    return Kept(by_row + 2 * outputs, at_all)


def _vision(model: VLMConfig) -> _Layer:
    width, hidden = model.vision.width, model.vision.mlp_width
    attention = dict.fromkeys(("query", "key", "value", "output"), (width, width))
    linears = attention | {"up": (width, hidden), "down": (hidden, width)}
    known = frozenset({"value"} if model.vision.activation == "gelu_tanh" else {"value", "up"})
    return _Layer(linears, 6 * width + hidden, inputs=3 * width + hidden, known=known)


def _language(model: VLMConfig) -> _Layer:
    language = model.language
    width, hidden = language.width, language.mlp_width
    inner, kv = language.heads * language.head_width, language.kv_heads * language.head_width
    attention = {"query": (width, inner), "key": (width, kv), "value": (width, kv), "output": (inner, width)}
    linears = attention | {"gate": (width, hidden), "up": (width, hidden), "down": (hidden, width)}
    known = frozenset({"value", "gate", "up"})
    return _Layer(linears, 2 * width + 2 * inner + 3 * kv + 2 * hidden, inputs=2 * width + inner + hidden, known=known)


@lru_cache(maxsize=16)
def kept_by_connector(config: ConnectorConfig, vision_width: int, width: int, *, checkpointed: bool) -> Curve:
    """Bytes that the connector keeps of an image of 1, 2 and 3 squares of patches as small as it takes them.

    Measured on tensors without memory: what autograd saves, or where layers are checkpointed, their inputs.
    """
    with FakeTensorMode():
        connector, side = build_connector(config, vision_width, width), config.multiple
        one, two, three = (
            _kept_of(connector, (side, side * squares), vision_width, checkpointed) for squares in (1, 2, 3)
        )
    return one, two, three


def _kept_of(connector: Connector, grid: Grid, vision_width: int, checkpointed: bool) -> int:
    weights = {weight.untyped_storage()._cdata for weight in connector.parameters()}
    kept_bytes: dict[int, int] = {}
    held: list[Tensor] = []  # so that no storage is counted under the address of one that is gone

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept_bytes[storage._cdata] = storage.nbytes()
            held.append(tensor)
        return tensor

    def keep_inputs(_: nn.Module, inputs: Iterable[object]) -> None:
        for one in inputs:
            if isinstance(one, Tensor):
                keep(one)

    patches_PD = torch.empty(grid[0] * grid[1], vision_width, requires_grad=True)
    if checkpointed:
        hooks = [block.register_forward_pre_hook(keep_inputs) for block in connector.blocks()]
        connector(patches_PD, (grid,))
        for hook in hooks:
            hook.remove()
    else:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            connector(patches_PD, (grid,))
    return sum(kept_bytes.values())
