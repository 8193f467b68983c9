"""The training loop, for every stage of every run: build, restore, then step by step.

A run's folder holds `run.yaml` (its settings), `log.jsonl` (one row per step), `validation.jsonl`, `evaluation.jsonl`
and `best/` where they are asked for, `checkpoints/` and, after stages with adapters, `adapters/`. Starting it again
goes on from the last checkpoint, to the same weights bit for bit on the CPU.
"""

from __future__ import annotations

import json
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
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
from lorgnette.files import DiskError, write_text
from lorgnette.hub.export import save
from lorgnette.hub.load import assign
from lorgnette.model.account import Account
from lorgnette.model.ops.allocator import keep_freed_memory
from lorgnette.model.vlm import VLM
from lorgnette.output import new_console, say
from lorgnette.run import Run, StageConfig
from lorgnette.train import parallel
from lorgnette.train.adapters.neftune import Neftune
from lorgnette.train.adapters.peft import adapted_layers, base_tensors, merge_adapters, save_adapters
from lorgnette.train.checkpoint import manager
from lorgnette.train.checkpoint.claim import claim
from lorgnette.train.checkpoint.debug_step import keep_step
from lorgnette.train.checkpoint.unchanged import check_unchanged
from lorgnette.train.data import build_data, doubts, prepare_stages
from lorgnette.train.divergence import MOST_REWINDS, MOST_SKIPS, DivergedError, DivergenceMonitor, Finding
from lorgnette.train.evaluation import Evaluation
from lorgnette.train.gradients import parallel_microbatches
from lorgnette.train.logging.log import Log, StepMetrics, read_log
from lorgnette.train.logging.progress import ProgressDisplay
from lorgnette.train.logging.trackers import Tracker, figures
from lorgnette.train.optim import build_optimiser, schedule, set_lr
from lorgnette.train.setup import build, resolve, stage_processor
from lorgnette.train.signals import stop_on_signals
from lorgnette.train.stages import check_parts, drops, pack_flops, prepare_parts
from lorgnette.train.step import NotFiniteError, StepResult, train_step
from lorgnette.train.validation import Validation, unseen_sources


class Interrupted(LorgnetteError):
    """Training was asked to stop (Ctrl-C, SIGTERM or its time limit); what was done is saved."""

    status = 75
    """As sysexits.h has it for what should be tried again: a script can tell it from a failure. Not from torchrun's own
    status, which is 1 whatever its processes end with."""
    alike = True


Callback = Callable[["Trainer", StepMetrics], None]
"""Called after each step, before a checkpoint: for evaluation during training, say. It may not change the model."""


class Trainer:
    """A run in progress: the model, where it stands, and where it writes.

    folder: created if missing. Resumes an unfinished run with the same settings, except for the `CHANGEABLE`.
    limit_s: seconds after which to save and stop. changed_data: go on though a source is not what it was.
    Under torchrun every process makes a Trainer of the same folder.
    Raises: SettingsError if the folder holds a run of other settings.
    """

    def __init__(
        self,
        run: Run,
        folder: Path,
        console: Console | None = None,
        *,
        limit_s: float | None = None,
        trackers: Sequence[Tracker] = (),
        callbacks: Sequence[Callback] = (),
        changed_data: bool = False,
    ) -> None:
        self.world = parallel.start_distributed()
        self.run, self.folder = resolve(run), folder
        console = (console or new_console()) if self.world.is_main else new_console(quiet=True)
        self.display = ProgressDisplay(console, self.world.device)
        self.trackers, self.callbacks, self._changed_data = trackers, callbacks, changed_data
        self._end = None if limit_s is None else time.monotonic() + limit_s
        torch.set_num_threads(run.threads or torch.get_num_threads())
        if self.world.device.type == "cpu":
            keep_freed_memory()
        self._release = weakref.finalize(self, claim(folder, self.run, self.world))
        self.model, self.processor = build(self.run)
        found = manager.checkpoints(self._checkpoints)
        self._restore_from = found[-1] if found else None
        self.progress = (
            manager.read_progress(found[-1], len(run.stages))
            if found
            else manager.Progress(self.run.digest(), 0, 0, 0, seconds=0.0)
        )
        self._keeper = manager.CheckpointManager(self._checkpoints, self.run.checkpoints.keep, self.world)
        self._stop = False

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def train(self) -> VLM:
        """Train all stages to their end. Returns the model, adapters merged.

        Raises: Interrupted on Ctrl-C, SIGTERM or the time limit, after saving; DivergedError where the settings say to
        stop; any LorgnetteError that a sample or a step met.
        """
        with ExitStack() as stack:
            stack.callback(self._release)
            log = Log(self.folder / "log.jsonl", self.progress.total_step) if self.world.is_main else None
            if log:
                stack.callback(log.close)
            for tracker in self.trackers:
                stack.callback(tracker.close)
            self._check_stages()
            stack.enter_context(stop_on_signals(self))
            stack.enter_context(self.display)
            for number in range(self.progress.stage, len(self.run.stages)):
                StageRun(self, number).train(log)
                self._end_stage(self.run.stages[number])
        self.model.eval()
        return self.model

    def _check_stages(self) -> None:
        """Prepare the data of the stages to come, and find now what could not begin hours later."""
        check_parts(self.run.model, self.run.stages[self.progress.stage :])
        prepare_stages(self.run, self.processor, self.display.console if self.world.is_main else None)
        check_unchanged(self.run, self.processor, self.folder, self.progress, self.world, accept=self._changed_data)
        for number in range(self.progress.stage, len(self.run.stages)):
            stage = self.run.stages[number]
            unseen_sources(self.run, stage)
            for sentence in doubts(stage, build_data(self.run, number, self.processor)):
                self.display.warn(sentence)

    def _end_stage(self, stage: StageConfig) -> None:
        """Take apart what the stage put around the model, and merge its adapters."""
        if problem := self._keeper.finish():
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
        save_adapters(self.model, stage, folder)
        with torch.device("meta"):
            base = VLM(self.run.model)
        assign(base, base_tensors(self.model))
        save(base, self.processor, folder / "base")

    def _advance(self, stage: int, step: int, seconds: float) -> None:
        self.progress = manager.Progress(
            self.progress.run, stage, step, self.progress.total_step + 1, self.progress.seconds + seconds
        )

    def asked_to_stop(self) -> bool:
        """Return whether any rank was asked to stop, or its time is over."""
        over = self._end is not None and time.monotonic() > self._end
        return any(self.world.gather(self._stop or over))


class StageRun:
    """One stage of a trainer's run, from its first step or from where a checkpoint stands."""

    def __init__(self, trainer: Trainer, number: int) -> None:
        self.trainer, self.number, self.run = trainer, number, trainer.run
        self.stage, self.world = self.run.stages[number], trainer.world
        progress = trainer.progress
        self.finished = progress.step if progress.stage == number else 0
        model = trainer.model
        self.parts = prepare_parts(model, self.stage, seed=self.run.seed + number)
        model.z_loss = self.stage.z_loss
        parallel.apply(model, self.run, self.stage, self.world)
        self.model, self.optimiser = model, build_optimiser(model, self.stage)
        if trainer._restore_from is not None:
            manager.restore(trainer._restore_from, model, self.optimiser if self.finished else None)
            trainer._restore_from = None
        self.processor = stage_processor(trainer.processor, self.run, self.stage)
        self._flops = partial(pack_flops, Account(self.run.model), self.stage)
        self.noise = Neftune(model, self.stage.neftune, dropout=drops(self.stage))
        self.guard = DivergenceMonitor(self.run.divergence, self.stage.warmup)
        self.guard.replay(row for row in read_log(trainer.folder / "log.jsonl") if row["stage"] == self.stage.name)
        self._rewinds: Counter[int] = Counter()
        self._origins: dict[int, int] = {}
        self._found: Finding | None = None
        self._spike = ""

    def train(self, log: Log | None) -> None:
        """Take the steps that are left."""
        trainer, stage = self.trainer, self.stage
        steps = build_data(
            self.run,
            self.number,
            self.processor,
            folder=trainer.folder,
            rank=self.world.rank,
            world=self.world.size,
        )
        validation = Validation(self.run, stage, self.processor, self.world)
        for sentence in validation.unread:
            trainer.display.warn(sentence)
        evaluation = Evaluation(self.run, trainer.folder, trainer.processor, self.world)
        if self.finished < stage.steps:
            trainer.display.start(stage.name, stage.steps, self.finished, self.parts)
            self._save_to_rewind()
        self.model.train()
        with self.noise:
            before = time.perf_counter()
            for step, batches in enumerate(
                read_steps(steps, self.finished, stage.steps, self.run.loader), self.finished
            ):
                waited = time.perf_counter() - before
                result = self._step(step, batches)
                now = time.perf_counter()
                trainer._advance(self.number, step + 1, now - before)
                row = self._row(step, batches, result, waited)
                self._tell(row, log, now - before)
                if validation.due(step + 1, stage.steps):
                    self._tell_unseen("validation", "losses", validation.losses(self.model))
                if evaluation.due(step + 1, stage.steps):
                    with trainer.display.despite_full_disk():
                        scores = evaluation.scores(self.model, stage, row.total_step, trainer.display.console)
                        self._tell_unseen("evaluation", "scores", scores)
                for callback in trainer.callbacks:
                    callback(trainer, row)
                    self.model.train()
                before = time.perf_counter()
                self._save_if_due(last=step + 1 == stage.steps)

    def _step(self, step: int, batches: list[TrainingBatch]) -> StepResult:
        """One update, or none where the guard says so. Raises: NotFiniteError, DivergedError."""
        self.noise.seed = seed = int(hashed(self.run.seed, self.number, step)[0] >> 1)
        set_lr(self.optimiser, schedule(self.stage, step))
        self._found, self._spike = None, ""
        before = self.trainer.progress
        if before.stage != self.number:
            before = manager.Progress(before.run, self.number, 0, before.total_step, before.seconds)
        try:
            accept, at_once = partial(self._accept, step), parallel_microbatches(self.run, self.stage, self.world)
            max_grad_norm, world = self.stage.max_grad_norm, self.world
            result = train_step(self.model, batches, self.optimiser, max_grad_norm, world, accept, at_once, self._flops)
        except NotFiniteError as error:
            try:
                path = keep_step(self.trainer.folder / "replay", before, batches, self.model, seed, self.world)
            except DiskError as full:
                raise NotFiniteError(f"{error}; the step is not kept to be looked at: {full}") from None
            raise NotFiniteError(f"{error}; see what happens by `lorgnette train --replay {path}`") from None
        except DivergedError:
            self.trainer._keeper.save(before, self.model, self.optimiser)
            self.trainer._keeper.finish()
            raise
        if self._found and self.run.divergence.act == "rewind":
            self._rewind(self._found.since)
        return result

    def _accept(self, step: int, result: StepResult) -> bool:
        """Return whether to learn from a step; says what looks like divergence. Raises: DivergedError."""
        self._found = found = self.world.gather(self.guard.see(step, result.loss, result.grad_norm))[0]
        if not found:
            return True
        act, total = self.run.divergence.act, self.trainer.progress.total_step + 1
        if act == "stop":
            raise DivergedError(
                f"step {total} looks like divergence ({found.said}), and divergence.act is stop; the state before it is"
                " saved: set divergence.act to report or rewind, or lower the learning rate in another folder"
            )
        if act == "skip" and found.since is not None:
            act = "report"
        if act == "skip" and self.guard.spikes > MOST_SKIPS:
            raise DivergedError(
                f"step {total} would be skipped after {MOST_SKIPS} others in a row ({found.said}): no spike, but what"
                " training now gives; the state before it is saved: set divergence.act to report or rewind, or lower"
                " the learning rate in another folder"
            )
        done = {"report": "learned all the same", "skip": "skipped", "rewind": "going back"}[act]
        self._spike = f"{found.said}: {done}"
        self.trainer.display.warn(f"step {total}: {self._spike}")
        return act == "report"

    def _rewind(self, since: int | None) -> None:
        """Back to the weights of the last checkpoint, or of the last before a rise (else the oldest); data go on."""
        self.trainer._keeper.finish()
        kept = [(manager.read_progress(path), path) for path in manager.checkpoints(self.trainer._checkpoints)]
        kept = [(at, path) for at, path in kept if at.stage == self.number]
        if not kept:
            raise DivergedError("there is no checkpoint of this stage to go back to: see what was said when it was due")
        at, path = next((pair for pair in reversed(kept) if since is None or pair[0].step <= since), kept[0])
        origin = self._origins.get(at.total_step, at.total_step)
        self._origins[self.trainer.progress.total_step + 1] = origin  # what is saved next holds the same weights
        self._rewinds[origin] += 1
        if self._rewinds[origin] > MOST_REWINDS:
            raise DivergedError(
                f"went back to the weights of step {origin} {MOST_REWINDS} times, and every time training diverged"
                " again: lower the learning rate, or freeze more of the model or adapt it by lora"
            )
        manager.restore(path, self.model, self.optimiser if at.step else None)
        if not at.step:
            self.optimiser.state.clear()

    def _row(self, step: int, batches: list[TrainingBatch], result: StepResult, waited: float) -> StepMetrics:
        gathered = self.world.gather(
            (
                digest_of(ref for batch in batches for ref in batch.refs),
                tuple(sentence for batch in batches for sentence in batch.replaced),
                sum(map(self._flops, batches)),
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
            learned=result.learned,
            images=result.images,
            seconds=self.trainer.progress.seconds,
            waited=waited,
            data=joined(digest for digest, _, _ in gathered),
            replaced=tuple(sentence for _, replaced, _ in gathered for sentence in replaced),
            sources=result.sources,
            flops=sum(flops for _, _, flops in gathered) / self.world.size,
            spike=self._spike,
        )

    def _tell(self, row: StepMetrics, log: Log | None, seconds: float) -> None:
        if log:
            with self.trainer.display.despite_full_disk():
                log.write(row)
        self.trainer.display.advance(row, seconds)
        for tracker in self.trainer.trackers:
            tracker.log(row.total_step, figures(row, seconds))

    def _tell_unseen(self, name: str, kind: str, values: dict[str, float]) -> None:
        """Write what was found on unseen samples: `losses` of a validation, or `scores` of an evaluation."""
        step = self.trainer.progress.total_step
        if self.world.is_main:
            path = self.trainer.folder / f"{name}.jsonl"
            rows = [row for row in read_log(path) if row["total_step"] < step]
            rows.append({"total_step": step, "stage": self.stage.name, kind: values})
            with self.trainer.display.despite_full_disk():
                write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
        said = ", ".join(f"{key} {value:.3f}" for key, value in values.items())
        say(self.trainer.display.console, f"step {step}: {name} {kind} {said}")
        for tracker in self.trainer.trackers:
            tracker.log(step, {f"{name}/{key}": value for key, value in values.items()})

    def _save_to_rewind(self) -> None:
        """A run that may go back needs a place to go back to."""
        if self.run.divergence.act == "rewind" and not self.finished:
            progress = self.trainer.progress
            start = manager.Progress(progress.run, self.number, 0, progress.total_step, progress.seconds)
            self.trainer._keeper.save(start, self.model, self.optimiser)

    def _save_if_due(self, last: bool) -> None:
        """Begin a checkpoint where one is due. A full disk is said, and training goes on."""
        trainer, keeper = self.trainer, self.trainer._keeper
        stop = trainer.asked_to_stop()
        rewound = self._found is not None and self.run.divergence.act == "rewind"
        if last or stop or rewound or trainer.progress.step % self.run.checkpoints.every == 0:
            problems = [keeper.save(trainer.progress, self.model, self.optimiser), keeper.finish() if stop else None]
        else:
            problems = [keeper.poll()]
        for problem in problems:
            if problem and stop:
                raise problem
            if problem:
                trainer.display.warn_of_disk(problem)
        if stop and trainer.progress.total_step < self.run.steps:
            raise Interrupted(
                f"stopped after step {trainer.progress.total_step} of {self.run.steps}, which is saved in"
                f" {trainer.folder}; the same command goes on from there"
            )
