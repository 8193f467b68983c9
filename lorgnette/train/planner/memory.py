"""Memory of training, traced and not derived: one pack through a model of few layers, on tensors without memory.

Every layer of a part costs what its middle one does, so four are traced, and the middle one is counted for all others.
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
from lorgnette.train.optim import build_optimiser
from lorgnette.train.stages import named_parts, prepare_parts

TRACED, MIDDLE = 4, 2
"""Layers of a part that are traced, and the index of the middle one.

Not the second: what the first was given, and does not keep, is freed while the second runs.
"""
TILES = 4
"""Tiles that a tensor is cut in where nothing is computed: hundreds would take minutes, and a tile is soon freed."""


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
    """Most bytes that are alive at once. Not all of `parts` are: gradients come as activations go."""


class TensorBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are alive while it is entered, and the most that there were at once."""

    def __init__(self, alive: int = 0) -> None:
        """alive: bytes of tensors that are there already."""
        super().__init__()
        self.now = self.peak = alive
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out) if "out" not in (kwargs or {}) else ():  # which was there before
            if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                self._count(tensor.untyped_storage())
        return out

    def know(self, tensors: Iterable[Tensor]) -> None:
        """Leave out tensors that were counted before."""
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
    """Makes identity matrices, by which PEFT's DoRA multiplies at each call, without memory.

    Other tensors that are made of none are left real: the model keeps some of them for real steps.
    """

    def __init__(self, memory: FakeTensorMode) -> None:
        super().__init__()
        self.memory = memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self.memory if func.overloadpacket is torch.ops.aten.eye else contextlib.nullcontext():
            return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class ByteRange:
    """A stretch of a training step."""

    part: str
    times: float
    """Stretches of this kind in the whole model: all layers that were left out are as the traced middle one."""
    change: int
    """Bytes alive at its end, less those at its start."""
    rise: int
    """Most bytes alive within, less those at its start."""


class Trace:
    """Intervals of a pack in a training step, between the ends of blocks in forward and backward."""

    def __init__(self, run: Run, stage: StageConfig, batch: Batch, packs: int = 1, *, real: bool = False):
        """packs: of the step. The last of several finds the gradients of those before it, which take most memory.

        real: on tensors with memory, for tests.
        """
        self.intervals: list[ByteRange] = []
        self.loss = 0
        """Intervals that have passed when the loss is known."""
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
        """Make gradients as the pack finds them: of all weights if it is not the first of its step."""
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
        """Bytes by part that are alive when the loss is known."""
        kept: dict[str, float] = {}
        for one in self.intervals[: self.loss]:
            kept[one.part] = kept.get(one.part, 0) + one.times * one.change
        return {part: int(size) for part, size in kept.items()}

    def peak(self, alive: int) -> int:
        """Most bytes at once in the whole model, with so many alive at the start, gradients among them."""
        peak = alive
        for one in self.intervals:
            last = alive + int((one.times - 1) * one.change)
            peak = max(peak, max(alive, last) + one.rise)
            alive += int(one.times * one.change)
        return peak

    def _mark(self, part: str, times: float = 1) -> None:
        """End an interval here, and begin the next."""
        now, peak = self._counter.now, self._counter.peak
        self.intervals.append(ByteRange(part, times, now - self._start, peak - self._start))
        self._start = self._counter.peak = now

    def _watch(self, part: str, module: nn.Module, forward: float = 1, backward: float = 1) -> None:
        """Mark where a module ends in forward, and where the gradient of its output is there.

        forward, backward: of how many alike the intervals are that end there. A block that is run a second time to
        compute gradients is not marked.
        """

        def ended(module: nn.Module, inputs: object, output: Tensor) -> None:
            if self._backward:
                return
            self._mark(part, forward)
            if output.requires_grad:
                output.register_hook(lambda gradient: self._mark(part, backward))

        module.register_forward_hook(ended)


def _short_model(run: Run, stage: StageConfig, memory: FakeTensorMode | None) -> tuple[VLM, dict[str, int]]:
    """A model with `TRACED` layers a part, prepared for the stage, and how many layers of each part are left out.

    memory: mode in which its parameters are made; None for parameters with memory.
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
            made = nn.Parameter(torch.empty(parameter.shape), requires_grad=parameter.requires_grad)
            setattr(model.get_submodule(module), leaf, made)
    return model.train(), left_out


def estimate(run: Run, stage: StageConfig, model: VLM, batches: Iterable[Batch]) -> MemoryEstimate:
    """Memory of each part while a stage trains on packs such as these, and of all at once.

    model: prepared for the stage; its sizes count, not its weights. Activations are those of the largest pack: what is
    alive when its loss is known. Nothing is known here of layers, connectors or adapters: they are run.
    """
    packs = stage.pack.packs_per_step * stage.micro_batches
    traced = Trace(run, stage, max(batches, key=lambda batch: _rows(run, batch)), packs)
    activations, momenta = traced.activations(), _momenta(model, stage)
    parts: dict[str, Memory] = {}
    for part in (*model.parts(), "head"):
        parameters = [parameter for name, _, parameter in named_parts(model) if name == part]
        trained = sum(4 * parameter.numel() for parameter in parameters if parameter.requires_grad)
        weights = sum(4 * parameter.numel() for parameter in parameters)
        optimiser = sum(4 * momenta.get(id(parameter), 0) * parameter.numel() for parameter in parameters)
        parts[part] = Memory(weights, trained, optimiser, activations.get(part, 0))
    held = sum(part.weights + part.optimiser for part in parts.values())
    found = sum(part.gradients for part in parts.values()) if packs > 1 else 0
    return MemoryEstimate(parts, traced.peak(held + found))


def _momenta(model: VLM, stage: StageConfig) -> dict[int, int]:
    """Moving averages that the optimiser keeps of each parameter: one of muon's matrices, two of all others."""
    groups = build_optimiser(model, stage).param_groups
    return {id(parameter): 2 - bool(group["muon"]) for group in groups for parameter in group["params"]}


def _rows(run: Run, batch: Batch) -> int:
    """Values that enter the layers of both backbones, by which the largest pack is known."""
    vision, language = run.model.vision, run.model.language
    patches, tokens = batch.images.total, batch.documents.total
    return patches * vision.width * vision.layer_count + tokens * language.width * language.layers
