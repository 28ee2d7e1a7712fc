"""Faults and breakers as data, and switched on record: what consoles do by lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmproxyd.config.problems import quoted
from llmproxyd.control.calls import Auditing, Caller, Recorder, verb
from llmproxyd.control.forms import taken
from llmproxyd.control.switchforms import BREAKER, COMMAND
from llmproxyd.control.verbs import ACTIONS, Answer, Control
from llmproxyd.errors import Refused
from llmproxyd.faults import words
from llmproxyd.faults.choose import Engine, Running
from llmproxyd.faults.language import LanguageError, Quit, parse
from llmproxyd.resilience.breakers import Breakers


class Switches:
    """The operator's commands for edges that want data, and have changes on record first.

    :param monotonic: seconds.
    """

    command_form = COMMAND
    breaker_form = BREAKER

    def __init__(
        self,
        control: Control,
        *,
        engine: Engine,
        breakers: Breakers,
        monotonic: Callable[[], float],
        audit: Auditing,
    ) -> None:
        self._control = control
        self._engine = engine
        self._breakers = breakers
        self._monotonic = monotonic
        self._recorder = Recorder(audit)

    def faults(self) -> dict[str, Any]:
        """The operator's mode and the rules of the file that can still fire."""
        mode = self._engine.mode
        return {
            "active": self._control.active(),
            "words": self._control.mode_in_words(),
            "mode": None if mode is None else self._running(mode),
            "rules": [self._running(one) for one in self._engine.rules],
            "seed": self._control.seed,
        }

    def breakers(self) -> dict[str, Any]:
        """Every breaker that has been needed so far."""
        now = self._monotonic()
        return {"breakers": [one.snapshot(now).told() for one in self._breakers]}

    @verb
    async def run(self, caller: Caller, given: Mapping[str, object]) -> dict[str, Any]:
        """Do what a line of the operator's language says."""
        line = taken(COMMAND, given)["command"].strip()
        try:
            command = parse(line)
        except LanguageError as error:
            raise Refused(400, "command_refused", f"{error}; nothing has changed") from None
        if isinstance(command, Quit):
            raise Refused(400, "command_refused", "The daemon is stopped by whoever started it.")
        action = ACTIONS.get(type(command))
        if action is None:
            answer = self._done(line)
        else:
            answer = await self._on_record(caller, action, line)
        return {"text": answer.text, **self.faults()}

    @verb
    async def switch_breaker(self, caller: Caller, given: Mapping[str, object]) -> dict[str, Any]:
        """Open or close one breaker."""
        read = taken(BREAKER, given)
        name, trip = read["name"], read["action"] == "trip"
        breaker = self._breakers.find(name)
        if breaker is None:
            known = ", ".join(one.name for one in self._breakers) or "none so far"
            raise Refused(404, "no_such_breaker", f"There is no breaker {quoted(name)} (known: {known})")
        before = {"state": breaker.state}

        async def switched() -> None:
            (self._control.trip_breaker if trip else self._control.reset_breaker)(name)

        await self._recorder.make(
            caller,
            f"breaker.{read['action']}",
            name,
            switched,
            before=before,
            after={"state": "open" if trip else "closed"},
        )
        return self.breakers()

    async def _on_record(self, caller: Caller, action: str, line: str) -> Answer:
        async def done() -> Answer:
            return self._done(line)

        before = {"faults": self._control.mode_in_words()}
        return await self._recorder.make(caller, action, quoted(line)[1:-1], done, before=before)

    def _done(self, line: str) -> Answer:
        answer = self._control.run(line, who=None)
        if not answer.ok:
            raise Refused(400, "command_refused", answer.text.splitlines()[0])
        return answer

    def _running(self, one: Running) -> dict[str, Any]:
        rule, now = one.rule, self._monotonic()
        return {
            "name": rule.name,
            "error": str(rule.kind),
            "words": words.describe(one, now),
            "remaining": one.remaining,
            "passing": one.passing,
            "hits": one.hits,
            "ends_in": None if one.ends is None else round(max(0.0, one.ends - now), 3),
        }
