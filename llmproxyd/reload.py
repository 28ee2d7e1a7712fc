"""Reload: the whole file is checked first, then one new policy is swapped in.

On any mistake the running configuration stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.logger import Logger

from llmproxyd.assembly import Assembly
from llmproxyd.config.changes import changes, held
from llmproxyd.config.problems import ConfigError
from llmproxyd.config.schema import Config
from llmproxyd.listen import Listening, StartError, changed
from llmproxyd.safety import checked
from llmproxyd.wire.site import WireSite


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of it.

    :param problems: what is wrong with the file; then nothing has changed.
    :param changed: keys, and what they were and are, as they may be shown.
    :param restart: keys that differ and need a restart.
    :param warnings: as at the start.
    """

    problems: tuple[str, ...] = ()
    changed: tuple[tuple[str, object, object], ...] = ()
    restart: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the file can be used."""
        return not self.problems


NOT_READ = Reloaded(problems=("this daemon was not started from a configuration that can be read again",))
"""Where there is nothing to read."""


class Reloader:
    """Reads the configuration again.

    :param load: reads it as at the start: the same file, environment and command line.
    :ivar listening: the open ports of the public listener.
    """

    log = Logger(namespace="llmproxyd")

    def __init__(
        self, load: Callable[[], Config], works: Assembly, site: WireSite, listening: Listening
    ) -> None:
        self._load = load
        self._works = works
        self._site = site
        self.listening = listening

    def check(self) -> Reloaded:
        """What a reload would change; nothing changes."""
        return self._read()[0]

    def reload(self) -> Reloaded:
        """Go by the file as it is now, as far as no restart is needed."""
        report, config = self._read()
        if config is None:
            for problem in report.problems:
                self.log.error("Not reloaded: {problem}", problem=problem)
            return report
        works = self._works
        try:
            prepared = works.prepare(config)
            rules = [rule.rule() for rule in config.faults.rules]
            limits = [limit.limit() for limit in config.faults.limits]
            listening, closing = changed(works.reactor, self.listening, config.listen, self._site)
            opened = [port for port in listening.ports if port not in self.listening.ports]
            try:
                warnings = checked(listening, prepared.upstreams, config)
            except Exception:
                for port in opened:
                    port.stopListening()
                raise
        except StartError as error:
            self.log.error("Not reloaded: {error}", error=error)
            return Reloaded(problems=(str(error),))
        self.listening = listening
        for port in closing:
            port.stopListening()
        works.engine.replace_rules(rules)
        works.engine.limits.replace_file(limits)
        works.adopt(prepared, browsers=not listening.beyond_loopback)
        report = Reloaded((), report.changed, report.restart, (*report.warnings, *warnings))
        self._tell(report)
        return report

    def _read(self) -> tuple[Reloaded, Config | None]:
        before = self._works.config
        try:
            wanted = self._load()
        except ConfigError as error:
            return Reloaded(problems=tuple(str(one) for one in error.problems)), None
        config, restart = held(before, wanted)
        differing = tuple(changes(before, config))
        return Reloaded((), differing, tuple(restart), config.warnings), config

    def _tell(self, report: Reloaded) -> None:
        names = ", ".join(name for name, _, _ in report.changed)
        self.log.info("Reloaded: {what}", what=names or "nothing changed")
        if report.restart:
            self.log.warn("Only a restart changes: {keys}", keys=", ".join(report.restart))
        for warning in report.warnings:
            self.log.warn("{warning}", warning=warning)
