"""What is rehearsed from the start on (sandbox, recordings, mode, scenario), and what came of it."""

from __future__ import annotations

import time

from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel

from llmproxyd.assembly import Assembly
from llmproxyd.config.problems import ConfigError
from llmproxyd.config.rehearsed import of_config
from llmproxyd.control.scenarioverbs import start
from llmproxyd.control.verbs import Control
from llmproxyd.faults import words
from llmproxyd.faults.rules import Share
from llmproxyd.inspection.prices import Prices
from llmproxyd.listen import Listening, StartError, listen
from llmproxyd.observe.eventjson import EventFormat
from llmproxyd.observe.report import Asked, Report
from llmproxyd.sandbox.site import make_site

REMIND = 60.0
"""Seconds between reminders of an active fault in the log."""


class Rehearsing:
    """The rehearsal of one run of the daemon, from its first request to its last.

    :param control: carries out what the configuration asks for, as it does for an operator.
    """

    log = Logger(namespace="llmproxyd")

    def __init__(self, works: Assembly, control: Control) -> None:
        self._works = works
        self._control = control
        self._report: Report | None = None
        self._reminder = LoopingCall(self._remind)
        self._reminder.clock = works.reactor

    def begin(self) -> list[str]:
        """Fail as the configuration asks; what to tell about it, and about recordings.

        :raises StartError: it cannot be done.
        """
        answer = self._control.start_mode(self._works.config.faults.mode)
        if not answer.ok:
            raise StartError(f"faults.mode: {answer.text.splitlines()[0]}")
        return [*self._begin_scenario(), *self._explain_mode(), *self._works.deck.notes()]

    def keep_report(self) -> None:
        """Keep what becomes of requests from now on, if a report on it is to be written at the end."""
        works = self._works
        path = works.config.faults.report
        if path is None:
            return
        asked = Asked(
            scenarios=works.scenarios.told,
            tally=works.engine.tally,
            verdicts=lambda: works.watch.verdicts(over=True),
        )
        self._report = Report(path, asked, time.time, EventFormat(works.redactor, Prices({})))
        works.sink.subscribe(self._report, arrivals=False)

    def start_reminders(self) -> None:
        """Say in the log, again and again, what is active."""
        self._reminder.start(REMIND, now=False)

    def stop_reminders(self) -> None:
        """Say so no more."""
        if self._reminder.running:
            self._reminder.stop()

    def finish(self) -> bool:
        """Tell what came of it; whether all faults that were asked for came."""
        tally = self._works.engine.tally()
        reached = not tally.never and not tally.idle
        if text := words.tally_in_words(tally):
            self.log.emit(LogLevel.info if reached else LogLevel.warn, "Faults: {text}", text=text)
        if self._report is not None:
            self._report.write()
        return reached

    def _begin_scenario(self) -> list[str]:
        """Begin with the configured scenario; what to tell about it."""
        try:
            scenario = of_config(self._works.config)
        except ConfigError as error:
            raise StartError(str(error)) from None
        return [] if scenario is None else start(self._control, self._works.scenarios, scenario)

    def _explain_mode(self) -> list[str]:
        """What clients will make of the mode, and how its shares can be drawn again."""
        notes = []
        engine, control = self._works.engine, self._control
        shares = [one for one in engine.rules if isinstance(one.rule.when, Share)]
        if engine.mode is not None:
            shares += [engine.mode] if isinstance(engine.mode.rule.when, Share) else []
            if note := words.retry_note(engine.mode.rule):
                notes.append(note)
        if shares:
            control.ensure_seed()
            notes.append(
                f"Shares are drawn with seed {control.seed}; faults.seed: {control.seed} repeats this run."
            )
        return notes

    def _remind(self) -> None:
        if self._control.active():
            self.log.info("Still active: {mode}", mode=self._control.mode_in_words())


def stand_in(works: Assembly) -> Listening | None:
    """Open the sandbox on a port of this machine's own, where it is to answer for the providers."""
    if not works.config.sandbox.enabled:
        return None
    return listen(
        works.reactor, ["tcp:0:interface=127.0.0.1"], make_site(works.reactor, works.config.sandbox)
    )
