"""`lorgnette data inspect`, and helpers for verbs that take a recipe or a source."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from lorgnette.cli.arguments import check_init, check_recipe
from lorgnette.data.inspect import Gatherer, Preview, first_samples, rules, shares, source_config
from lorgnette.errors import SettingsError
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import Tokenizer
from lorgnette.output import advancing
from lorgnette.run import Run, StageConfig, open_run
from lorgnette.train.data import build_data, stage_processor


def processor_of_run(name: str, overrides: list[str]) -> tuple[Run, Processor]:
    """Load a recipe, or the settings in a run's folder, and the processor that it trains with."""
    check_recipe(name)
    run = open_run(name, overrides)
    check_init(run)
    from lorgnette.train.setup import build_processor, resolve

    run = resolve(run)
    return run, build_processor(run)


def processor_of_source(folder: str | None) -> Processor:
    """Load the processor of a folder; for a folder with only a tokenizer, with the image settings of Idefics2."""
    if folder is None:
        raise SettingsError(
            "--kind reads a source without a recipe: give --tokenizer, the folder of a tokenizer or a model"
        )
    names = ("processor_config.json", "preprocessor_config.json")
    if any((Path(folder) / name).is_file() for name in names):
        return Processor.load(folder)
    return Processor(Tokenizer.load(folder))


def look_at_run(console: Console, processor: Processor, run: Run, stage: str | None, steps: str, most: int) -> Preview:
    """Preview the packs of a stage's steps. Raises: SettingsError for a stage or step that does not exist."""
    number = stage_number(run, stage)
    chosen = run.stages[number]
    first, last = range_of(steps, chosen)
    pack, processor = chosen.pack, stage_processor(processor, run, chosen)
    gatherer = Gatherer(processor, run.model.vocabulary, pack.tokens)
    with advancing(console, "reading samples", None, "samples", transient=True) as advance:
        packs, refused = gatherer.steps(build_data(run, number, processor), first, last, most, advance)
    span = f"step {first:,}" if last - first == 1 else f"steps {first:,} to {last - 1:,}"
    return Preview(
        title=f"{run.name}, stage {chosen.name}, {span}",
        packs=tuple(packs),
        sources=shares([_title(one) for one in chosen.sources], [one.weight for one in chosen.sources]),
        measure=chosen.weights,
        most_tokens=pack.tokens,
        most_patches=pack.patches,
        refused=tuple(refused),
        facts={"run": f"{run.name} {run.digest()}, seed {run.seed}, {chosen.steps:,} steps in this stage"}
        | rules(processor),
    )


def look_at_source(
    console: Console, processor: Processor, kind: str, path: str, overrides: list[str], most: int
) -> Preview:
    """Preview the first rows of a source, prepared or not."""
    config = source_config(kind, path, overrides)
    gatherer = Gatherer(processor, processor.tokenizer.vocabulary)
    with advancing(console, "reading samples", None, "samples", transient=True) as advance:
        packs, refused = gatherer.samples(first_samples(config, most), most, advance)
    return Preview(
        title=f"the first {most:,} rows of {_title(config)}",
        packs=tuple(packs),
        sources=shares([_title(config)], [1.0]),
        refused=tuple(refused),
        facts={"source": str(config.plain())} | rules(processor),
    )


def _title(config: object) -> str:
    return str(getattr(config, "title", None) or getattr(config, "kind", "source"))


def stage_number(run: Run, stage: str | None) -> int:
    names = [one.name for one in run.stages]
    if stage is not None and stage not in names:
        raise SettingsError(f"--stage {stage}: the run has no such stage; its stages are {', '.join(names)}")
    return names.index(stage) if stage is not None else 0


def range_of(text: str, stage: StageConfig) -> tuple[int, int]:
    """Parse `FIRST:END`, or the number of a single step."""
    first, colon, end = text.partition(":")
    try:
        bounds = int(first or 0), int(end or stage.steps) if colon else int(first) + 1
    except ValueError:
        raise SettingsError(f"--steps {text}: write it as FIRST:END, for example 0:1") from None
    if not 0 <= bounds[0] < bounds[1] <= stage.steps:
        raise SettingsError(
            f"--steps {text}: stage {stage.name} has steps 0 to {stage.steps - 1:,}, as --steps 0:{stage.steps}"
        )
    return bounds


def print_serving(model: str, kv_mib: int) -> None:
    """Print the memory of a server of a checkpoint, whose weights are not read."""
    from lorgnette.hub.load import one_dtype, open_checkpoint
    from lorgnette.infer.engine.config import EngineConfig
    from lorgnette.infer.serving_memory import lines, serving_memory
    from lorgnette.output import new_console, say

    limits = EngineConfig.parse({"kv_bytes": kv_mib * 2**20}, "show")
    opened = open_checkpoint(model)
    stored = one_dtype(opened.weights) or next(iter(opened.weights.dtypes))
    parts = opened.model.parameters()
    weights = sum(one.numel() * (stored if one.is_floating_point() else one.dtype).itemsize for one in parts)
    memory = serving_memory(opened.config, opened.processor.images, stored, weights, limits)
    console = new_console()
    for label, value in lines(memory, opened.config.language.context_length):
        say(console, f"{label}: {value}")
