"""Saves a step that gave no finite loss, its batches and weights, and computes it again to find the reason."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import save as save_shards

from lorgnette.data.loader.training_batch import TrainingBatch
from lorgnette.errors import CheckpointError
from lorgnette.files import explain_disk, write_json
from lorgnette.hub.checkpoint import open_safetensors, save_tensors
from lorgnette.model.batch import SequenceLengths
from lorgnette.model.vlm import VLM
from lorgnette.output import say
from lorgnette.run import read_run
from lorgnette.train.adapters.neftune import Neftune
from lorgnette.train.checkpoint import manager
from lorgnette.train.checkpoint.resume import model_at
from lorgnette.train.gradients import document_losses
from lorgnette.train.parallel import DistributedContext
from lorgnette.train.setup import resolve
from lorgnette.train.stages import drops
from lorgnette.untrusted import parse_json, quoted, read_json


def keep_step(
    folder: Path,
    progress: manager.Progress,
    batches: Sequence[TrainingBatch],
    model: VLM,
    seed: int,
    world: DistributedContext,
) -> Path:
    """Write batches and weights of a step to `folder/step-NNNNNN`, which is returned. Collective: all ranks call it.

    progress: where the run stood before the step. seed: of the step's noise and dropout. Raises: DiskError.
    """
    path = folder / f"step-{progress.total_step + 1:06d}"
    with explain_disk(path):
        path.mkdir(parents=True, exist_ok=True)
        save_batches(path / f"rank-{world.rank}.safetensors", batches)
        try:
            save_shards(manager.state_of(model, None), checkpoint_id=path / "weights", no_dist=world.size == 1)
        except (Exception, CheckpointException) as error:
            raise manager.disk_error(error, path) from error
        if world.is_main:
            facts = {"stage": progress.stage, "step": progress.step + 1, "seed": seed, "z_loss": model.z_loss}
            write_json(path / "replay.json", facts)
    return path


def save_batches(file: Path, batches: Sequence[TrainingBatch]) -> None:
    tensors: dict[str, Tensor] = {}
    plain: list[dict[str, Any]] = []
    for number, batch in enumerate(batches):
        values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
        tensors |= {f"{number}.{name}": value.cpu() for name, value in values.items() if isinstance(value, Tensor)}
        kept = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        plain.append({name: list(v.lengths if isinstance(v, SequenceLengths) else v) for name, v in kept.items()})
    save_tensors(tensors, file, {"batches": json.dumps(plain)})


def load_batches(file: Path) -> list[TrainingBatch]:
    """Raises: CheckpointError if the file is damaged."""
    try:
        with open_safetensors(file) as stored:
            plain = parse_json(stored.metadata()["batches"], str(file), CheckpointError)
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
        return [_batch(number, values, tensors) for number, values in enumerate(plain)]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        said = quoted(str(error))
        raise CheckpointError(f"{file}: cannot be read as the batches of a step ({said})") from None


def _batch(number: int, values: dict[str, Any], tensors: dict[str, Tensor]) -> TrainingBatch:
    made: dict[str, Any] = {name: _read(name, value) for name, value in values.items()}
    made |= {name.partition(".")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{number}.")}
    return TrainingBatch(**made)


def _read(name: str, value: list[Any]) -> Any:
    """A field of a batch that is no tensor, from JSON."""
    if name == "documents":
        return SequenceLengths(tuple(value))
    return tuple(tuple(grid) for grid in value) if name == "grids" else tuple(value)


def replay(path: Path, console: Console) -> list[str]:
    """Compute a saved step again on the CPU and print each sample's loss.

    path: a folder `replay/step-NNNNNN` of a run. Returns the names of samples whose loss is not finite.
    Raises: CheckpointError if it is not such a folder.
    """
    folder = path.resolve().parent.parent
    if not (path / "replay.json").is_file() or not (folder / "run.yaml").is_file():
        raise CheckpointError(f"{path}: is not a kept step; give a folder replay/step-NNNNNN of a run")
    facts = read_json(path / "replay.json", CheckpointError)
    run = resolve(read_run(folder))
    numbers: list[Any] = [facts.get(name) for name in ("stage", "step", "seed")] if isinstance(facts, dict) else [None]
    if any(type(number) is not int for number in numbers) or not 0 <= numbers[0] < len(run.stages):
        raise CheckpointError(f"{path}: replay.json names no stage, step and seed of the run")
    stage = run.stages[facts["stage"]]
    model = model_at(path / "weights", run, stage)
    wrong = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    found = f"{len(wrong)} weights are not finite ({wrong[0]} first)" if wrong else "all weights are finite"
    say(console, f"stage {stage.name}, step {facts['step']}: {found}")
    broken = []
    model.train()
    with Neftune(model, stage.neftune, dropout=drops(stage), seed=facts["seed"]):
        for file in sorted(path.glob("rank-*.safetensors")):
            for batch in load_batches(file):
                try:
                    broken += _compute(model, batch, console)
                except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
                    said = quoted(next(iter(str(error).splitlines()), "") or type(error).__name__)
                    raise CheckpointError(f"{file}: holds no batch that the run's model takes ({said})") from None
    return broken


def _compute(model: VLM, batch: TrainingBatch, console: Console) -> list[str]:
    """One pack forward; prints each document's loss and the first layer that gave something not finite."""
    first: list[str] = []
    handles = [module.register_forward_hook(_watch(name, first)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            losses = model(batch, output="loss").losses
    finally:
        for handle in handles:
            handle.remove()
    sums, counts = (values.tolist() for values in document_losses(batch, losses))
    broken = []
    for place, (loss, count) in enumerate(zip(sums, counts, strict=True)):
        name = batch.name_of(place)
        say(console, f"  {name}: loss {loss / max(1, count):.4f} over {count} supervised tokens")
        if not math.isfinite(loss):
            broken.append(name)
    if first:
        say(console, f"  not finite first in {first[0]}")
    return broken


def _watch(name: str, first: list[str]) -> Any:
    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if not first and isinstance(output, Tensor) and not output.isfinite().all():
            first.append(name)

    return look
