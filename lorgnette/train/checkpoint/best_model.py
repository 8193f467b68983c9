"""The best model of a run so far, in `FOLDER/best`: a copy of the model in training with its adapters merged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from lorgnette.hub.export import save
from lorgnette.hub.load import assign, load
from lorgnette.inputs.processor import Processor
from lorgnette.model.vlm import VLM
from lorgnette.output import say
from lorgnette.run import Run
from lorgnette.train.adapters.peft import merge_adapters
from lorgnette.train.callbacks import Callback, TrainerState
from lorgnette.train.logging.log import read_log
from lorgnette.train.logging.progress import ProgressDisplay
from lorgnette.train.parallel import unshard


class BestByLoss(Callback):
    """Keeps the model with the lowest mean loss of the validation sources (`validation.keep_best`).

    A run that is resumed compares with the rows of its `validation.jsonl`, so that it keeps the same model.
    """

    def __init__(self, processor: Processor, display: ProgressDisplay) -> None:
        self.processor, self.display = processor, display

    def on_evaluation(self, run: Run, state: TrainerState, kind: str, values: Mapping[str, float]) -> None:
        """Raises: DiskError, on every rank alike, if the model cannot be written."""
        if kind != "validation" or not values or not run.validation.keep_best:
            return
        step = state.progress.total_step
        is_best = fmean(values.values()) < lowest_loss(state.folder, step)
        if not state.world.gather(is_best)[0]:  # the first rank has the log
            return
        copy = unshard(state.model, state.stage)
        merge_adapters(copy)
        with state.world.alike():
            if state.world.is_main:
                save(copy.cpu(), self.processor, state.folder / "best")
                say(self.display.console, f"step {step}: the lowest loss so far, kept in {state.folder / 'best'}")


def lowest_loss(folder: Path, before: int) -> float:
    """The lowest mean loss of validations before a step, as the log has them; infinity if there is none."""
    rows = read_log(folder / "validation.jsonl")
    losses = [fmean(row["losses"].values()) for row in rows if row["total_step"] < before and row.get("losses")]
    return min(losses, default=float("inf"))


def take_best(model: VLM, run: Run, folder: Path) -> None:
    """Give a model the weights of `FOLDER/best`, in place, where the run keeps the best by loss."""
    if run.validation.keep_best and (folder / "best").is_dir():
        best, _ = load(folder / "best")
        assign(model, dict(best.named_parameters()), model.device)
