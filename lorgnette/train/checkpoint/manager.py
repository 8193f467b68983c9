"""Checkpoints from which training resumes exactly, on any number of ranks (torch.distributed.checkpoint).

A checkpoint is the folder `step-NNNNNN`: weights and optimiser state, each rank's shard in a file of its own, and
`progress.json`. It is copied to host memory first and written in the background, under another name until it is
complete: if the process is killed or the disk is full, the previous checkpoint stays valid.
"""

from __future__ import annotations

import contextlib
import errno
import re
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from lorgnette.errors import CheckpointError
from lorgnette.files import DiskError, explain_disk, write_json
from lorgnette.train.checkpoint.metadata import CheckpointReader
from lorgnette.train.parallel import DistributedContext
from lorgnette.untrusted import quoted, read_json

FINISHED = re.compile(r"step-(?P<step>[0-9]{6,18})")
"""The name of a checkpoint."""
_UNFINISHED = re.compile(r"\.step-[0-9]{6,18}\.tmp")
"""The name of a checkpoint that is being written."""
_WRITTEN = re.compile(r"progress\.json|\.metadata|__[0-9]+_[0-9]+\.distcp|\..*\.tmp", re.DOTALL)
"""Names of a checkpoint's files: only these are deleted with it."""
warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # a single process is intended


@dataclass(frozen=True)
class Progress:
    """Progress of a run: `total_step` counts finished steps of all stages, `seconds` the time of all sessions."""

    run: str
    """Digest of the run's settings."""
    stage: int
    step: int
    """Steps finished in that stage."""
    total_step: int
    seconds: float

    def in_stage(self, stage: int) -> Progress:
        """Progress at the start of `stage`; unchanged if the run is in that stage already."""
        return self if self.stage == stage else replace(self, stage=stage, step=0)

    def after_step(self, seconds: float) -> Progress:
        """Progress after one more step of the stage, which took `seconds`."""
        return replace(self, step=self.step + 1, total_step=self.total_step + 1, seconds=self.seconds + seconds)


class CheckpointManager:
    """Writes the checkpoints of a run, one at a time, and keeps the newest few.

    The error of a checkpoint that cannot be written is returned, not raised: training may continue, and the previous
    checkpoint stays valid.
    """

    def __init__(self, folder: Path, keep: int, world: DistributedContext | None = None) -> None:
        self.folder, self.keep, self.world = folder, keep, world or DistributedContext()
        self._pending: Future[Any] | None = None
        self._beside: Path | None = None
        self._path: Path | None = None
        self._on_saved: Callable[[Path], None] | None = None

    def save(
        self,
        progress: Progress,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        on_saved: Callable[[Path], None] | None = None,
    ) -> DiskError | None:
        """Start an asynchronous save, after finishing the previous one. Returns the error of either, if any.

        on_saved: called on every rank with the checkpoint's folder when it is complete.
        """
        problem = self.finish()
        self._path = self.folder / f"step-{progress.total_step:06d}"
        self._beside = self.folder / f".{self._path.name}.tmp"
        try:
            with self.world.alike(), explain_disk(self._path):
                if self.world.is_main:
                    remove_checkpoint(self._beside)
                    self._beside.mkdir(parents=True, exist_ok=True)
                    write_json(self._beside / "progress.json", asdict(progress))
        except DiskError as error:
            self._path = self._beside = None
            return problem or error
        state = state_of(model, optimiser)
        alone = self.world.size == 1
        pending = async_save(state, checkpoint_id=self._beside, process_group=self.world.saving, no_dist=alone)
        assert isinstance(pending, Future)
        self._pending, self._on_saved = pending, on_saved
        return problem

    def paths(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return checkpoints(self.folder)

    def finish(self) -> DiskError | None:
        """Wait for the checkpoint being written, then rename it to its final name. Returns its error, if any."""
        if self._pending is None or self._beside is None or self._path is None:
            return None
        problem: DiskError | None = None
        try:
            self._pending.result()
            if self.world.is_main:
                with explain_disk(self._path):
                    remove_checkpoint(self._path)
                    self._beside.rename(self._path)
        except DiskError as error:
            problem = error
        except (Exception, CheckpointException) as error:  # torch wraps the error of each rank
            problem = disk_error(error, self._path)
        finally:
            self._pending = None
        if self.world.is_main:
            if problem is not None:
                remove_checkpoint(self._beside)
            for old in checkpoints(self.folder)[: -self.keep]:
                remove_checkpoint(old)
        saved, self._on_saved = self._on_saved, None
        if all(self.world.gather(problem is None)) and saved is not None:
            saved(self._path)
        return problem

    def poll(self) -> DiskError | None:
        """Call `finish` if the write is done on every rank."""
        if self._pending is None or not all(self.world.gather(self._pending.done())):
            return None
        return self.finish()


def remove_unfinished(folder: Path) -> None:
    """Remove the incomplete checkpoints of a killed process. The caller must hold the run's lock."""
    for path in folder.glob(".step-*.tmp"):
        if _UNFINISHED.fullmatch(path.name):
            remove_checkpoint(path)


def remove_checkpoint(path: Path) -> None:
    """Remove the files of a checkpoint, and its folder if nothing else is in it. Of a symbolic link, only the link.

    `progress.json` is deleted first: without it, the rest does not count as a checkpoint if the process is killed.
    """
    if path.is_symlink():
        path.unlink()
        return
    with contextlib.suppress(OSError):
        (path / "progress.json").unlink(missing_ok=True)
        for file in path.iterdir():
            if _WRITTEN.fullmatch(file.name) and not file.is_dir():
                file.unlink()
        path.rmdir()


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first. Folders with other names, such as copies, are ignored."""
    found = [path for path in folder.glob("step-*") if FINISHED.fullmatch(path.name)]
    return sorted((path for path in found if (path / "progress.json").exists()), key=lambda path: int(path.name[5:]))


def read_progress(path: Path, stages: int | None = None) -> Progress:
    """Read the progress of a checkpoint.

    stages: number of stages of the run. Raises: CheckpointError if progress.json is damaged or names a later stage.
    """
    file, advice = path / "progress.json", "remove this folder to resume from an older one"
    try:
        progress = Progress(**read_json(file, CheckpointError))
    except TypeError as error:
        raise CheckpointError(f"{path}: progress.json cannot be read ({quoted(str(error))}); {advice}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {advice}") from None
    counts = (progress.stage, progress.step, progress.total_step)
    whole = all(type(count) is int and 0 <= count < 2**48 for count in counts) and progress.step <= progress.total_step
    if not whole or not isinstance(progress.run, str) or type(progress.seconds) not in (int, float):
        raise CheckpointError(f"{path}: progress.json cannot be read (its values are no counts); {advice}")
    if stages is not None and progress.stage >= stages:
        raise CheckpointError(f"{path}: was written in stage {progress.stage}, which the run has not; {advice}")
    return progress


def state_of(model: nn.Module, optimiser: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    """State to save: each parameter once (tied ones under their first name), detached, and the optimiser's moments."""
    state = {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}
    if optimiser is not None:
        for name, parameter in _named(optimiser):
            moments = optimiser.state[parameter]
            state |= {f"optimiser.{name}.{moment}": tensor for moment, tensor in moments.items()}
    return state


def restore(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None = None) -> None:
    """Load weights and moments in place, each rank its shard. Raises: CheckpointError naming what does not fit."""
    sizes = _stored_sizes(path)
    state = state_of(model, None)
    if optimiser is not None:
        state |= _empty_moments(path, sizes, optimiser)
    wanted = state.keys() | {name for name in sizes if name.startswith("model.")}
    wrong = sorted(name for name in wanted if name not in state or state[name].shape != sizes.get(name))
    if wrong:
        first = wrong[0].removeprefix("model.")
        raise CheckpointError(f"{path}: {len(wrong)} tensors do not fit the model, {first} first; was it another run?")
    try:
        load(state, storage_reader=CheckpointReader(path), no_dist=not dist.is_initialized())
    except (Exception, CheckpointException) as error:  # a damaged file fails in more ways than one can list
        raise _damaged(path, error) from error


def check_size(path: Path, model: nn.Module) -> None:
    """Refuse a checkpoint that holds fewer weights than a model has. Raises: CheckpointError."""
    stored = sum(size.numel() for name, size in _stored_sizes(path).items() if name.startswith("model."))
    wanted = sum(parameter.numel() for parameter in model.parameters())
    if stored < wanted:
        raise CheckpointError(f"{path}: holds {stored:,} weights, and the model has {wanted:,}; was it another run?")


def _stored_sizes(path: Path) -> dict[str, torch.Size]:
    try:
        stored = CheckpointReader(path).read_metadata().state_dict_metadata
    except (Exception, CheckpointException) as error:
        raise _damaged(path, error) from error
    return {name: getattr(entry, "size", torch.Size()) for name, entry in stored.items()}


def _empty_moments(path: Path, sizes: dict[str, torch.Size], optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Allocate in the optimiser the moments that the checkpoint holds, to be loaded; returns them by stored name."""
    moments: dict[str, list[str]] = {}
    for key in sizes:
        kind, _, rest = key.partition(".")
        if kind == "optimiser":
            name, _, moment = rest.rpartition(".")
            moments.setdefault(name, []).append(moment)
    state = {}
    for name, parameter in _named(optimiser):
        if name not in moments:
            raise CheckpointError(f"{path}: the optimiser state of {name} is missing; was it another run?")
        for moment in moments[name]:
            key = f"optimiser.{name}.{moment}"
            same = sizes[key] == parameter.shape
            if sizes[key].numel() > parameter.numel():
                raise CheckpointError(f"{path}: {key} is larger than the weights that it belongs to")
            tensor = torch.zeros_like(parameter.detach()) if same else torch.zeros(sizes[key], device=parameter.device)
            state[key] = optimiser.state[parameter][moment] = tensor
    return state


def _named(optimiser: torch.optim.Optimizer) -> list[tuple[str, Tensor]]:
    return [pair for group in optimiser.param_groups for pair in zip(group["names"], group["params"], strict=True)]


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return CheckpointError(f"{path}: cannot be read ({reason:.200}); remove its folder to resume from an older one")


def disk_error(error: BaseException, path: Path) -> DiskError:
    """The DiskError within an exception of the library. Raises: `error` itself if it has another cause."""
    failures = [pair[0] for pair in getattr(error, "failures", {}).values()] or [error]
    for failure in failures:
        seen: BaseException | None = failure
        while seen is not None and not isinstance(seen, OSError):
            seen = seen.__cause__ or seen.__context__
        full = "No space left" in str(failure) or "PytorchStreamWriter failed" in str(failure)
        if seen is not None or full:
            try:
                with explain_disk(path):
                    raise seen if isinstance(seen, OSError) else OSError(errno.ENOSPC, str(failure))
            except DiskError as explained:
                return explained
    raise error
