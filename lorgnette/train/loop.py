"""The training loop, for every stage of every run: build, restore, then step by step.

A run's folder holds `run.yaml` (its settings), `log.jsonl` (one row per step), `validation.jsonl`, `evaluation.jsonl`
and `best/` where they are asked for, `checkpoints/` and, after stages with adapters, `adapters/`. Restarting resumes
from the last checkpoint, to the same weights bit for bit on the CPU.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from lorgnette.data.loader.training_batch import TrainingBatch
from lorgnette.data.loader.workers import read_steps
from lorgnette.data.plan.augment import hashed
from lorgnette.data.plan.sample_ref import digest_of, joined
from lorgnette.errors import LorgnetteError
from lorgnette.files import DiskError
from lorgnette.hub.card import model_card
from lorgnette.hub.export import save
from lorgnette.hub.formats.format import adapted_format
from lorgnette.hub.load import assign
from lorgnette.model.flops import ModelCost
from lorgnette.model.ops.allocator import keep_freed_memory
from lorgnette.model.vlm import VLM
from lorgnette.output import new_console
from lorgnette.run import Run, StageConfig
from lorgnette.train import parallel
from lorgnette.train.adapters.neftune import Neftune
from lorgnette.train.adapters.peft import adapted_layers, base_tensors, merge_adapters, save_adapters
from lorgnette.train.callbacks import Callback, CallbackList, StepMetrics, TrainerState
from lorgnette.train.checkpoint.best_model import BestByLoss, take_best
from lorgnette.train.checkpoint.claim import claim
from lorgnette.train.checkpoint.debug_step import keep_step
from lorgnette.train.checkpoint.manager import CheckpointManager, Progress, read_progress, restore
from lorgnette.train.checkpoint.unchanged import check_unchanged
from lorgnette.train.data import build_data, doubts, prepare_stages, stage_processor
from lorgnette.train.divergence import DivergedError, DivergencePolicy
from lorgnette.train.evaluation import Evaluation
from lorgnette.train.gradients import parallel_microbatches
from lorgnette.train.logging.log import StepLog, read_log
from lorgnette.train.logging.progress import ProgressDisplay
from lorgnette.train.logging.run_card import run_facts
from lorgnette.train.logging.trackers import open_trackers
from lorgnette.train.optim import build_optimiser, schedule, set_lr
from lorgnette.train.planner.requirements import check_packages
from lorgnette.train.setup import build_model, build_processor, check_fit, resolve
from lorgnette.train.signals import stop_on_signals
from lorgnette.train.stages import check_parts, drops, pack_flops, prepare_parts
from lorgnette.train.step import NotFiniteError, StepResult, train_step
from lorgnette.train.validation import Validation, unseen_sources


class Interrupted(LorgnetteError):
    """Training was asked to stop (Ctrl-C, SIGTERM or its time limit); its progress is saved."""

    status = 75
    """EX_TEMPFAIL of sysexits.h, so that a script can tell it from a failure. torchrun's own status is always 1."""
    alike = True


class Trainer:
    """A run in progress: the model, its progress, and the folder that it is written to.

    folder: created if missing. Resumes an unfinished run with the same settings, except the `CHANGEABLE`.
    limit_s: seconds after which to save and stop. changed_data: resume although a source has changed.
    Under torchrun every process makes a Trainer of the same folder.
    Sources are prepared first, and weights built then.
    Raises: SettingsError if the folder holds a run of other settings; DataError for a source that cannot be used.
    """

    def __init__(
        self,
        run: Run,
        folder: Path,
        console: Console | None = None,
        *,
        limit_s: float | None = None,
        callbacks: Sequence[Callback] = (),
        changed_data: bool = False,
    ) -> None:
        check_packages(run)
        check_fit(run)
        self.world = parallel.start_distributed(run.device)
        parallel.half_precision(run, self.world)  # refused now, if it is not possible here
        self.run, self.folder = resolve(run), folder
        console = (console or new_console()) if self.world.is_main else new_console(quiet=True)
        self.display = ProgressDisplay(console, self.world.device)
        log = [StepLog(folder / "log.jsonl")] if self.world.is_main else []
        self._changed_data, self._stop = changed_data, False
        self._deadline = None if limit_s is None else time.monotonic() + limit_s
        torch.set_num_threads(run.threads or torch.get_num_threads())
        if self.world.device.type == "cpu":
            keep_freed_memory()
        self._release = weakref.finalize(self, claim(folder, self.run, self.world))
        self.processor = build_processor(self.run)
        prepare_stages(self.run, self.processor, console if self.world.is_main else None)  # before weights are built
        self.model = build_model(self.run)
        best = [BestByLoss(self.processor, self.display)] if self.run.validation.keep_best else []
        self.callbacks: list[Callback] = [*log, self.display, *best, *callbacks]
        self.checkpoints = CheckpointManager(folder / "checkpoints", self.run.checkpoints.keep, self.world)
        self._restore_from = next(reversed(self.checkpoints.paths()), None)
        self.progress = Progress(self.run.digest(), 0, 0, 0, seconds=0.0)
        if self._restore_from is not None:
            self.progress = read_progress(self._restore_from, len(run.stages))
        self.step_seconds = 0.0

    @property
    def state(self) -> TrainerState:
        """State of the run now."""
        stage = self.run.stages[self.progress.stage]
        return TrainerState(self.progress, stage, self.model, self.folder, self.world, self.step_seconds, self.stop)

    @property
    def events(self) -> CallbackList:
        """Callbacks, called in turn."""
        return CallbackList(self.callbacks, self.display.despite_full_disk)

    def train(self) -> VLM:
        """Train all stages to their end. Returns the model, adapters merged: the best where `validation.keep_best` asks
        for it, else the last.

        Raises: Interrupted on Ctrl-C, SIGTERM or the time limit, after saving; DivergedError where the settings say to
        stop; any LorgnetteError of a sample or a step.
        """
        with ExitStack() as stack:
            stack.callback(self._release)
            for callback in self.callbacks:
                stack.callback(self._end, callback)
                callback.on_run_begin(self.run, self.state)
            self._check_stages()
            stack.enter_context(stop_on_signals(self.stop))
            stack.enter_context(self.display)
            for number in range(self.progress.stage, len(self.run.stages)):
                StageRun(self, number, self._restore_from).train()
                self._restore_from = None
                self._end_stage(self.run.stages[number])
        take_best(self.model, self.run, self.folder)
        self.model.eval()
        return self.model

    def stop(self) -> None:
        """Save and stop after the step in flight, on all ranks. `train` then raises Interrupted."""
        self._stop = True

    def asked_to_stop(self) -> bool:
        """True if any rank was asked to stop, or its time is over."""
        over = self._deadline is not None and time.monotonic() > self._deadline
        return any(self.world.gather(self._stop or over))

    def _end(self, callback: Callback) -> None:
        callback.on_run_end(self.run, self.state)

    def _check_stages(self) -> None:
        """Find now what could not begin hours later, when a remaining stage begins."""
        check_parts(self.run.model, self.run.stages[self.progress.stage :])
        check_unchanged(self.run, self.processor, self.folder, self.progress, self.world, accept=self._changed_data)
        for number in range(self.progress.stage, len(self.run.stages)):
            stage = self.run.stages[number]
            unseen_sources(self.run, stage)
            for sentence in doubts(stage, build_data(self.run, number, self.processor)):
                self.display.warn(sentence)

    def _end_stage(self, stage: StageConfig) -> None:
        """Unshard the model, and merge the stage's adapters into it."""
        if problem := self.checkpoints.finish():
            self.display.warn_of_disk(problem)
        if parallel.is_sharded(self.model):
            self.model = parallel.unshard(self.model, stage)
        if adapted_layers(self.model) and stage.lora.keep and self.world.is_main:
            with self.display.despite_full_disk():
                self._keep_adapters(stage, self.folder / "adapters" / stage.name)
        merge_adapters(self.model)

    def _keep_adapters(self, stage: StageConfig, folder: Path) -> None:
        if (folder / "base").exists():  # it is written last
            return
        form = adapted_format(self.run.model, self.processor)
        save_adapters(self.model, stage, folder, form)
        with torch.device("meta"):
            base = VLM(self.run.model)
        assign(base, base_tensors(self.model))
        save(base, self.processor, folder / "base", form=form)


def train(
    run: Run,
    folder: Path,
    console: Console | None = None,
    *,
    limit_s: float | None = None,
    trackers: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    changed_data: bool = False,
) -> VLM:
    """Train a run, and write its model to `folder/model`: `lorgnette train`. Returns the model, adapters merged.

    trackers: names of experiment trackers, of `TRACKERS`. The others are those of `Trainer`, which says what is raised.
    """
    trainer = Trainer(run, folder, console, limit_s=limit_s, callbacks=callbacks, changed_data=changed_data)
    try:
        if trainer.world.is_main:
            trainer.callbacks += open_trackers(trackers, trainer.run, folder)
        model = trainer.train()
        if trainer.world.is_main:
            card = model_card(model, folder.resolve().name, run_facts(trainer.run, folder))
            save(model, trainer.processor, folder / "model", card=card)
        return model
    finally:
        parallel.end_distributed()


class StageRun:
    """One stage of a trainer's run, from its first step or from a checkpoint."""

    def __init__(self, trainer: Trainer, number: int, restore_from: Path | None) -> None:
        self.trainer, self.number, self.run = trainer, number, trainer.run
        self.stage, self.world = self.run.stages[number], trainer.world
        trainer.progress = trainer.progress.in_stage(number)
        self.finished = trainer.progress.step
        model = trainer.model
        self.parts = prepare_parts(model, self.stage, seed=self.run.seed + number)
        model.z_loss = self.stage.z_loss
        parallel.apply(model, self.run, self.stage, self.world)
        self.model, self.optimiser = model, build_optimiser(model, self.stage)
        if restore_from is not None:
            restore(restore_from, model, self.optimiser if self.finished else None)
        self.processor = stage_processor(trainer.processor, self.run, self.stage)
        self.flops = partial(pack_flops, ModelCost(self.run.model), self.stage)
        self.noise = Neftune(model, self.stage.neftune, dropout=drops(self.stage))
        config, warn = self.run.divergence, trainer.display.warn
        self.divergence = DivergencePolicy(config, self.stage.warmup, trainer.checkpoints, warn)
        rows = read_log(trainer.folder / "log.jsonl")
        self.divergence.monitor.replay(row for row in rows if row["stage"] == self.stage.name)

    def train(self) -> None:
        """Take the remaining steps."""
        trainer, stage, rank, ranks = self.trainer, self.stage, self.world.rank, self.world.size
        data = build_data(self.run, self.number, self.processor, folder=trainer.folder, rank=rank, world=ranks)
        self.validation = Validation(self.run, stage, self.processor, self.world)
        for sentence in self.validation.unread:
            trainer.display.warn(sentence)
        self.evaluation = Evaluation(self.run, trainer.folder, trainer.processor, self.world)
        if self.finished < stage.steps:
            trainer.display.start(stage.name, stage.steps, self.finished, self.parts)
        if self.finished == 0 and self.run.divergence.act == "rewind":
            self._save()  # to rewind to
        self.model.train()
        with self.noise:
            before = time.perf_counter()
            steps = read_steps(data, self.finished, stage.steps, self.run.loader)
            for step, batches in enumerate(steps, self.finished):
                waited = time.perf_counter() - before
                result = self._step(step, batches)
                trainer.step_seconds = time.perf_counter() - before
                trainer.progress = trainer.progress.after_step(trainer.step_seconds)
                trainer.events.on_step_end(self.run, trainer.state, self._metrics(step, batches, result, waited))
                self._evaluate(step + 1)
                self.model.train()
                before = time.perf_counter()
                self._save_if_due(last=step + 1 == stage.steps)

    def _step(self, step: int, batches: list[TrainingBatch]) -> StepResult:
        """One update, or none if divergence is skipped or rewound from. Raises: NotFiniteError, DivergedError."""
        self.noise.seed = seed = int(hashed(self.run.seed, self.number, step)[0] >> 1)
        set_lr(self.optimiser, schedule(self.stage, step))
        before = self.trainer.progress
        try:
            accept = partial(self.divergence.accept, step, before.total_step + 1)
            at_once = parallel_microbatches(self.run, self.stage, self.world)
            max_norm, world = self.stage.max_grad_norm, self.world
            result = train_step(self.model, batches, self.optimiser, max_norm, world, accept, at_once, self.flops)
        except NotFiniteError as error:
            try:
                path = keep_step(self.trainer.folder / "replay", before, batches, self.model, seed, self.world)
            except DiskError as full:
                raise NotFiniteError(f"{error}; the step is not kept to be looked at: {full}") from None
            raise NotFiniteError(f"{error}; see what happens by `lorgnette train --replay {path}`") from None
        except DivergedError:
            self._save()
            self.trainer.checkpoints.finish()
            raise
        if self.divergence.rewinds:
            self.divergence.rewind(before, self.model, self.optimiser)
        return result

    def _metrics(self, step: int, batches: list[TrainingBatch], result: StepResult, waited: float) -> StepMetrics:
        gathered = self.world.gather(
            (
                digest_of(ref for batch in batches for ref in batch.refs),
                tuple(sentence for batch in batches for sentence in batch.replaced),
                sum(map(self.flops, batches)),
            )
        )
        return StepMetrics(
            total_step=self.trainer.progress.total_step,
            stage=self.stage.name,
            step=step + 1,
            loss=result.loss,
            lr=self.stage.lr * schedule(self.stage, step),
            grad_norm=result.grad_norm,
            samples=result.samples,
            tokens=result.tokens,
            supervised_tokens=result.supervised_tokens,
            images=result.images,
            seconds=self.trainer.progress.seconds,
            waited=waited,
            data=joined(digest for digest, _, _ in gathered),
            replaced=tuple(sentence for _, replaced, _ in gathered for sentence in replaced),
            sources=result.sources,
            flops=sum(flops for _, _, flops in gathered) / self.world.size,
            spike=self.divergence.said,
        )

    def _evaluate(self, steps: int) -> None:
        """Validate and evaluate, where either is due after so many steps of the stage."""
        trainer = self.trainer
        if self.validation.due(steps, self.stage.steps):
            trainer.events.on_evaluation(self.run, trainer.state, "validation", self.validation.losses(self.model))
        if self.evaluation.due(steps, self.stage.steps):
            with trainer.display.despite_full_disk():
                total_step, console = trainer.progress.total_step, trainer.display.console
                scores = self.evaluation.scores(self.model, self.stage, total_step, console)
                trainer.events.on_evaluation(self.run, trainer.state, "evaluation", scores)

    def _save(self) -> DiskError | None:
        """Start a checkpoint. Returns the error of the one before, if any."""
        trainer = self.trainer
        return trainer.checkpoints.save(trainer.progress, self.model, self.optimiser, self._saved)

    def _saved(self, path: Path) -> None:
        self.trainer.events.on_checkpoint(self.run, self.trainer.state, path)

    def _save_if_due(self, last: bool) -> None:
        """Start a checkpoint where one is due. An error of the disk is printed, and training continues.

        Raises: Interrupted, after saving, where training was asked to stop; DiskError if that save fails.
        """
        trainer = self.trainer
        stop = trainer.asked_to_stop()
        if last or stop or self.divergence.rewinds or trainer.progress.step % self.run.checkpoints.every == 0:
            problems = [self._save(), trainer.checkpoints.finish() if stop else None]
        else:
            problems = [trainer.checkpoints.poll()]
        for problem in problems:
            if problem and stop:
                raise problem
            if problem:
                trainer.display.warn_of_disk(problem)
        if stop and trainer.progress.total_step < self.run.steps:
            raise Interrupted(
                f"stopped after step {trainer.progress.total_step} of {self.run.steps}, which is saved in"
                f" {trainer.folder}; the same command resumes from there"
            )
