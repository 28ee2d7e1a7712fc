"""The verbs about the daemon and the console: configuration, log, versions, help, the end."""

from __future__ import annotations

import platform
from importlib.metadata import version as version_of

from twisted.internet.defer import Deferred

from llmproxyd.control.answers import Answer
from llmproxyd.control.means import Reloads, Report
from llmproxyd.control.tables import members, plain
from llmproxyd.control.turn import Turn, of_members
from llmproxyd.control.wording import HELP, help_of, help_on_all
from llmproxyd.errors import Refused
from llmproxyd.faults.language import LanguageError, shown
from llmproxyd.language.table import TABLE


def config_show(turn: Turn) -> Answer:
    """``config show``."""
    if turn.means.config is None:
        raise Refused(404, "config_unavailable", "The configuration is not known here.")
    return of_members(turn.means.config())


async def config_check(turn: Turn) -> Answer:
    """``config check``."""
    report = await _waited(_reloads(turn).check())
    return _reported(report, "The configuration is good.", changes=False)


async def config_diff(turn: Turn) -> Answer:
    """``config diff``."""
    report = await _waited(_reloads(turn).check())
    return _reported(report, "A reload would change:" if report.changed else "A reload would change nothing.")


async def config_reload(turn: Turn) -> Answer:
    """``config reload``."""
    reloads = _reloads(turn)
    before = await _waited(reloads.check())
    if before.problems:
        return _reported(before, "")
    # What changes is recorded as it would change now; a file that changes in between is told of by the log.
    report: Report = await turn.change(
        "config.reload",
        "configuration",
        lambda: _waited(reloads.reload()),
        before={name: was for name, was, _ in before.changed},
        after={name: now for name, _, now in before.changed},
    )
    return _reported(report, "Reloaded; changed:" if report.changed else "Reloaded; nothing has changed.")


async def log_level(turn: Turn) -> Answer:
    """``log level``."""
    set_level = turn.means.set_level
    if set_level is None:
        raise Refused(404, "log_level_unavailable", "Log levels cannot be set here.")
    namespace, level = turn.values["namespace"], turn.values["level"]
    await turn.change(
        "log.level", shown(namespace), lambda: set_level(namespace, level), after={"level": level}
    )
    return Answer(
        f"{shown(namespace)} logs from {level} on.\n", data={"namespace": namespace, "level": level}
    )


def version(turn: Turn) -> Answer:
    """``version``."""
    found = {
        "llmproxyd": version_of("llmproxyd"),
        "twisted": version_of("twisted"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    return of_members(found)


def help_(turn: Turn) -> Answer:
    """``help``."""
    words = tuple(word.lower() for word in turn.values.get("verb", ()))
    if not words:
        return Answer(HELP)
    if words == ("all",):
        return Answer(help_on_all())
    verbs = [one for one in TABLE.verbs if one.words[: len(words)] == words]
    if not verbs:
        raise LanguageError(
            f'"{shown(" ".join(words))}" is no verb; accepted: all, {", ".join(TABLE.firsts)}'
        )
    return Answer("\n".join(help_of(one) for one in verbs))


async def python(turn: Turn) -> Answer:
    """``python``."""
    if not turn.console.python:
        raise Refused(
            403,
            "python_not_allowed",
            "No interpreter is opened here: it needs operator.python: true, and a console over SSH, or over "
            "telnet on loopback.",
        )
    await turn.change("python.open", "daemon", lambda: None)
    return Answer("This is the daemon itself. Ctrl-D returns.\n", python=True)


async def quit_(turn: Turn) -> Answer:
    """``quit`` and ``q``."""
    if turn.console.own:
        return await _stop(turn)
    if not turn.console.lasting:
        raise LanguageError("there is no console to leave; shutdown stops the daemon")
    return Answer("", leaves=True)


async def shutdown(turn: Turn) -> Answer:
    """``shutdown``."""
    if turn.console.terminal:
        return turn.asking("Stop the daemon, once running requests have ended?")
    return await _stop(turn)


async def _stop(turn: Turn) -> Answer:
    return await turn.change("daemon.stop", shown(turn.line.strip()), turn.control.quit)


async def _waited(report: Report | Deferred[Report]) -> Report:
    return await report if isinstance(report, Deferred) else report


def _reloads(turn: Turn) -> Reloads:
    if turn.means.reloads is None:
        raise Refused(404, "reload_unavailable", "The configuration cannot be read again here.")
    return turn.means.reloads


def _reported(report: Report, head: str, *, changes: bool = True) -> Answer:
    data = {
        "problems": list(report.problems),
        "changed": [{"key": name, "before": was, "after": now} for name, was, now in report.changed],
        "restart": list(report.restart),
        "warnings": list(report.warnings),
    }
    if report.problems:
        lines = [*map(plain, report.problems), "Nothing has changed."]
        error = Refused(400, "invalid_configuration", "; ".join(map(plain, report.problems))[:2000])
        return Answer("\n".join(lines) + "\n", ok=False, data=data, error=error)
    lines = [head]
    if changes and report.changed:
        lines.append(members({name: f"{plain(was)} -> {plain(now)}" for name, was, now in report.changed}, 2))
    if report.restart:
        lines.append("Only a restart changes: " + ", ".join(map(plain, report.restart)))
    lines += [f"Warning: {plain(one)}" for one in report.warnings]
    return Answer("\n".join(lines) + "\n", data=data)
