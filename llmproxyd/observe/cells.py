"""Where numbers are counted, and how they become families of metrics.

``labels()`` of prometheus_client costs more than all else that is done for a request's metrics.  So
numbers stand in plain dictionaries by the values of their labels, and what Prometheus wants to have is
made of them when it asks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]

SERIES = 2000
"""Combinations of labels that one counter can have; all that come later are counted as one."""

HISTOGRAMS = 300
"""The same for a histogram, each of which is some twenty samples to be written at every scrape."""

OTHER = "other"


class Counter:
    """A number that only grows, for each combination of labels.

    :param name: without ``_total``.
    :param labels: their names.
    """

    __slots__ = ("_help", "_labels", "_name", "values")

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        self._name = name
        self._help = help
        self._labels = labels
        self.values: dict[Labels, float] = {} if labels else {(): 0}

    def add(self, labels: Labels, number: float = 1) -> None:
        """Count *number* more."""
        values = self.values
        if labels in values:
            values[labels] += number
        else:
            labels = bounded(labels, values)
            values[labels] = values.get(labels, 0) + number

    def collect(self) -> Iterator[Metric]:
        """The family."""
        yield counter(self._name, self._help, self._labels, self.values)


class Histogram:
    """How often a number was up to which bound, for each combination of labels.

    :param bounds: upper ones, ascending; the last bucket has none.
    """

    __slots__ = ("_bounds", "_cells", "_help", "_labels", "_name")

    def __init__(self, name: str, help: str, labels: Labels, bounds: Sequence[float]) -> None:
        self._name = name
        self._help = help
        self._labels = labels
        self._bounds = tuple(bounds)
        self._cells: dict[Labels, Cell] = {}

    def of(self, labels: Labels) -> Cell:
        """The cell for a combination of labels."""
        cell = self._cells.get(labels)
        if cell is None:
            labels = bounded(labels, self._cells, HISTOGRAMS)
            cell = self._cells.get(labels)
            if cell is None:
                cell = self._cells[labels] = Cell(self._bounds)
        return cell

    def collect(self) -> Iterator[Metric]:
        """The family."""
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        names = [floatToGoString(bound) for bound in (*self._bounds, float("inf"))]
        for labels, cell in self._cells.items():
            family.add_metric(labels, cell.buckets(names), cell.sum)
        yield family


class Cell:
    """One combination of labels of a histogram."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count *value*."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: list[float]) -> None:
        """Count *values*, one at least: in one go, for most have the same bucket.  They are sorted by it."""
        self.sum = sum(values, self.sum)
        values.sort()
        counts, counted = self._counts, 0
        for place in range(bisect_left(self._bounds, values[0]), len(self._bounds)):
            upto = bisect_right(values, self._bounds[place])
            counts[place] += upto - counted
            counted = upto
            if counted == len(values):
                break
        counts[-1] += len(values) - counted

    def buckets(self, names: Sequence[str]) -> list[tuple[str, float]]:
        """How many were up to each bound."""
        found, total = [], 0
        for name, count in zip(names, self._counts, strict=True):
            total += count
            found.append((name, float(total)))
        return found


def bounded(labels: Labels, known: Mapping[Labels, object], most: int = SERIES) -> Labels:
    """*labels*, or :data:`OTHER` for each where there are *most* combinations already."""
    return labels if len(known) < most else (OTHER,) * len(labels)


def counter(name: str, help: str, labels: Labels, values: Mapping[Labels, float]) -> Metric:
    """The family of a counter."""
    family = CounterMetricFamily(name, help, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def gauge(name: str, help: str, labels: Labels, values: Mapping[Labels, float]) -> Metric:
    """The family of a gauge."""
    family = GaugeMetricFamily(name, help, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


class Models:
    """The names of models that stand in labels: a bounded number, as clients can make them up.

    :param most: how many; all that come later are :data:`OTHER`.
    """

    __slots__ = ("_known", "_most")

    LONGEST = 128
    """Characters; a longer one is no name."""

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self._known: set[str] = set()

    def label(self, model: str | None, *, answered: bool) -> str:
        """*model* as a label, ``unknown`` where nobody said.

        :param answered: with success: a name that is refused need not be remembered.
        """
        if model is None:
            return "unknown"
        if model in self._known:
            return model
        if not answered or len(self._known) >= self._most:
            return OTHER
        if len(model) > self.LONGEST or not model.isprintable():
            return OTHER
        self._known.add(model)
        return model
