"""Finished requests that metrics count together, sorted by what labels tell of them.

To look up where a number stands costs more than to add to it.  Of requests that are told in a batch most
are like each other, so that it is looked up once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, ValuesView

from llmproxyd.model import Finished


class Used:
    """Tokens of the same kinds that the same models used.

    :ivar model: as a label.
    :ivar priced: whether the price table knows a price.
    :ivar rows: the counts of each answer, in the order of *kinds*.
    """

    __slots__ = ("kinds", "model", "priced", "rows", "upstream")

    def __init__(self, upstream: str, model: str, kinds: tuple[str, ...], priced: bool) -> None:
        self.upstream = upstream
        self.model = model
        self.kinds = kinds
        self.priced = priced
        self.rows: list[ValuesView[int]] = []

    def sums(self) -> Iterator[tuple[str, int]]:
        """How many of each kind."""
        return zip(self.kinds, map(sum, zip(*self.rows, strict=True)), strict=True)


class Batch:
    """What requests that are counted together have told.

    :ivar alike: by all that labels tell of: the first request of which that is true, and the seconds that
        each of them took.
    :ivar firsts: seconds until the first content, by upstream and operation.
    :ivar used: tokens, by upstream, the models that answered and that were asked for, and their kinds.
    :ivar retried: attempts that were counted already, each time with the upstream.
    """

    __slots__ = ("alike", "firsts", "retried", "used")

    def __init__(self) -> None:
        self.alike: dict[tuple[object, ...], tuple[Finished, list[float]]] = {}
        self.firsts: dict[tuple[str, str], list[float]] = {}
        self.used: dict[tuple[str | None, ...], Used] = {}
        self.retried: list[tuple[str, int]] = []
