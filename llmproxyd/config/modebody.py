"""The file that ``faults.mode`` names as the body of an answer."""

from __future__ import annotations

from llmproxyd.config.convert import Walker
from llmproxyd.config.scenariofile import body_of, folder_of
from llmproxyd.config.schema import Config
from llmproxyd.faults.language import LanguageError, SetFault, parse

_KEY = ("faults", "mode")


def check(config: Config, walker: Walker) -> None:
    """Report on *walker* that it cannot be used."""
    try:
        command = parse(config.faults.mode)
    except LanguageError:
        return  # that was told
    if isinstance(command, SetFault) and command.rule.manner.file is not None:
        try:
            body_of(command.rule.manner.file, folder_of(config))
        except ValueError as error:
            walker.problem(_KEY, str(error))
