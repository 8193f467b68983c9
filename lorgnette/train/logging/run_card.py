"""The part of a model card that a run knows: what it started from, what it was trained on, and its scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lorgnette.data.config import SourceConfig
from lorgnette.data.sources.reading.hub_sets import is_hub_set, set_name
from lorgnette.data.sources.reading.shards import is_url
from lorgnette.files import HUB_ID
from lorgnette.hub.card import CardFacts
from lorgnette.run import Run, StageConfig, read_run
from lorgnette.train.logging.log import read_log

BUILT_IN_LICENCE = "public domain (drawings) and Apache-2.0 (what lorgnette renders)"


def facts_of_folder(folder: Path) -> CardFacts | None:
    """Facts of the run that a folder is of: its own, or that of `model` or `best` in it; None if there is none."""
    for place in (folder, folder.parent):
        if (place / "run.yaml").is_file():
            return run_facts(read_run(place), place)
    return None


def run_facts(run: Run, folder: Path) -> CardFacts:
    """Facts of a run for a model card: base models and data sets by hub id, stages, sources with licences, scores.

    A file of the user's is named without its folder: nobody else has it.
    """
    begun = [one for one in (run.init.model, run.init.vision, run.init.language) if one]
    sources = [(stage, source) for stage in run.stages for source in stage.sources]
    paths = [str(getattr(source, "path", "")) for _, source in sources]
    return CardFacts(
        base_models=tuple(dict.fromkeys(one.partition("@")[0] for one in begun if _on_hub(one))),
        datasets=tuple(dict.fromkeys(set_name(path) for path in paths if is_hub_set(path))),
        sections=f"\n## Training\n\n{_begun(begun)}\n{_stages(run.stages)}\n{_sources(sources)}\n{_scores(folder)}",
    )


def _on_hub(name: str) -> bool:
    return HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def _begun(names: Sequence[str]) -> str:
    shown = " and ".join(
        f"`{name if _on_hub(name) or name.startswith('builtin:') else Path(name).name}`" for name in names
    )
    return f"Started from {shown}.\n" if names else "All weights were drawn at random before training.\n"


def _stages(stages: Iterable[StageConfig]) -> str:
    rows = "\n".join(
        f"| {one.name} | {one.steps:,} | {one.lr:g} | {one.vision.mode} | {one.connector.mode} | {one.language.mode} |"
        for one in stages
    )
    return f"| stage | steps | learning rate | vision | connector | language |\n|---|---:|---:|---|---|---|\n{rows}\n"


def _sources(sources: Iterable[tuple[StageConfig, SourceConfig]]) -> str:
    rows = dict.fromkeys(
        f"| {stage.name} | `{_shown(source)}` | {source.kind} | {_licence(source)} |" for stage, source in sources
    )
    return "| stage | data | kind | licence |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _shown(source: SourceConfig) -> str:
    path = str(getattr(source, "path", source.kind))
    return path if path.startswith("builtin:") or is_hub_set(path) or is_url(path) else Path(path).name


def _licence(source: SourceConfig) -> str:
    path = str(getattr(source, "path", ""))
    if path.startswith("builtin:"):
        return BUILT_IN_LICENCE
    if is_hub_set(path):
        return f"as its [card](https://huggingface.co/datasets/{set_name(path)}) says"
    return "not stated: the owner of the data knows it"


def _scores(folder: Path) -> str:
    """Tables of the last evaluation and the last validation of a run; empty if it has none."""
    found = []
    for file, key, title in (
        ("evaluation.jsonl", "scores", "score in %"),
        ("validation.jsonl", "losses", "loss (nats)"),
    ):
        rows = [row for row in read_log(folder / file) if row.get(key)]
        if rows:
            lines = "\n".join(f"| {name} | {value:.4g} |" for name, value in sorted(rows[-1][key].items()))
            found.append(
                f"Step {rows[-1]['total_step']:,}, on rows not trained on:\n\n| | {title} |\n|---|---:|\n{lines}\n"
            )
    return "\n".join(found)
