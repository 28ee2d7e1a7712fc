"""The verbs of scenarios, and what they take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmproxyd.faults.language import Incomplete, LanguageError, shown
from llmproxyd.faults.rules import Side
from llmproxyd.faults.scenario import Scope
from llmproxyd.faults.scenariotext import ACCEPTED, check_name, parse_asked
from llmproxyd.language.filters import Filter
from llmproxyd.language.grammar import Argument, Verb
from llmproxyd.language.kinds import Count, Filtering, Names

SECTION = "Scenarios"

MOST_EXPORTED = 1000
"""Requests that are looked at at most, and unless told otherwise."""
MOST_RUNS = 10_000
"""Runs that are shown at most."""

_SETTINGS: Mapping[str, tuple[str, ...]] = {"place": tuple(Side), "name": ()}


@dataclass(frozen=True, slots=True)
class Setting:
    """``NAME=VALUE`` that says how to export."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Exporting:
    """A number of requests, a filter of them, or how to export."""

    accepted: str = "a number of requests, a filter, place=client, place=upstream or name=NAME"

    def read(self, text: str) -> int | Filter | Setting:
        """What *text* means."""
        name, equals, value = text.partition("=")
        name = name.lower()
        if text.isascii() and text.isdigit():
            number = Count(1, MOST_EXPORTED).read(text)
            assert number is not None
            return number
        if not equals or name not in _SETTINGS:
            return Filtering().read(text)
        if not value:
            raise Incomplete(f"{name}= needs a value")
        if name == "name":
            check_name(value)
        elif value.lower() not in _SETTINGS[name]:
            raise LanguageError(f"{name}={shown(value)}: accepted are {', '.join(_SETTINGS[name])}")
        else:
            value = value.lower()
        return Setting(name, value)

    def candidates(self, names: Names) -> Iterable[str]:
        """The settings, then filters."""
        yield from (f"place={side}" for side in Side)
        yield "name="
        yield from Filtering().candidates(names)


def _asked(text: str) -> Mapping[str, Any]:
    return {"asked": parse_asked(text)}


OPTIONS = (
    *(f"scope={scope}" for scope in Scope),
    *(f"place={side}" for side in Side),
    "seed=",
    "name=",
)
"""What may be said of a whole scenario, for completion."""

SCENARIOS = (
    Verb(
        words=("scenario", "run"),
        about=f"Have requests take steps in order, in place of another scenario: {ACCEPTED}; or those of a "
        "file within the folder of the configuration",
        section=SECTION,
        rest=_asked,
        shows="STEP, STEP … | FILE.yaml [scope=all|model|test] [place=client|upstream] [seed=N] [name=NAME]",
        examples=(
            "scenario run r x2, ok, cut at=3, ok *",
            "scenario run error overloaded x2, ok scope=test",
            "scenario run outage.yaml seed=7",
        ),
        changes=True,
    ),
    Verb(
        words=("scenario", "stop"),
        about="Take no further steps; rules and the mode stay",
        section=SECTION,
        changes=True,
    ),
    Verb(
        words=("scenario", "status"),
        about="Show which steps were reached, for each run (the last 20, unless another number is given)",
        section=SECTION,
        arguments=(Argument("N", Count(1, MOST_RUNS), optional=True),),
        default=True,
        examples=("scenario status", "scenario status 200"),
    ),
    Verb(
        words=("scenario", "export"),
        about="Write what the last requests met with, real failures too, as the file of a scenario; with "
        "place=upstream what each attempt met with",
        section=SECTION,
        arguments=(Argument("WHAT", Exporting(), optional=True, many=True),),
        examples=(
            "scenario export",
            "scenario export 100 upstream=openai status>=400 name=outage",
            "scenario export place=upstream",
        ),
    ),
)
"""The verbs."""
