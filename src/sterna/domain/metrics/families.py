"""Metrics as values: what each one is, and its samples at one moment.

Base units only: seconds, bytes, ratios from 0 to 1. The name of a counter ends with `_total`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple, TypeVar

from sterna.domain.model import Value

Labels = tuple[str, ...]
"""The values of a metric's labels, in their order."""
L = TypeVar("L", bound=Labels)


class MetricType(StrEnum):
    """Prometheus's types, as far as they are used here."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Metric(Value):
    """One metric: its name, and what it measures."""

    name: str
    help: str
    type: MetricType = MetricType.GAUGE
    labels: Labels = ()
    """Names of its labels."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, ascending, without infinity."""

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its time series."""
        if self.type is not MetricType.HISTOGRAM:
            return (self.name,)
        return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))


class Distribution(NamedTuple):
    """What a histogram has observed so far."""

    counts: tuple[int, ...]
    """For each bucket, and at last for all above: how many observations."""
    sum: float


class Family(NamedTuple):
    """A metric with its samples."""

    metric: Metric
    samples: tuple[tuple[Labels, float | Distribution], ...]


def family(metric: Metric, samples: Mapping[L, float] | float | None) -> Family:
    """A gauge's or a counter's samples; one without labels is a number. None: not known, there are no samples."""
    if samples is None:
        return Family(metric, ())
    if isinstance(samples, Mapping):
        return Family(metric, tuple(samples.items()))
    return Family(metric, (((), float(samples)),))


def one_of(values: Iterable[str], present: str) -> dict[str, float]:
    """A state as numbers: 1 for the present one, 0 for all others."""
    return {value: float(value == present) for value in values}
