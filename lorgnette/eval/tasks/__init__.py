"""Benchmarks by name, a short file for each public one. A benchmark's data is read when it is asked for."""

from __future__ import annotations

import difflib
from dataclasses import replace

from lorgnette import plugins
from lorgnette.errors import SettingsError
from lorgnette.eval.benchmark import Asking, Benchmark
from lorgnette.eval.models.base import Model
from lorgnette.eval.task import Task
from lorgnette.eval.tasks.ai2d import AI2D
from lorgnette.eval.tasks.builtin import BUILTIN, drawings
from lorgnette.eval.tasks.chartqa import CHARTQA
from lorgnette.eval.tasks.coco import COCO
from lorgnette.eval.tasks.docvqa import DOCVQA
from lorgnette.eval.tasks.mathvista import MATHVISTA
from lorgnette.eval.tasks.mmbench import MMBENCH
from lorgnette.eval.tasks.mmmu import MMMU
from lorgnette.eval.tasks.okvqa import OKVQA
from lorgnette.eval.tasks.textvqa import TEXTVQA
from lorgnette.eval.tasks.vqav2 import VQAV2

_PUBLIC = (VQAV2, TEXTVQA, OKVQA, COCO, DOCVQA, MMMU, MATHVISTA, MMBENCH, CHARTQA, AI2D)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in (*_PUBLIC, *BUILTIN)}
"""Every benchmark by name: the public ones, then those of the built-in corpus."""
BENCHMARK_GROUPS: dict[str, tuple[str, ...]] = {
    "ablations": ("vqav2", "textvqa", "okvqa", "coco"),
    "builtin": ("scene_vqa", "text_vqa", "knowledge_vqa", "scene_captions"),
}
"""Names for several: the four of the paper's ablations, and those that stand in for them."""


def benchmark_named(name: str, what: str = "benchmark") -> Benchmark:
    """The benchmark of that name, or a plug-in. Raises: SettingsError with the names that there are."""
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    if plugins.is_plugin("benchmarks", name):
        return plugins.find("benchmarks", name, Benchmark)
    known = ", ".join([*(["drawings"] if what == "task" else []), *BENCHMARKS, *plugins.installed("benchmarks")])
    near = difflib.get_close_matches(name, known.split(", "), n=1)
    hint = f"did you mean {near[0]!r}? There are: " if near else "there are: "
    raise SettingsError(f"no {what} is called {name!r}; {hint}{known}, or one of your own as {plugins.NAME_FORM}")


def task_named(name: str, asking: Asking | None = None, encoder: Model | None = None) -> Task:
    """A benchmark as a task. name: `drawings`, or that of a benchmark, with `:SPLIT` if another split is meant.

    encoder: the model whose vision features retrieve shots.
    Raises: SettingsError with the names that there are; DataError if the data are not there or not whole.
    """
    asking = asking or Asking()
    benchmark, split = name_and_split(name)
    if benchmark == "drawings":
        if asking.shots or split:
            raise SettingsError("task drawings is asked without shots, and has one split; try scene_vqa")
        return drawings(max_tokens=asking.max_tokens) if asking.max_tokens else drawings()
    task = benchmark_named(benchmark, "task").open(asking, split or None, encoder)
    return replace(task, plugins=plugins.record(("benchmarks", benchmark)))


def check_name(name: str) -> None:
    """Raises: SettingsError if no task has that name, with the names that there are."""
    if name_and_split(name)[0] != "drawings":
        benchmark_named(name_and_split(name)[0], "task")


def name_and_split(text: str) -> tuple[str, str]:
    """`docvqa:test`, or `package.module:Name:test`, as a name and a split, empty if none is named."""
    name, _, split = text.partition(":")
    if "." in name:
        inner, _, split = split.partition(":")
        name = f"{name}:{inner}"
    return name, split


def names_in(text: str) -> list[str]:
    """Task names separated by commas, groups resolved."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return [one for name in names for one in BENCHMARK_GROUPS.get(name, (name,))]
