"""What an operator can do, by lines of one language, shared by every console and the admin API.

Consoles only translate: they hand a line to :meth:`Control.run` and show what comes back.  A
command that is refused leaves everything as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from inspect import isawaitable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from llmproxyd.control.answers import OWN, Answer, Console
from llmproxyd.control.calls import Auditing, Caller, in_words
from llmproxyd.control.commanded import completed
from llmproxyd.control.dispatch import HANDLERS
from llmproxyd.control.levers import Levers
from llmproxyd.control.turn import Turn, refusal, written
from llmproxyd.errors import Refused
from llmproxyd.faults.language import ClearFault, LanguageError, parse
from llmproxyd.language.complete import complete
from llmproxyd.language.table import TABLE
from llmproxyd.model import Change
from llmproxyd.store.interface import Conflict, StoreUnavailable

CONSOLE = Caller("console")
"""Whoever is at a console that does not say who."""

LONGEST = 8192
"""Characters of a line."""


class Control(Levers):
    """The verbs, as lines."""

    log = Logger()

    def run(
        self,
        line: str,
        caller: Caller | None = CONSOLE,
        *,
        console: Console = OWN,
        audit: Auditing | None = None,
    ) -> Answer | Deferred[Answer]:
        """Do what *line* says.  It never raises, and a Deferred never fails.

        The Deferred comes only where something must be waited for (the store, the audit log); a
        console takes no further line until it has fired.

        :param caller: for the audit log; ``None`` where it is on record already.
        :param audit: puts changes on record instead of the control's own way.
        """
        if caller is None:
            caller, audit = CONSOLE, _nowhere
        waiting = Deferred.fromCoroutine(self._run(line, caller, console, audit or self._audit))
        # Most verbs are done at once: their answer is there without a Deferred.
        return waiting.result if waiting.called and isinstance(waiting.result, Answer) else waiting

    def start_mode(self, line: str) -> Answer:
        """Set the mode that the configuration asks for, which nobody commanded and nobody forgets."""
        try:
            command = parse(line)
            if isinstance(command, ClearFault):
                return self.clear_fault(command.note)
            return self.set_fault(completed(command.rule, self.folder))
        except LanguageError as error:
            return refusal(error)

    def complete(self, text: str) -> list[str]:
        """What the last word of *text* may be, as whole words; none where nothing is known."""
        if len(text) > LONGEST or not self._may_be_read(text):
            return []
        return complete(TABLE, text, self._names)

    def holds_secret(self, line: str) -> bool:
        """Whether *line* must be kept out of histories and logs (a provider's key, a token may be in it)."""
        try:
            verb, at = TABLE.named(line)
        except LanguageError:
            return False
        rest = line[at:]
        return any(one.secret and one.name in rest.lower() for one in verb.options) or (
            verb.words[0] == "token" and "sk-" in rest
        )

    async def _run(self, line: str, caller: Caller, console: Console, audit: Auditing) -> Answer:
        as_json = console.json
        try:
            if len(line) > LONGEST:
                raise LanguageError(f"the line is longer than {LONGEST} characters")
            as_json = as_json or line.rstrip().endswith("--json")
            call = TABLE.parse(line)
            again = partial(self.run, line, caller, audit=audit)
            turn = Turn(
                control=self, call=call, line=line, caller=caller, console=console, audit=audit, again=again
            )
            answer: Any = HANDLERS[call.verb.name](turn)
            if isawaitable(answer):
                answer = await answer
        except (LanguageError, Refused) as error:
            answer = refusal(error)
        except (StoreUnavailable, Conflict) as error:
            answer = refusal(in_words(error))
        except Exception:
            self.log.failure("a command failed")
            answer = refusal(Refused(500, "internal_error", "That failed; the daemon's log says why."))
        return written(answer, as_json)

    def _names(self, what: str) -> Iterable[str]:
        """Names of *what*, for completion."""
        if what == "upstream":
            return self.upstreams
        if what == "breaker":
            return [one.name for one in self.breakers]
        if what == "rule":
            return [one.rule.name for one in self.engine.rules]
        if what == "limit":
            return [one.limit.name for one in self.limits()]
        if what == "verb":
            return ["all", *TABLE.firsts]
        if what == "namespace":
            return self.means.namespaces()
        return ()

    @staticmethod
    def _may_be_read(text: str) -> bool:
        return text.replace("\t", " ").isprintable()


def _nowhere(change: Change) -> Deferred[None]:
    return succeed(None)
