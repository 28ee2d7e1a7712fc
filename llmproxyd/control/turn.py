"""One line at work: what a verb gets, and the ways in which it answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred

from llmproxyd.control.answers import Answer, Console
from llmproxyd.control.calls import Auditing, Caller, Recorder
from llmproxyd.control.levers import Levers
from llmproxyd.control.means import Journal, Means
from llmproxyd.control.tables import members
from llmproxyd.errors import Refused
from llmproxyd.faults.language import LanguageError
from llmproxyd.language.grammar import Call
from llmproxyd.model import Change

T = TypeVar("T")


class Again(Protocol):
    """Does the same line once more."""

    def __call__(self, *, console: Console) -> Answer | Deferred[Answer]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a verb gets.

    :param line: as it was written.
    :param again: does it once more, for whoever has been asked.
    """

    control: Levers
    call: Call
    line: str
    caller: Caller
    console: Console
    audit: Auditing
    again: Again

    @property
    def means(self) -> Means:
        """What there is beside faults and breakers."""
        return self.control.means

    @property
    def values(self) -> Mapping[str, Any]:
        """What was given."""
        return self.call.values

    @property
    def json(self) -> bool:
        """Whether the answer's text is JSON."""
        return self.call.json or self.console.json

    @property
    def colour(self) -> bool:
        """Whether it may be in colour."""
        return self.console.colour and not self.json

    def journal(self) -> Journal:
        """The last requests.

        :raises Refused: they are not kept.
        """
        journal = self.means.journal
        if journal is None:
            raise Refused(
                404,
                "journal_unavailable",
                "No journal of requests is kept here; journal.requests says how many are.",
            )
        return journal

    def asking(self, question: str) -> Answer:
        """An answer that asks before the line is done."""
        console = replace(self.console, terminal=False)
        return Answer("", asks=question, confirm=lambda: self.again(console=console))

    async def change(
        self,
        action: str,
        target: str,
        do: Callable[[], T] | Callable[[], Awaitable[T]],
        *,
        check: Callable[[], object] = lambda: None,
        before: Mapping[str, object] | None = None,
        after: Mapping[str, object] | None = None,
    ) -> T:
        """Put a change on record, then *do* it.

        :param check: raises where it must be refused, which is on record too.
        :raises Refused: it cannot be recorded, and nothing has changed; else what the two raise.
        """
        try:
            check()
        except (LanguageError, Refused) as error:
            refusal = Change(
                who=self.caller.who,
                address=self.caller.address,
                action=action,
                target=target,
                before=before,
                after=before,
                outcome="refused",
                detail=str(error),
            )
            # It changes nothing, so it need not be on record to hold.
            await self.audit(refusal).addErrback(lambda failure: None)
            raise

        async def done() -> T:
            result = do()
            return await result if isinstance(result, Awaitable) else result

        return await Recorder(self.audit).make(self.caller, action, target, done, before=before, after=after)


def of_members(value: Mapping[str, object]) -> Answer:
    """An answer that shows each member on a line."""
    return Answer(members(value) + "\n", data=value)


def refusal(error: LanguageError | Refused) -> Answer:
    """*error* as an answer."""
    if isinstance(error, LanguageError):
        text = f"{error}\nNothing has changed. Type help for the commands.\n"
        return Answer(text, ok=False, error=Refused(400, "command_refused", f"{error}; nothing has changed"))
    return Answer(f"{error.message}\n", ok=False, error=error)


def written(answer: Answer, as_json: bool) -> Answer:
    """*answer* with its data as JSON for a text, where that was asked for."""
    if not as_json or answer.asks is not None:
        return answer
    data = answer.data
    if answer.error is not None:
        data = {"error": {"code": answer.error.code, "message": answer.error.message}}
    elif data is None:
        data = {"text": answer.text.rstrip("\n")}
    return replace(answer, text=json_text(data))


def json_text(data: object, indent: int | None = 2) -> str:
    """*data* as JSON, one value and a line break."""
    return json.dumps(data, indent=indent, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)
