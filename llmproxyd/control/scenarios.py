"""The scenario at work, and those that were: found, begun, stopped, told of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from llmproxyd.config.problems import ConfigError
from llmproxyd.config.scenariofile import body_of, complete, read, within
from llmproxyd.errors import Refused
from llmproxyd.faults.choose import Engine
from llmproxyd.faults.language import LanguageError, shown
from llmproxyd.faults.progress import told
from llmproxyd.faults.scenario import Play, Randoms, Scenario
from llmproxyd.faults.scenariotext import Asked
from llmproxyd.providers.base import Provider

MOST_KEPT = 100
"""Scenarios that are over and remembered, for the report."""
MOST_RUNS = 10_000
"""Runs of all of them together."""


class Scenarios:
    """The scenarios of one daemon.

    :param randoms: makes random numbers from a seed.
    :param folder: of the configuration; operators may name files in it alone, by their names.
    :param upstreams: the names that ``upstream=`` may have.
    :ivar providers: by name, for whoever exports what was seen.
    """

    def __init__(
        self,
        engine: Engine,
        randoms: Randoms,
        folder: Path,
        upstreams: Collection[str],
        providers: Mapping[str, Provider],
    ) -> None:
        self.providers = providers
        self._engine = engine
        self._randoms = randoms
        self._folder = folder
        self._upstreams = upstreams
        self._plays: deque[Play] = deque(maxlen=MOST_KEPT)

    @property
    def play(self) -> Play | None:
        """The one at work, through or not."""
        return self._engine.play

    @property
    def last(self) -> Play | None:
        """The one that was begun last, even if it was stopped."""
        return self._plays[-1] if self._plays else None

    def found(self, asked: Asked) -> Scenario:
        """The scenario that an operator has *asked* for.

        :raises LanguageError: it is not understood, or names a file elsewhere.
        :raises Refused: the file cannot be used; with everything that is wrong with it.
        """
        if asked.file is None:
            try:
                return complete(asked.scenario(), self._folder, self._upstreams, body_of)
            except ValueError as error:
                raise LanguageError(str(error)) from None
        parts = asked.file.split("/")
        if any(part[:1] in ("", ".", "~") for part in parts) or "\\" in asked.file:
            raise LanguageError(
                f'"{shown(asked.file)}": accepted is a file within the folder of the configuration'
            )
        path = self._folder / asked.file
        if not within(path, self._folder):
            raise LanguageError(f'"{shown(asked.file)}" leads out of the folder of the configuration')
        try:
            return asked.over(read(path, self._upstreams, body_of))
        except ConfigError as error:
            raise Refused(400, "bad_scenario", str(error)) from None

    def begin(self, scenario: Scenario, seed: int, ended: Callable[[], object]) -> Play:
        """Have requests take the steps of *scenario* from now on, in place of another one.

        :param seed: of its shares and jitter, where it has none itself.
        :param ended: called when all have taken the last step.
        """
        play = Play(scenario, self._randoms, seed, ended=ended)
        while self._plays and sum(one.remembered for one in self._plays) > MOST_RUNS:
            self._plays.popleft()
        self._plays.append(play)
        self._engine.play = play
        return play

    def stop(self) -> bool:
        """Let requests pass again; whether there was a scenario at work."""
        had = self._engine.play is not None
        self._engine.play = None
        return had

    def told(self) -> list[dict[str, Any]]:
        """All that were begun and are remembered, the oldest first, as JSON takes them."""
        return [told(play) | {"stopped": play is not self._engine.play} for play in self._plays]
