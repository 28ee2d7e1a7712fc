"""Refused authentications, gathered by address: many tries are one line of the audit log.

Whoever guesses tokens can neither fill memory nor push what operators did out of the log.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from llmproxyd.model import Denied
from llmproxyd.observe.eventjson import time_text

MINUTE = 60.0
"""Seconds that are gathered into one line."""

TRACKED = 1000
"""Addresses that are counted apart in a minute; all further ones together."""

NAMED = 20
"""Addresses that get a line of their own: those with the most refusals."""

SHOWN = 5
"""Beginnings of tokens in one line."""

PREFIX = 12
"""Characters of each."""

OTHERS = "others"


@dataclass(slots=True)
class _Refusals:
    count: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    shown: dict[str, None] = field(default_factory=dict)

    def add(self, code: str, shown: str | None) -> None:
        self.count += 1
        self.codes[code] += 1
        if shown is not None and len(self.shown) < SHOWN:
            self.shown[shown[:PREFIX]] = None

    def merge(self, other: _Refusals) -> None:
        self.count += other.count
        self.codes.update(other.codes)


class Denials:
    """What was refused since it was last asked."""

    def __init__(self) -> None:
        self._by_address: dict[str, _Refusals] = {}
        self._others = _Refusals()
        self._since = 0.0

    def add(self, denied: Denied, wall: float) -> bool:
        """Count *denied*.

        :param wall: seconds since the epoch.
        :returns: whether it is the first one.
        """
        first = not self._by_address
        if first:
            self._since = wall
        refusals = self._by_address.get(denied.address)
        if refusals is None:
            if len(self._by_address) < TRACKED:
                refusals = self._by_address[denied.address] = _Refusals()
            else:
                refusals = self._others
        refusals.add(denied.code, denied.shown)
        return first

    def taken(self) -> list[dict[str, Any]]:
        """Members of a line for each address that stands out, and of one for all the others."""
        ranked = sorted(self._by_address.items(), key=lambda item: -item[1].count)
        others, merged = self._others, ranked[NAMED:]
        lines = [self._line(address, refusals) for address, refusals in ranked[:NAMED]]
        for _, refusals in merged:
            others.merge(refusals)
        if others.count:
            lines.append(self._line(OTHERS, others) | {"addresses": len(merged)})
        self._by_address, self._others = {}, _Refusals()
        return lines

    def _line(self, address: str, refusals: _Refusals) -> dict[str, Any]:
        return {
            "address": address,
            "since": time_text(self._since),
            "count": refusals.count,
            "codes": dict(refusals.codes),
            "shown": list(refusals.shown),
        }
