"""Memory estimate of training, measured rather than derived: one step of a shortened model on fake tensors.

All layers of a part cost the same but for the first and the last, so four are traced, and the middle one is counted for
every layer that was left out.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from lorgnette.model.batch import Batch
from lorgnette.model.ops.tiling import few_tiles
from lorgnette.model.vlm import VLM
from lorgnette.run import Run, StageConfig
from lorgnette.train.adapters.fused_lora import weights_kept
from lorgnette.train.muon import Muon
from lorgnette.train.optim import build_optimiser
from lorgnette.train.stages import named_parts, prepare_parts

TRACED, MIDDLE = 4, 2
"""Number of traced layers of a part, and the index of the one that stands for all others.

It is not the second layer: the input of the first is freed while the second runs, which would be counted for each.
"""
TILES = 4
"""Tiles per tensor while tracing: hundreds would take minutes, and tiles are freed too soon to change the peak."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one part, by kind."""

    weights: int = 0
    gradients: int = 0
    optimiser: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.activations


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of tensors while a stage trains, for one process in float32."""

    parts: dict[str, Memory]
    """By part; `head` is the output table's adapters and the loss."""
    peak: int
    """Most bytes allocated at once. It is less than the sum of `parts`: gradients are allocated as activations are
    freed."""


class TensorBytes(TorchDispatchMode):
    """Context that counts the bytes of live tensors (`now`) and their maximum (`peak`)."""

    def __init__(self, alive: int = 0) -> None:
        """alive: bytes of tensors that exist already."""
        super().__init__()
        self.now = self.peak = alive
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out) if "out" not in (kwargs or {}) else ():  # `out=` existed before
            if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                self._count(tensor.untyped_storage())
        return out

    def know(self, tensors: Iterable[Tensor]) -> None:
        """Exclude tensors that exist already from the count."""
        for tensor in tensors:
            self._known[tensor.untyped_storage()] = True

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            self._known[storage] = True
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self.now -= size


class Identities(TorchDispatchMode):
    """Context in which identity matrices are fake tensors: PEFT's DoRA creates one at each call.

    Other tensors created without inputs stay real, since the model caches some of them for real steps.
    """

    def __init__(self, memory: FakeTensorMode) -> None:
        super().__init__()
        self.memory = memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self.memory if func.overloadpacket is torch.ops.aten.eye else contextlib.nullcontext():
            return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class ByteRange:
    """Change of memory during an interval of a training step."""

    part: str
    times: float
    """Number of such intervals in the whole model: the middle layer's stands for all layers that were left out."""
    change: int
    """Bytes allocated at its end, minus those at its start."""
    rise: int
    """Most bytes allocated during it, minus those at its start."""


class Trace:
    """Traces forward and backward of one pack; intervals end where a block ends, in either pass."""

    def __init__(self, run: Run, stage: StageConfig, batch: Batch, packs: int = 1, *, real: bool = False):
        """packs: packs in the step. With several, the last one is traced: gradients of the others exist already.

        real: use real tensors instead of fake ones, for tests.
        """
        self.intervals: list[ByteRange] = []
        self.loss = 0
        """Number of intervals before the loss is computed."""
        memory = None if real else FakeTensorMode(allow_non_fake_inputs=True)
        model, left_out = _short_model(run, stage, memory)
        self._counter, self._start, self._backward = TensorBytes(), 0, False
        self._counter.know(model.parameters())
        for name, part in model.stacks().items():
            for index, block in enumerate(part.blocks()):
                self._watch(name, block, *(1 + left_out[name] * (index == place) for place in (MIDDLE, MIDDLE - 1)))
            self._watch(name, part)
        with contextlib.ExitStack() as kept:
            if memory is not None:
                kept.enter_context(few_tiles(TILES))
                kept.enter_context(Identities(memory))
            kept.enter_context(self._counter)
            for name, part in model.stacks().items():
                leaves = kept.enter_context(weights_kept(part))
                self._mark(name, 1 + left_out[name] / TRACED)
                self._give_gradients(leaves, packs)
                self._mark("kept gradients", 1 + left_out[name] / TRACED)
            self._give_gradients(model.parameters(), packs)
            self._run(model, batch)

    def _give_gradients(self, weights: Iterable[Tensor], packs: int) -> None:
        """Allocate the gradients that exist before the pack: those of all weights unless it is the step's first."""
        for weight in weights if packs > 1 else ():
            if weight.requires_grad:
                weight.grad = torch.empty_like(weight)

    def _run(self, model: VLM, batch: Batch) -> None:
        self._start = self._counter.peak = self._counter.now  # gradients of weights are counted elsewhere
        loss_sum = model(batch, output="loss").loss_sum
        self._mark("head")
        self.loss = len(self.intervals)
        self._backward = True
        loss_sum.backward()
        del loss_sum
        self._mark("vision")

    def activations(self) -> dict[str, int]:
        """Bytes of activations by part when the loss is computed."""
        kept: dict[str, float] = {}
        for one in self.intervals[: self.loss]:
            kept[one.part] = kept.get(one.part, 0) + one.times * one.change
        return {part: int(size) for part, size in kept.items()}

    def peak(self, alive: int) -> int:
        """Most bytes allocated at once in the whole model. alive: bytes at the start, gradients included."""
        peak = alive
        for one in self.intervals:
            last = alive + int((one.times - 1) * one.change)
            peak = max(peak, max(alive, last) + one.rise)
            alive += int(one.times * one.change)
        return peak

    def _mark(self, part: str, times: float = 1) -> None:
        """End the current interval and begin the next."""
        now, peak = self._counter.now, self._counter.peak
        self.intervals.append(ByteRange(part, times, now - self._start, peak - self._start))
        self._start = self._counter.peak = now

    def _watch(self, part: str, module: nn.Module, forward: float = 1, backward: float = 1) -> None:
        """Mark the end of a module's forward, and the moment at which the gradient of its output is known.

        forward, backward: `times` of the intervals that end there. Recomputation (activation checkpointing) is not
        marked.
        """

        def ended(module: nn.Module, inputs: object, output: Tensor) -> None:
            if self._backward:
                return
            self._mark(part, forward)
            if output.requires_grad:
                output.register_hook(lambda gradient: self._mark(part, backward))

        module.register_forward_hook(ended)


def _short_model(run: Run, stage: StageConfig, memory: FakeTensorMode | None) -> tuple[VLM, dict[str, int]]:
    """Build a model with `TRACED` layers in each part, prepared for the stage.

    Returns the model, and the number of layers left out of each part.
    memory: mode in which its parameters are created; None for real parameters.
    """
    left_out = {}
    with torch.device("meta"):
        model = VLM(run.model)
        for name, part in model.stacks().items():
            left_out[name] = part.shorten(TRACED)
            part.checkpointed = name in stage.checkpointing
        prepare_parts(model, stage, seed=0)
    with memory or contextlib.nullcontext():
        for name, parameter in list(model.named_parameters()):
            module, _, leaf = name.rpartition(".")
            made = nn.Parameter(
                torch.empty(parameter.shape, dtype=parameter.dtype), requires_grad=parameter.requires_grad
            )
            setattr(model.get_submodule(module), leaf, made)
    return model.train(), left_out


def estimate(run: Run, stage: StageConfig, model: VLM, batches: Iterable[Batch]) -> MemoryEstimate:
    """Estimate the memory of each part while a stage trains on such packs, and the peak of all parts.

    model: prepared for the stage; only its shapes are used. Activations are those of the largest pack when its loss is
    computed. No formula for a layer, connector or adapter is used: they are run on fake tensors.
    """
    packs = stage.pack.packs_per_step * stage.micro_batches
    traced = Trace(run, stage, max(batches, key=lambda batch: _rows(run, batch)), packs)
    activations, momenta = traced.activations(), _momenta(model, stage)
    parts: dict[str, Memory] = {}
    for part in (*model.parts(), "head"):
        parameters = [parameter for name, _, parameter in named_parts(model) if name == part]
        trained = sum(4 * parameter.numel() for parameter in parameters if parameter.requires_grad)
        weights = sum(parameter.element_size() * parameter.numel() for parameter in parameters)
        optimiser = sum(4 * momenta.get(id(parameter), 0) * parameter.numel() for parameter in parameters)
        parts[part] = Memory(weights, trained, optimiser, activations.get(part, 0))
    held = sum(part.weights + part.optimiser for part in parts.values())
    found = sum(part.gradients for part in parts.values()) if packs > 1 else 0
    gradients = sum(part.gradients for part in parts.values())
    return MemoryEstimate(parts, max(traced.peak(held + found), held + gradients + update_rise(model, stage)))


def update_rise(model: VLM, stage: StageConfig) -> int:
    """Most bytes of an update's temporaries: Muon steps all matrices of one shape together, fused AdamW has none."""
    groups = [group for group in build_optimiser(model, stage).param_groups if group["muon"]]
    if not groups:
        return 0
    with FakeTensorMode(), TensorBytes() as counter:
        for group in groups:
            group["params"] = [nn.Parameter(torch.empty(weight.shape)) for weight in group["params"]]
        optimiser, start = Muon(groups), 0
        for _ in range(2):  # the first step makes the moving averages, which are counted elsewhere
            for weight in (weight for group in groups for weight in group["params"]):
                weight.grad = torch.empty_like(weight)
            start = counter.peak = counter.now
            optimiser.step()
    return counter.peak - start


def _momenta(model: VLM, stage: StageConfig) -> dict[int, int]:
    """Number of moving averages that the optimiser keeps of each parameter: one for Muon's matrices, two for others."""
    groups = build_optimiser(model, stage).param_groups
    return {id(parameter): 2 - bool(group["muon"]) for group in groups for parameter in group["params"]}


def _rows(run: Run, batch: Batch) -> int:
    """Number of values that enter the layers of both backbones: the size by which the largest pack is chosen."""
    vision, language = run.model.vision, run.model.language
    patches, tokens = batch.images.total, batch.documents.total
    return patches * vision.width * vision.layer_count + tokens * language.width * language.layers
