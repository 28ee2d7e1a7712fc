"""How the bytes of an answer go through a breakage: as events, as bytes, or as a whole."""

from __future__ import annotations

from typing import Protocol

from llmproxyd.faults.acts import Act, Ending
from llmproxyd.faults.omit import without
from llmproxyd.faults.spots import Watch
from llmproxyd.faults.steps import Step, sent
from llmproxyd.http.cutting import cutter
from llmproxyd.providers.base import Place, StreamForm


class Play(Protocol):
    """One answer on its way.

    :ivar reached: something was done.
    """

    @property
    def reached(self) -> bool: ...

    def feed(self, data: bytes) -> list[Step]:
        """What becomes of the next bytes, of which there are some."""
        ...

    def end(self) -> list[Step]:
        """What was held back, when there are no more."""
        ...


class Passing:
    """Everything passes."""

    reached = False

    def feed(self, data: bytes) -> list[Step]:
        return sent(data)

    def end(self) -> list[Step]:
        return []


class ByEvents:
    """A stream, one piece after the other, until nothing is left to do.

    :param limit: bytes of an event that is looked at as a whole.
    """

    def __init__(self, act: Act, form: StreamForm, limit: int) -> None:
        self._act = act
        self._cutter = cutter(form.framing, limit)
        self._watch = Watch(form)

    @property
    def reached(self) -> bool:
        return self._act.reached

    def feed(self, data: bytes) -> list[Step]:
        if self._act.done:
            return sent(data)
        steps: list[Step] = []
        for piece in self._cutter.feed(data):
            steps += self._piece(piece)
        return steps + sent(self._cutter.rest()) if self._act.done else steps

    def end(self) -> list[Step]:
        rest = self._cutter.rest()
        return [*(self._piece(rest) if rest else []), *self._act.last()]

    def _piece(self, piece: bytes) -> list[Step]:
        return sent(piece) if self._act.done else self._act.piece(self._watch.look(piece))


class ByBytes:
    """Something happens behind so many bytes, wherever that is.

    :param goes_on: the answer goes on behind it.
    """

    def __init__(self, ending: Ending, number: int, *, goes_on: bool) -> None:
        self._ending = ending
        self._left = number
        self._goes_on = goes_on
        self.reached = False

    def feed(self, data: bytes) -> list[Step]:
        if self.reached:
            return sent(data)
        before, behind = data[: self._left], data[self._left :]
        self._left -= len(before)
        return [*sent(before), *self.end(), *(sent(behind) if self._goes_on else [])]

    def end(self) -> list[Step]:
        if self._left or self.reached:
            return []
        self.reached = True
        return self._ending(b"")


class ByHalf:
    """Something happens in the middle of an answer whose length is not known: it is held back for that.

    :param limit: bytes that are held back; of a longer answer this is taken for the length.
    """

    def __init__(self, ending: Ending, limit: int, *, goes_on: bool) -> None:
        self._ending = ending
        self._limit = limit
        self._goes_on = goes_on
        self._kept = bytearray()
        self.reached = False

    def feed(self, data: bytes) -> list[Step]:
        if self.reached:
            return sent(data)
        self._kept += data
        return self._halved(self._limit) if len(self._kept) >= self._limit else []

    def end(self) -> list[Step]:
        return [] if self.reached or not self._kept else self._halved(len(self._kept))

    def _halved(self, length: int) -> list[Step]:
        self.reached = True
        kept, self._kept = bytes(self._kept), bytearray()
        middle = length // 2
        rest = sent(kept[middle:]) if self._goes_on else []
        return [*sent(kept[:middle]), *self._ending(kept[:middle]), *rest]


class Whole:
    """An answer in one piece, out of which members are taken when it is whole.

    :param limit: bytes that are held back; a longer answer passes as it is.
    """

    def __init__(self, places: frozenset[Place], limit: int) -> None:
        self._places = places
        self._limit = limit
        self._kept = bytearray()
        self._passes = False
        self.reached = False

    def feed(self, data: bytes) -> list[Step]:
        if self._passes:
            return sent(data)
        self._kept += data
        if len(self._kept) <= self._limit:
            return []
        self._passes = True
        kept, self._kept = bytes(self._kept), bytearray()
        return sent(kept)

    def end(self) -> list[Step]:
        kept = bytes(self._kept)
        left = without(kept, self._places)
        self.reached = left != kept
        return sent(left)
