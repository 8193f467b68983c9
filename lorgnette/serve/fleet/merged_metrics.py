"""Metrics of several workers as one page: every sample with the label `worker`, and the router's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from lorgnette.serve.fleet.worker_process import WorkerProcess
from lorgnette.serve.metrics import PREFIX


class PageCollector(Collector):
    """Metric families that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = list(families)

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield from self.families


def merge(pages: Mapping[int, str], own: Iterable[Metric]) -> bytes:
    """One page of the workers' pages, by number, and of the router's own families."""
    merged: dict[str, Metric] = {}
    for number, page in sorted(pages.items()):
        for family in text_string_to_metric_families(page):
            target = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                target.add_sample(sample.name, {**sample.labels, "worker": str(number)}, sample.value)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PageCollector([*merged.values(), *own]))
    return generate_latest(registry)


def router_families(workers: Iterable[WorkerProcess], repeats: int, refusals: Mapping[str, int]) -> Iterator[Metric]:
    """Metric families of the router itself: its workers, repeated and refused requests."""
    up = GaugeMetricFamily(PREFIX + "worker_ready", "1 for a worker that takes requests.", labels=["worker"])
    waiting = GaugeMetricFamily(
        PREFIX + "worker_outstanding_tokens", "Estimated tokens of a worker's open requests.", labels=["worker"]
    )
    restarts = CounterMetricFamily(PREFIX + "worker_restarts", "Times that a worker was restarted.", labels=["worker"])
    for worker in workers:
        up.add_metric([str(worker.number)], float(worker.takes_requests))
        waiting.add_metric([str(worker.number)], worker.tokens)
        restarts.add_metric([str(worker.number)], worker.restarts)
    yield from (up, waiting, restarts)
    yield CounterMetricFamily(PREFIX + "router_repeats", "Requests that were sent to a second worker.", value=repeats)
    refused = CounterMetricFamily(PREFIX + "router_refused", "Refused requests by status.", labels=["status"])
    for status, count in sorted(refusals.items()):
        refused.add_metric([status], count)
    yield refused
