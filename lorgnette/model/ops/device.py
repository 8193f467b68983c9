"""Choice of the device that a model computes on, and of the type of its weights, by torch's names."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from lorgnette.errors import CheckpointError
from lorgnette.untrusted import quoted

AUTO = "auto"
"""Name of the best device there is, or of the type that the weights are stored in."""
_KINDS = {"cuda": "CUDA", "mps": "MPS (Apple GPU)"}

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float": torch.float32}
DTYPES |= {"half": torch.float16, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(wanted: str = AUTO, environment: Mapping[str, str] = os.environ) -> torch.device:
    """The device of this process: by name, or for `auto` a GPU of CUDA, else Apple's (MPS), else the CPU.

    environment: under torchrun its LOCAL_RANK counts the GPUs of CUDA; without it the first is taken.
    Raises: CheckpointError if there is no such device.
    """
    if wanted == AUTO:
        there = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        place = torch.device(there)
    else:
        place = device_named(wanted)
    if place.type == "cuda" and place.index is None:
        return torch.device("cuda", int(environment.get("LOCAL_RANK", 0)))
    return place


def device_named(device: torch.device | str) -> torch.device:
    """A device of this computer. Raises: CheckpointError if there is no such one."""
    kind = str(device).partition(":")[0]
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, TypeError) as error:
        said = quoted(next(iter(str(error).splitlines()), type(error).__name__))
        why = f"no {_KINDS[kind]} device here" if kind in _KINDS else "PyTorch cannot use it here"
        raise CheckpointError(f"device {quoted(str(device), 60)}: {why} ({said}); use device='cpu'") from None
    return place


def dtype_named(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A type of weights by its name in torch; None for `auto`. Raises: CheckpointError for any other."""
    if dtype in (None, AUTO):
        return None
    named = DTYPES.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if named not in (torch.float32, torch.bfloat16, torch.float16):
        raise CheckpointError(f"dtype {quoted(str(dtype), 60)}: lorgnette computes in float32, bfloat16 or float16")
    return named


def in_float64(x: Tensor) -> Tensor:
    """A tensor in float64; on the CPU where its device (MPS) has no such numbers."""
    return (x.cpu() if x.device.type == "mps" else x).double()
