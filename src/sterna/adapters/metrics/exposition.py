"""Families of metrics as Prometheus reads them, made by its own library."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, ProcessCollector
from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Exposed
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from sterna.domain.errors import Temporary
from sterna.domain.metrics.families import Distribution, Family, MetricType
from sterna.domain.plain_text import printable
from sterna.kit.threads import in_thread
from sterna.ports.clock import Clock
from sterna.ports.metrics import CONTENT_TYPE

assert CONTENT_TYPE == CONTENT_TYPE_PLAIN_0_0_4
HOLDS_MS = 1000.0
"""Who asks again within this gets the same answer: no client makes this process work more often."""
WRITING_S = 10.0
"""A fleet of 1,000 hosts is written in a fraction of a second."""


class _Collected(Collector):
    """The families of one moment."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Exposed]:
        """As the library wants them."""
        return map(_exposed, self._families)


def written(families: Iterable[Family]) -> bytes:
    """The text, with the usual metrics of the process. Blocking: it reads /proc, and calculates."""
    registry = CollectorRegistry()
    registry.register(_Collected(families))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def _exposed(family: Family) -> Exposed:
    metric = family.metric
    if metric.type is MetricType.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
        for labels, found in family.samples:
            if isinstance(found, Distribution):
                buckets = list(zip(bounds, accumulate(found.counts), strict=True))
                histogram.add_metric(_plain(labels), buckets, found.sum)
        return histogram
    kind = CounterMetricFamily if metric.type is MetricType.COUNTER else GaugeMetricFamily
    exposed = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in family.samples:
        if not isinstance(value, Distribution):
            exposed.add_metric(_plain(labels), value)
    return exposed


def _plain(labels: Iterable[str]) -> list[str]:
    return [printable(label) for label in labels]


class Exposition:
    """Implements ports.metrics.Scraped. One answer is made at a time, in a thread."""

    def __init__(self, collect: Callable[[], Awaitable[list[Family]]], clock: Clock) -> None:
        self._collect, self._clock = collect, clock
        self._made: tuple[float, bytes] | None = None
        self._making: asyncio.Task[bytes] | None = None

    async def text(self) -> bytes:
        """As of the last second, or now. Raises Temporary where it takes too long."""
        if self._made is not None and self._clock.monotonic_ms() - self._made[0] < HOLDS_MS:
            return self._made[1]
        if self._making is None:
            self._making = asyncio.create_task(self._make(), name="metrics")
            self._making.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._making)  # who leaves takes nothing from others

    async def _make(self) -> bytes:
        try:
            families = await self._collect()
            made = await in_thread(lambda: written(families), name="sterna-metrics", limit_s=WRITING_S)
        except TimeoutError as error:
            raise Temporary(
                f"the metrics are not written: {error}", fix="find out what takes this host's time"
            ) from error
        finally:
            self._making = None
        self._made = self._clock.monotonic_ms(), made
        return made
