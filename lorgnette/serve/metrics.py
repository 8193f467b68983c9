"""Metrics for Prometheus, under vLLM's names with `lorgnette:` before them. No label holds what a user wrote."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.stats import EngineStats
from lorgnette.serve.http.guard import ServerState

PREFIX = "lorgnette:"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histograms' buckets, in seconds."""
GAUGES = {
    "num_requests_running": ("running", "Answers that grow now."),
    "num_requests_waiting": ("waiting", "Requests that wait for admission."),
    "kv_cache_bytes_used": ("kv_bytes_used", "Bytes of the KV cache in use, cached prefixes included."),
    "kv_cache_bytes": ("kv_bytes", "Bytes of the KV cache."),
    "image_kv_bytes_used": ("image_kv_bytes_used", "Bytes of keys and values of images in use, with cross-attention."),
    "image_kv_bytes": ("image_kv_bytes", "Bytes for keys and values of images, with cross-attention."),
    "decoded_image_bytes": ("pixel_bytes", "Bytes of decoded images that wait to be encoded."),
    "visual_cache_bytes": ("image_bytes", "Bytes of visual tokens that are kept."),
}
COUNTERS = {
    "prompt_tokens": ("prompt_tokens", "Tokens of prompts."),
    "generation_tokens": ("generation_tokens", "Tokens of answers."),
    "image_tokens": ("image_tokens", "Visual tokens of prompts."),
    "prefix_cache_queries": ("prefix_queries", "Tokens that the prefix cache was asked for."),
    "prefix_cache_hits": ("prefix_hits", "Tokens that the prefix cache held."),
    "visual_cache_hits": ("image_hits", "Images whose visual tokens were kept."),
    "visual_cache_misses": ("image_misses", "Images that were encoded."),
    "num_preemptions": ("preemptions", "Answers that lost their memory and were computed again."),
    "request_aborts": ("aborts", "Requests whose client went away."),
    "engine_refusals": ("refusals", "Requests refused for a full queue, or given up in it."),
    "engine_faults": ("faults", "Passes of the model that raised."),
    "engine_steps": ("steps", "Steps of the engine."),
}


class ServerMetrics:
    """Histograms of one server, and its engine's counters at the time they are asked for."""

    def __init__(self, state: ServerState) -> None:
        self.registry = CollectorRegistry()
        self.first_token = self._histogram("time_to_first_token_seconds", "From a request to its first token.")
        self.next_token = self._histogram("inter_token_latency_seconds", "From one token to the next.")
        self.latency = self._histogram("e2e_request_latency_seconds", "From a request to the end of its answer.")
        self.queue = self._histogram("request_queue_time_seconds", "From a request to its admission.")
        self.steps = self._histogram("step_seconds", "One step of the engine.")
        self.lag = self._histogram("loop_lag_seconds", "How late the event loop wakes.")
        self._counts = EngineCollector(state)
        self.registry.register(self._counts)
        self._waiting: dict[str, float] = {}

    def _histogram(self, name: str, words: str) -> Histogram:
        return Histogram(PREFIX + name, words, buckets=BUCKETS, registry=self.registry)

    def added(self, request: str, now: float) -> None:
        """Remember when a request was given to the engine."""
        self._waiting[request] = now

    def stepped(self, seconds: float, engine: Engine) -> None:
        """Count a step, and the time in the queue of requests that left it."""
        self.steps.observe(seconds)
        if self._waiting:
            waiting = {state.request.id for state in engine.scheduler.waiting}
            for name in self._waiting.keys() - waiting:
                self.queue.observe(max(0.0, time.monotonic() - seconds - self._waiting.pop(name)))

    def render(self, stats: EngineStats) -> bytes:
        """All metrics as Prometheus reads them."""
        self._counts.stats = stats
        return generate_latest(self.registry)


class EngineCollector(Collector):
    """Counters and gauges of an engine, and refusals of the server by status."""

    def __init__(self, state: ServerState) -> None:
        self.state = state
        self.stats: EngineStats | None = None

    def collect(self) -> Iterator[Metric]:
        """Every counter and gauge."""
        stats = self.stats
        if stats is None:
            return
        for name, (attribute, words) in GAUGES.items():
            yield GaugeMetricFamily(PREFIX + name, words, value=getattr(stats, attribute))
        share = stats.kv_bytes_used / stats.kv_bytes if stats.kv_bytes else 0.0
        yield GaugeMetricFamily(PREFIX + "kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1.", value=share)
        for name, (attribute, words) in COUNTERS.items():
            yield CounterMetricFamily(PREFIX + name, words, value=getattr(stats, attribute))
        refused = CounterMetricFamily(PREFIX + "responses_refused", "Refused requests by status.", labels=["status"])
        for status, count in sorted(self.state.refusals.items()):
            refused.add_metric([status], count)
        yield refused


@dataclass
class RequestTimer:
    """Observes the times of one request."""

    metrics: ServerMetrics
    began: float
    last: float | None = None

    def token(self) -> None:
        """A token, or several at once, have come."""
        now = time.monotonic()
        if self.last is None:
            self.metrics.first_token.observe(now - self.began)
        else:
            self.metrics.next_token.observe(now - self.last)
        self.last = now

    def end(self) -> None:
        """The answer has ended."""
        self.metrics.latency.observe(time.monotonic() - self.began)
