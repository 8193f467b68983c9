"""Periodic evaluation during training, of a copy of the model with its adapters merged; the best copy is kept."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from rich.console import Console

from lorgnette.errors import LorgnetteError
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.eval.results.rank_files import Rank
from lorgnette.eval.results.store import ResultsFolder
from lorgnette.eval.runner import evaluate
from lorgnette.eval.task import Task
from lorgnette.eval.tasks import names_in, task_named
from lorgnette.eval.tasks.builtin import drawings
from lorgnette.files import DiskError
from lorgnette.hub.export import save
from lorgnette.inputs.processor import Processor
from lorgnette.model.vlm import VLM
from lorgnette.output import say
from lorgnette.run import EvaluationConfig, Run, StageConfig
from lorgnette.train.adapters.peft import merge_adapters
from lorgnette.train.logging.log import read_log
from lorgnette.train.parallel import DistributedContext, unshard
from lorgnette.train.validation import is_due


def task_of(name: str, config: EvaluationConfig) -> Task:
    """The task of a benchmark as a run evaluates it. Raises: SettingsError or DataError if there is none."""
    if name == "drawings":
        return drawings(config.questions, config.seed, config.max_tokens)
    return task_named(name)


class Evaluation:
    """Periodic evaluation of a run on its benchmarks. Ranks share the questions. The model in training is only read.

    Every answer is stored in `FOLDER/evaluation/step-NNNNNN/TASK`, so that an interrupted evaluation is resumed; the
    model with the best mean so far is `FOLDER/best`.
    Raises: SettingsError or DataError if there is no such task, before the first step.
    """

    def __init__(self, run: Run, folder: Path, processor: Processor, world: DistributedContext) -> None:
        self.run, self.config, self.folder = run, run.evaluation, folder
        self.processor, self.world = processor, world
        names = names_in(",".join(self.config.tasks)) if self.config.every else []
        self.tasks = {name: task_of(name, self.config) for name in names}

    def due(self, step: int, steps: int) -> bool:
        """True if an evaluation is due after so many steps of a stage."""
        return is_due(self.config.every, step, steps)

    def scores(self, model: VLM, stage: StageConfig, total_step: int, console: Console) -> dict[str, float]:
        """The score of each task in percent. Every rank must ask, and all get the same.

        A task with a row that cannot be read is not scored; that is said on the console, and ends nothing.

        Raises: DiskError, on every rank alike, if an answer or the best model cannot be stored on one of them.
        """
        copy = unshard(model, stage)
        merge_adapters(copy)
        identity = f"{self.run.identity} step {total_step}"
        answerer = LorgnetteModel(copy.to(self.world.device).eval(), self.processor, identity=identity)
        place = self.folder / "evaluation" / f"step-{total_step:06d}"
        found = {}
        for name, task in self.tasks.items():
            store = ResultsFolder(place / name.replace(":", "-"), Rank(self.world.rank, self.world.size))
            try:
                with self.world.alike():
                    limit, seed, size = self.config.questions, self.config.seed, self.config.batch_size
                    evaluate(task, answerer, limit=limit, seed=seed, batch_size=size, folder=store)
            except DiskError:
                raise
            except LorgnetteError as error:
                if self.world.is_main:
                    sentence = f"step {total_step}: {name} is not scored, and training continues: {error}"
                    console.print(sentence, highlight=False, markup=False, soft_wrap=True)
                continue
            found[name] = self.world.gather(store.result().accuracy)[0]
        complete = self.config.keep_best and len(found) == len(self.tasks)
        with self.world.alike():
            if complete and self.world.is_main and fmean(found.values()) > self._best_before(total_step):
                save(copy.cpu(), self.processor, self.folder / "best")
                say(console, f"step {total_step}: the best so far, kept in {self.folder / 'best'}")
        return found

    def _best_before(self, total_step: int) -> float:
        """The best mean of evaluations before a step, as the log has them."""
        rows = read_log(self.folder / "evaluation.jsonl")
        whole = [
            row for row in rows if row["total_step"] < total_step and len(row.get("scores", ())) == len(self.tasks)
        ]
        return max((fmean(row["scores"].values()) for row in whole), default=float("-inf"))
