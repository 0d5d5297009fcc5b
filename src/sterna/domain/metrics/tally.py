"""What is counted while a process runs. Not for several threads: everything is counted in the event loop."""

from __future__ import annotations

from bisect import bisect_left

from sterna.domain.metrics.families import Distribution, Family, Labels, Metric


class Count:
    """A counter."""

    def __init__(self, metric: Metric, *known: Labels) -> None:
        """`known`: label values that are shown from the beginning, as 0. Prometheus sees no increase in a series
        that begins with 1."""
        self.metric = metric
        self._numbers: dict[Labels, float] = dict.fromkeys(known, 0.0)

    def add(self, *labels: str, by: float = 1.0) -> None:
        """So much more."""
        self._numbers[labels] = self._numbers.get(labels, 0.0) + by

    def family(self) -> Family:
        """As of now."""
        return Family(self.metric, tuple(self._numbers.items()))


class Histogram:
    """How observations are distributed over the metric's buckets."""

    def __init__(self, metric: Metric, *known: Labels) -> None:
        """`known`: as for `Count`."""
        self.metric = metric
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}
        for labels in known:
            self._begin(labels)

    def observe(self, value: float, *labels: str) -> None:
        """One more observation."""
        if labels not in self._counts:
            self._begin(labels)
        self._counts[labels][bisect_left(self.metric.buckets, value)] += 1
        self._sums[labels] += value

    def family(self) -> Family:
        """As of now."""
        found = tuple((one, Distribution(tuple(n), self._sums[one])) for one, n in self._counts.items())
        return Family(self.metric, found)

    def _begin(self, labels: Labels) -> None:
        self._counts[labels] = [0] * (len(self.metric.buckets) + 1)
        self._sums[labels] = 0.0
