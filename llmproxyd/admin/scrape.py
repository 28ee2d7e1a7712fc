"""What the daemon's metrics tell: counters, and latencies from the buckets of a histogram.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from math import inf

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")

Labels = Mapping[str, str]


class Samples:
    """The samples of one page.

    :param page: as ``/metrics`` answers it; lines that are none are passed over.
    """

    def __init__(self, page: str) -> None:
        self._found: dict[str, list[tuple[Labels, float]]] = defaultdict(list)
        for line in page.splitlines():
            match = _SAMPLE.fullmatch(line)
            if match is None:
                continue
            try:
                value = float(match[3])
            except ValueError:
                continue
            self._found[match[1]].append((_labels(match[2] or ""), value))

    def each(self, name: str, **labels: str) -> Iterator[tuple[Labels, float]]:
        """Labels and values of the samples *name* that have these *labels*."""
        for found, value in self._found.get(name, ()):
            if all(found.get(label) == wanted for label, wanted in labels.items()):
                yield found, value

    def total(self, name: str, **labels: str) -> float:
        """The sum of them; 0 where there is none."""
        return sum(value for _, value in self.each(name, **labels))

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Their sums by the value of *label*."""
        sums: dict[str, float] = defaultdict(float)
        for found, value in self.each(name, **labels):
            sums[found.get(label, "")] += value
        return dict(sums)

    def buckets(self, name: str) -> dict[float, float]:
        """The cumulative counts of the histogram *name* by upper bound, over all labels."""
        sums: dict[float, float] = defaultdict(float)
        for bound, value in self.by("le", f"{name}_bucket").items():
            try:
                sums[float(bound)] += value
            except ValueError:
                continue
        return dict(sums)


def quantile(share: float, counts: Mapping[float, float]) -> float | None:
    """The value below which *share* of what was counted lies, about; ``None`` where nothing was.

    It is drawn out evenly within a bucket, as ``histogram_quantile`` of Prometheus does; beyond the last
    bound it is that bound.

    :param counts: cumulative, by upper bound.
    """
    bounds = sorted(counts)
    if not bounds or counts[bounds[-1]] <= 0:
        return None
    wanted = share * counts[bounds[-1]]
    below, lower = 0.0, 0.0
    for bound in bounds:
        count = counts[bound]
        if count >= wanted:
            if bound == inf:
                return lower
            inside = count - below
            return lower + (bound - lower) * ((wanted - below) / inside if inside > 0 else 1.0)
        below, lower = count, bound
    return lower


def differences(now: Mapping[float, float], before: Mapping[float, float]) -> dict[float, float]:
    """What was counted between two looks."""
    return {bound: count - before.get(bound, 0.0) for bound, count in now.items()}


def _labels(text: str) -> Labels:
    return {name: _ESCAPED.sub(_unescaped, value) for name, value in _pairs(text)}


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    return _LABEL.findall(text)


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
