"""The scenario that a configuration asks for, and the report on it."""

from __future__ import annotations

import os
from pathlib import Path

from llmproxyd.config.convert import Walker
from llmproxyd.config.problems import ConfigError, Problem, quoted
from llmproxyd.config.scenariofile import body_of, complete, folder_of, read
from llmproxyd.config.schema import Config
from llmproxyd.faults.scenario import Scenario
from llmproxyd.faults.scenariotext import parse_asked

_KEY = ("faults", "scenario")


def of_config(config: Config) -> Scenario | None:
    """The scenario that *config* asks for.

    :raises ConfigError: it cannot be used; with everything that is wrong with it.
    """
    if config.faults.scenario is None:
        return None
    try:
        asked = parse_asked(config.faults.scenario)
        folder = folder_of(config)
        if asked.file is None:
            return complete(asked.scenario(), folder, config.upstreams, body_of)
        return asked.over(read(folder / asked.file, config.upstreams, body_of))
    except ValueError as error:
        raise ConfigError([Problem("", ".".join(_KEY), str(error))]) from None


def check(config: Config, walker: Walker) -> None:
    """Report on *walker* what is wrong with the scenario that *config* asks for, and with its report."""
    try:
        of_config(config)
    except ConfigError as error:
        for problem in error.problems:
            if problem.source:
                walker.problems.append(problem)
            else:
                walker.problem(_KEY, problem.message)
    report = config.faults.report
    if report is not None and not _writable(report):
        accepted = "a file in a folder that is there and can be written to"
        walker.problem(("faults", "report"), f"found {quoted(str(report))}; accepted: {accepted}")


def _writable(file: Path) -> bool:
    return not file.is_dir() and file.parent.is_dir() and os.access(file.parent, os.W_OK)
