"""Opens the model of an unfinished run, from one of its checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from lorgnette.errors import CheckpointError
from lorgnette.inputs.processor import Processor
from lorgnette.model.vlm import VLM
from lorgnette.run import Run, StageConfig, read_run
from lorgnette.train.adapters.peft import merge_adapters
from lorgnette.train.checkpoint import manager
from lorgnette.train.setup import build_processor, resolve
from lorgnette.train.stages import prepare_parts


def model_at(path: Path, run: Run, stage: StageConfig) -> VLM:
    """Load the model of a checkpoint, the stage's adapters in place. Raises: CheckpointError."""
    with torch.device("meta"):
        model = VLM(run.model)
    manager.check_size(path, model)  # before anything is allocated
    model.to_empty(device="cpu")
    prepare_parts(model, stage, seed=0)
    manager.restore(path, model)
    return model


def open_unfinished(folder: Path) -> tuple[VLM, Processor]:
    """Load the model of a run's last checkpoint, adapters merged, for inference, and its processor.

    folder: of the run. Raises: CheckpointError if it has no checkpoint, or a damaged one.
    """
    run = resolve(read_run(folder))
    found = manager.checkpoints(folder / "checkpoints")
    if not found:
        raise CheckpointError(f"{folder}: the run has no checkpoint yet; the command that began it resumes it")
    progress = manager.read_progress(found[-1], len(run.stages))
    model = model_at(found[-1], run, run.stages[progress.stage])
    merge_adapters(model)
    return model.eval(), build_processor(run)
