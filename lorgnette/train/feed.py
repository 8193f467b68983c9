"""From a run's stage to the steps that it trains on."""

from __future__ import annotations

from lorgnette.data.loader import Steps
from lorgnette.data.plan import Plan
from lorgnette.data.sources import open_source
from lorgnette.inputs.processor import Processor
from lorgnette.run import Run


def open_steps(run: Run, stage_number: int, processor: Processor) -> Steps:
    """The steps of a stage: what the loader reads, and what anyone can list without training."""
    stage = run.stages[stage_number]
    sources = tuple(open_source(config, "train", run.seed) for config in stage.sources)
    plan = Plan(
        sizes=tuple(source.size for source in sources),
        weights=tuple(config.weight for config in stage.sources),
        samples_per_step=stage.samples_per_step,
        seed=run.seed * 1000 + stage_number,
    )
    return Steps(plan, sources, processor, stage.micro_batches)
