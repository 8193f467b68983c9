"""Checkpoints from which training goes on exactly: weights and optimiser state as safetensors, the rest as JSON."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lorgnette.errors import CheckpointError
from lorgnette.files import new_folder, write_json


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `step` counts all stages' finished steps; `seconds` is the time trained, all sittings."""

    run: str
    """Digest of the run's settings."""
    stage: int
    step: int
    """Steps finished in that stage."""
    total_step: int
    seconds: float


def save(folder: Path, progress: Progress, model: nn.Module, optimiser: torch.optim.Optimizer, keep: int) -> Path:
    """Write `folder/step-NNNNNN` beside and rename it, then remove all but the newest `keep`."""
    path = folder / f"step-{progress.total_step:06d}"
    with new_folder(path) as beside:
        save_file(_tensors(model), beside / "model.safetensors")
        save_file(_moments(optimiser), beside / "optimiser.safetensors")
        write_json(beside / "progress.json", asdict(progress))
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "progress.json").exists())


def read_progress(path: Path) -> Progress:
    try:
        return Progress(**json.loads((path / "progress.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: progress.json cannot be read ({error}); remove this folder to go on") from None


def restore_model(path: Path, model: nn.Module) -> None:
    """Load the weights. Raises: CheckpointError naming what does not fit."""
    tensors = _read(path / "model.safetensors")
    own = _tensors(model)
    wrong = sorted(name for name in own.keys() | tensors.keys() if name not in tensors or name not in own)
    wrong += sorted(name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape)
    if wrong:
        raise CheckpointError(
            f"{path}: {len(wrong)} tensors do not fit the model, {wrong[0]} first; was it another run?"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def restore_optimiser(path: Path, optimiser: torch.optim.Optimizer) -> None:
    """Load the moments of every parameter. Raises: CheckpointError naming a parameter without any."""
    state: dict[str, dict[str, Tensor]] = {}
    for key, tensor in _read(path / "optimiser.safetensors").items():
        name, _, moment = key.rpartition(".")
        state.setdefault(name, {})[moment] = tensor
    for name, parameter in _named(optimiser):
        if name not in state:
            raise CheckpointError(f"{path}: the optimiser state of {name} is missing; was it another run?")
        optimiser.state[parameter] = state[name]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); remove its folder to go on from an older one"
        ) from None


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter once (tied ones under their first name), detached."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _moments(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}.{moment}": tensor
        for name, parameter in _named(optimiser)
        for moment, tensor in optimiser.state[parameter].items()
    }


def _named(optimiser: torch.optim.Optimizer) -> list[tuple[str, Tensor]]:
    return [pair for group in optimiser.param_groups for pair in zip(group["names"], group["params"], strict=True)]
