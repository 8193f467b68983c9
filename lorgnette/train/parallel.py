"""Parallelism, applied from outside to a model that knows nothing of it, in one order: adapters, activation
checkpointing, compile, FSDP2.

Each layer is sharded over all ranks and gathered when it is needed. A rank without images passes empty tensors through
the same layers, and a rank without packs an empty batch: every rank takes part in every exchange, and nobody needs a
dummy image.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from lorgnette.data.loader.training_batch import TrainingBatch
from lorgnette.errors import LorgnetteError, SettingsError
from lorgnette.files import DiskError
from lorgnette.model.adapted_layers import Int8Linear
from lorgnette.model.batch import SequenceLengths
from lorgnette.model.connectors.connector import interleave
from lorgnette.model.ops.attention import attention
from lorgnette.model.ops.device import AUTO, choose_device
from lorgnette.model.ops.grouped_attention import attention_of_rows
from lorgnette.model.vlm import VLM
from lorgnette.run import Run, StageConfig
from lorgnette.train.stages import prepare_parts

_T = TypeVar("_T")

SPAN_READERS = (attention, attention_of_rows, interleave)
"""Functions that read spans: lengths that differ from batch to batch."""


@dataclass(frozen=True)
class DistributedContext:
    """Rank of this process, number of processes, and device."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    saving: Any = None
    """The group that checkpoints are written through, beside training's own exchanges."""

    @property
    def is_main(self) -> bool:
        """True on the rank that writes files and prints."""
        return self.rank == 0

    def gather(self, value: _T) -> list[_T]:
        """Every rank's value, in the order of ranks. Collective: all ranks call it."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def alike(self) -> Iterator[None]:
        """Context that ends alike on all ranks: a LorgnetteError of one is raised on all, one of the disk first.

        Collective, so that no rank waits for one that failed.
        """
        met: LorgnetteError | None = None
        try:
            yield
        except LorgnetteError as error:
            met = error
        errors = [error for error in self.gather(met) if error is not None]
        if errors:
            raise next((error for error in errors if isinstance(error, DiskError)), errors[0])


def start_distributed(wanted: str = AUTO) -> DistributedContext:
    """Context of this process among those that torchrun started; of a single process without torchrun.

    wanted: the run's `device`. Raises: CheckpointError for one that is not here, SettingsError for MPS under torchrun.
    """
    device = choose_device(wanted)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return DistributedContext(device=device)
    if device.type == "mps":
        raise SettingsError("an Apple GPU trains in one process: start it without torchrun, or set device=cpu")
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return DistributedContext(dist.get_rank(), dist.get_world_size(), device, dist.new_group(backend="gloo"))


def end_distributed() -> None:
    """Leave the processes' group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def half_precision(run: Run, world: DistributedContext) -> bool:
    """True if layers compute in bf16. Raises: SettingsError where weights cannot be kept in float32 beside it (MPS)."""
    if run.precision == "bf16" and world.device.type == "mps":
        raise SettingsError(
            "precision bf16: FSDP, which keeps the weights in float32 beside it, does not run on an Apple GPU; set"
            " precision to fp32 or auto"
        )
    return run.precision == "bf16" or (run.precision == "auto" and world.device.type == "cuda")


def apply(model: VLM, run: Run, stage: StageConfig, world: DistributedContext) -> None:
    """Put around a model, whose adapters are in place, what the stage and the world ask for."""
    model.to(world.device)
    for name, part in model.stacks().items():
        part.checkpointed = name in stage.checkpointing
    if run.compile if run.compile is not None else world.device.type == "cuda":
        compile_layers(model)
    if world.size > 1 or half_precision(run, world):
        shard(model, world, half=half_precision(run, world))


def compile_layers(model: VLM) -> None:
    """Compile each layer by itself. Lengths are dynamic, so that no batch is compiled again.

    What reads spans is left out: their lengths are plain numbers of each batch, and would be compiled in.
    """
    for module, name in span_readers():
        function = getattr(module, name)
        if not hasattr(function, "__wrapped__"):
            setattr(module, name, torch.compiler.disable(function))
    for block in model.blocks():
        block.compile(dynamic=True)


def span_readers() -> list[tuple[ModuleType, str]]:
    """Modules of the model that call functions of spans, each with the name by which it does."""
    modules = [one for name, one in sys.modules.items() if name.startswith("lorgnette.model.") and ".ops" not in name]
    return [
        (module, name)
        for module in modules
        for name, value in vars(module).items()
        if any(getattr(value, "__wrapped__", value) is reader for reader in SPAN_READERS)
    ]


def shard(model: VLM, world: DistributedContext, *, half: bool) -> None:
    """Shard parameters, gradients and optimiser state over all ranks, in place. Gradients are summed, not averaged.

    half: layers compute in bf16; gradients are summed, and weights kept, in float32. Frozen weights are kept in bf16.
    Weights in 8 bits are a quarter already, and each rank has them whole.
    """
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    rounded = (module for module in model.modules() if isinstance(module, Int8Linear))
    replicated = {parameter for module in rounded for parameter in (module.rounded, module.steps)}
    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy()
    if half:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        for parameter in model.parameters():
            if not parameter.requires_grad and parameter not in replicated:
                parameter.data = parameter.data.to(torch.bfloat16)
    for module in (*model.blocks(), model):
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=replicated)
    model.passes_by = False  # every rank takes part in gathering every layer
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded, whole. Every rank must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor that each rank has whole, sharded as `like` is; itself if that is not sharded."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def unshard(model: VLM, stage: StageConfig) -> VLM:
    """The same model in the memory of each rank, unsharded, in float32 on the CPU. Every rank must ask.

    The adapters of the stage are in place, as in the model given.
    """
    plain = VLM(model.config).to_empty(device="cpu")
    prepare_parts(plain, stage, seed=0)
    theirs = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(whole(theirs[name]))
    return plain


def empty_batch(model: VLM) -> TrainingBatch:
    """A pack of nothing: what a rank computes whose share of a step has fewer packs than another's."""
    nothing = torch.empty(0, dtype=torch.int64)
    patches_PC = torch.empty(0, model.config.vision.patch_width, dtype=torch.uint8)
    return TrainingBatch(nothing, nothing, nothing, SequenceLengths(()), patches_PC, nothing, (), nothing)
