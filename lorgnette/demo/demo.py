"""The main job: from nothing but the built-in drawings to a VLM that answers questions about unseen drawings.

It measures the model before training, trains all stages, measures it after and blind (each question with another
sample's picture), and writes the report. If it is killed, the same command resumes.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

from lorgnette.demo.report import print_examples, print_table, write_report
from lorgnette.demo.scores import DemoResults
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.eval.results.sighted import Asked, example_from, show_fairly
from lorgnette.eval.results.store import Result
from lorgnette.eval.runner import evaluate
from lorgnette.eval.task import Task
from lorgnette.hub.export import save
from lorgnette.model.vlm import VLM
from lorgnette.output import new_console, progress_bar, say, shown_in
from lorgnette.report.training_curve import curve_from_log
from lorgnette.run import Run, find_recipe
from lorgnette.train.evaluation import task_of
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer
from lorgnette.train.stages import check_parts
from lorgnette.version import code

_BUILT_IN = ("scene_vqa", "text_vqa", "doc_vqa", "knowledge_vqa", "scene_captions")
"""The benchmarks of the built-in corpus."""
SHARE = 5
"""Each of them but `MAIN` is asked a fifth as many questions as there are about drawings."""
MAIN = "scene_vqa"
"""The one in VQAv2's place is asked as many as about drawings, or all that it has."""


def run_demo(
    folder: Path, recipe: str = "demo", overrides: Sequence[str] = (), console: Console | None = None
) -> DemoResults:
    """Build, measure and report; return what was found. `folder` receives everything, the model under `model/`."""
    console = console or new_console()
    started = time.perf_counter()
    run = Run.load(find_recipe(recipe), overrides)
    trainer = Trainer(run, folder, console)
    trained_before = trainer.progress.seconds
    _announce(console, trainer)
    check_parts(trainer.run.model, trainer.run.stages)  # before minutes of measuring
    tasks = demo_tasks(run)
    before = measure("before", tasks, trainer, console)
    model = trainer.train()
    save(model, trainer.processor, folder / "model")
    after = measure("after", tasks, trainer, console)
    blind = measure("blind", tasks, trainer, console)
    main, *others = tasks
    results = DemoResults(
        before=before[main],
        after=after[main],
        blind=blind[main],
        benchmarks={name: Asked(before[name], after[name], blind[name]) for name in others},
        curve=curve_from_log(read_log(folder / "log.jsonl")),
        examples=[
            example_from(example, tasks[main].samples[example.index].images[0].source)
            for example in show_fairly(after[main].examples)
        ],
        seconds=trained_before + time.perf_counter() - started,
        peak_gib=peak_gib(run.loader.workers),
        parameters=part_sizes(model),
        conditions=conditions(),
        settings=run.to_yaml(),
        chat=f"{lorgnette_command()} chat --model {shlex.quote(str(folder))}",
    )
    report = write_report(folder, results)
    print_table(console, results)
    print_examples(console, results.examples)
    say(console, f"Report, with the pictures: {report}")
    say(console, "Talk to the model: ", end="")
    say(console, results.chat, style="bold")
    return results


def lorgnette_command() -> str:
    """Return the command that starts lorgnette: its name if that is on the path, else the path it was started by."""
    if shutil.which("lorgnette"):
        return "lorgnette"
    program = Path(sys.argv[0])
    if program.name != "lorgnette":
        return f"{shlex.quote(sys.executable)} -m lorgnette.cli"
    near = program.is_absolute() and program.is_relative_to(Path.cwd())
    return shlex.quote(str(program.relative_to(Path.cwd()) if near else program))


def demo_tasks(run: Run) -> dict[str, Task]:
    """Benchmarks of the demo: questions about drawings of the test split, and the built-in benchmarks."""
    return {name: task_of(name, run.evaluation) for name in ("drawings", *_BUILT_IN)}


def measure(name: str, tasks: Mapping[str, Task], trainer: Trainer, console: Console) -> dict[str, Result]:
    """Ask the trainer's model; kept in `eval/NAME/TASK`, and taken from there if done before."""
    step, config = 0 if name == "before" else trainer.run.steps, trainer.run.evaluation
    answerer = LorgnetteModel(trainer.model.eval(), trainer.processor, identity=f"{trainer.run.digest()} step {step}")
    found = {}
    bar = progress_bar(console)
    bar.disable = not console.is_terminal
    with bar:
        for task_name, task in tasks.items():
            limit = config.questions if task_name in ("drawings", MAIN) else -(-config.questions // SHARE)
            found[task_name] = evaluate(
                task,
                answerer,
                blind=name == "blind",
                limit=limit,
                batch_size=config.batch_size,
                folder=trainer.folder / "eval" / name / task_name,
                progress=shown_in(bar, f"measuring {name}: {task_name}"),
            )
    result = found["drawings"]
    say(console, f"{name}: {result.accuracy:.1f} % of {result.count} questions on unseen drawings")
    return found


def part_sizes(model: VLM) -> dict[str, int]:
    """Parameters of each part."""
    return {part: sum(p.numel() for p in parameters) for part, parameters in model.parts().items()}


def _announce(console: Console, trainer: Trainer) -> None:
    sizes = ", ".join(
        f"{part} {size / 1e6:.2f} M" for part, size in part_sizes(trainer.model).items() if size >= 10_000
    )
    say(console, "A vision-language model from drawings", style="bold", end="")
    say(console, f" ({sizes} parameters), on {torch.get_num_threads()} CPU threads, into {trainer.folder}")
    if trainer.progress.total_step:
        say(console, f"Going on after step {trainer.progress.total_step} of {trainer.run.steps}.")


def peak_gib(workers: int) -> float | None:
    """Largest resident memory of this process and its workers together, in GiB (what they share counts twice).

    None where the system does not say (Windows).
    """
    if importlib.util.find_spec("resource") is None:
        return None
    import resource

    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    kib = own + workers * worker
    return kib / 2**20 if sys.platform != "darwin" else kib / 2**30


def conditions() -> dict[str, str]:
    """Conditions of the measurements."""
    return {
        "device": _processor(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **code(),
        "command": "lorgnette " + " ".join(shlex.quote(argument) for argument in sys.argv[1:]),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
