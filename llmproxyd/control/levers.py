"""What verbs move: faults, circuit breakers, and the daemon itself."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from llmproxyd.control.answers import Answer
from llmproxyd.control.calls import auditing
from llmproxyd.control.means import NO_MEANS, Means
from llmproxyd.control.rehearsal import Rehearsal
from llmproxyd.control.tables import table
from llmproxyd.control.wording import HELP, breaker_in_words
from llmproxyd.faults.choose import Engine
from llmproxyd.faults.language import LanguageError, shown
from llmproxyd.model import Change, Event
from llmproxyd.resilience.breaker import Breaker
from llmproxyd.resilience.breakers import Breakers


class Levers(Rehearsal):
    """All of them.

    :param breakers: those that were needed so far.
    :param quit: stops the daemon gracefully.
    :param record: puts a change on record before it is made; where its Deferred fails, the change is
        refused.  One that returns anything else must not fail.
    :ivar means: what else there is; may be replaced at any time.

    The other parameters are those of :class:`~llmproxyd.control.rehearsal.Rehearsal`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        emit: Callable[[Event], None],
        monotonic: Callable[[], float],
        upstreams: Collection[str],
        breakers: Breakers,
        handled: Callable[[], int],
        quit: Callable[[], None],
        draw_seed: Callable[[], int],
        seed: int | None = None,
        allowed: bool = True,
        symbols: bool = True,
        folder: Path | None = None,
        forget_after: float | None = None,
        record: Callable[[Change], object] = lambda change: None,
        means: Means = NO_MEANS,
    ) -> None:
        super().__init__(
            engine,
            emit=emit,
            monotonic=monotonic,
            upstreams=upstreams,
            handled=handled,
            draw_seed=draw_seed,
            seed=seed,
            allowed=allowed,
            symbols=symbols,
            folder=folder,
            forget_after=forget_after,
        )
        self.breakers = breakers
        self.means = means
        self._quit = quit
        self._audit = auditing(record)

    def show_breakers(self, *, colour: bool = False) -> Answer:
        """Every breaker that has been needed so far, with its state."""
        now = self.monotonic()
        found = [one.snapshot(now) for one in self.breakers]
        data = {"breakers": [one.told() for one in found]}
        if not found:
            text = "No breaker yet: none is configured, or no request has come to one.\n"
            return Answer(text, data=data)
        rows = [(shown(one.name), breaker_in_words(one)) for one in found]
        lines = table(("", ""), rows, colour=colour).split("\n")[1:]
        return Answer("\n".join(lines) + "\n", data=data)

    def trip_breaker(self, name: str) -> Answer:
        """Open the breaker *name*.

        :raises LanguageError: there is no such breaker.
        """
        self.find_breaker(name).trip(self.monotonic())
        return self.show_breakers()

    def reset_breaker(self, name: str) -> Answer:
        """Close the breaker *name*, and forget what it has counted.

        :raises LanguageError: there is no such breaker.
        """
        self.find_breaker(name).reset(self.monotonic())
        return self.show_breakers()

    def find_breaker(self, name: str) -> Breaker:
        """The breaker *name*.

        :raises LanguageError: there is none.
        """
        breaker = self.breakers.find(name)
        if breaker is None:
            known = ", ".join(shown(one.name) for one in self.breakers) or "none so far"
            raise LanguageError(f'there is no breaker "{shown(name)}" (known: {known})')
        return breaker

    def help(self) -> Answer:
        """The commands."""
        return Answer(HELP)

    def quit(self) -> Answer:
        """Stop the daemon once running requests have ended."""
        self._quit()
        return Answer("Stopping.\n")
