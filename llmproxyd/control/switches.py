"""Faults and breakers as data, and switched on record: what consoles do by lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from llmproxyd.config.problems import quoted
from llmproxyd.control.answers import ONCE
from llmproxyd.control.calls import Auditing, Caller, Recorder, verb
from llmproxyd.control.forms import taken
from llmproxyd.control.switchforms import BREAKER, COMMAND
from llmproxyd.control.verbs import Control
from llmproxyd.errors import Refused
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
        breakers: Breakers,
        monotonic: Callable[[], float],
        audit: Auditing,
    ) -> None:
        self._control = control
        self._breakers = breakers
        self._monotonic = monotonic
        self._audit = audit
        self._recorder = Recorder(audit)

    def faults(self) -> dict[str, Any]:
        """The operator's mode and the rules that can still fire."""
        return self._control.faults()

    def breakers(self) -> dict[str, Any]:
        """Every breaker that has been needed so far."""
        now = self._monotonic()
        return {"breakers": [one.snapshot(now).told() for one in self._breakers]}

    @verb
    async def run(self, caller: Caller, given: Mapping[str, object]) -> dict[str, Any]:
        """Do what a line of the operator's language says."""
        line = taken(COMMAND, given)["command"]
        answer = self._control.run(line, caller, console=ONCE, audit=self._audit)
        if isinstance(answer, Deferred):
            answer = await answer
        if answer.error is not None:
            raise answer.error
        return {"text": answer.text, "ok": answer.ok, "data": answer.data, **self.faults()}

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
