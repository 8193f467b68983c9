"""Counters of an engine, and what fills its memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lorgnette.infer.engine.model_runner import Runner
from lorgnette.infer.engine.scheduler import Scheduler
from lorgnette.infer.image_cache import ImageFeatureCache


@dataclass
class EngineCounts:
    """Counted by the engine itself."""

    aborts: int = 0
    refusals: int = 0
    prompt_tokens: int = 0
    image_tokens: int = 0
    generation_tokens: int = 0
    steps: int = 0


@dataclass(frozen=True)
class EngineStats:
    """Counters since the start, and what there is now. Memory in bytes."""

    running: int
    waiting: int
    preempted: int
    """Answers that wait to be computed again."""
    kv_bytes: int
    kv_bytes_used: int
    """Of running answers and of cached prefixes."""
    kv_bytes_cached: int
    """Of ended requests, kept as prefixes of others."""
    image_kv_bytes: int
    """For keys and values of images that cross-attention blocks see."""
    image_kv_bytes_used: int
    pixel_bytes: int
    """Of decoded images that wait to be encoded, and of those that are being decoded."""
    image_bytes: int
    image_hits: int
    image_misses: int
    prefix_queries: int
    """Tokens of admitted prompts."""
    prefix_hits: int
    """Tokens of them that the prefix cache held."""
    preemptions: int
    aborts: int
    refusals: int
    """Requests refused for a full queue, or given up after waiting too long."""
    faults: int
    out_of_memory: int
    prompt_tokens: int
    """Of requests that were accepted."""
    image_tokens: int
    generation_tokens: int
    steps: int


def collect_stats(
    scheduler: Scheduler, runner: Runner, image_cache: ImageFeatureCache, counts: EngineCounts
) -> EngineStats:
    """Stats from all parts of an engine."""
    store = scheduler.store
    return EngineStats(
        running=len(scheduler.running),
        waiting=len(scheduler.waiting),
        preempted=len(scheduler.preempted),
        kv_bytes=store.total * store.slot_bytes,
        kv_bytes_used=store.used * store.slot_bytes,
        kv_bytes_cached=scheduler.prefixes.bytes,
        image_kv_bytes=runner.images.most_bytes,
        image_kv_bytes_used=runner.images.used,
        pixel_bytes=runner.images.decoded.bytes,
        image_bytes=image_cache.bytes,
        image_hits=image_cache.hits,
        image_misses=image_cache.misses,
        prefix_queries=scheduler.prefix_queries,
        prefix_hits=scheduler.prefix_hits,
        preemptions=scheduler.preemptions,
        faults=runner.faults,
        out_of_memory=runner.out_of_memory,
        **asdict(counts),
    )
