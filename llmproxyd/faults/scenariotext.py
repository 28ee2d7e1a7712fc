"""Scenarios as text: ``r x2, ok, cut at=3, ok *``, read and written.

Commas separate steps.  A step is a fault as :func:`llmproxyd.faults.language.parse` takes it, or ``ok``,
with ``xN`` for so many requests or ``*`` for all that follow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmproxyd.faults.kinds import SILENT
from llmproxyd.faults.language import ClearFault, Incomplete, LanguageError, parse, shown
from llmproxyd.faults.rules import Rule, Share, Side, Times
from llmproxyd.faults.scenario import Scenario, Scope, Step

OK = "ok"
NAME = "scenario"
"""What a scenario is called that nobody named, and the name of its faults in logs."""

MOST_STEPS = 1000
"""Steps of one scenario."""
MOST_TIMES = 1_000_000
"""Requests that may take one step."""

ACCEPTED = 'steps such as "r x2, ok, cut at=3, ok *": faults or ok, each with xN or * (all that follow)'
ASKED = f"the name of a YAML file, or {ACCEPTED}"

SEEDS = range(1 - 10**18, 10**18)
"""Seeds that can be given."""

_FILE = re.compile(r"[/~].*|\.\.?/.*|\S.*\.ya?ml", re.IGNORECASE)
_OPTION = re.compile(r"(?<!\S)(scope|place|seed|name)\s*=\s*([^\s,]*)", re.IGNORECASE)
_QUOTED = re.compile(r"(['\"])([^'\"]*)\1")
_SPACED_EQUALS = re.compile(r"\s*=\s*")
_TIMES = re.compile(r"[xX]([0-9]{1,9})")
_SEED = re.compile(r"-?[0-9]{1,18}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants to have run.

    :param file: the name of a file that holds the scenario, ``None`` where a line does.
    :param steps: of the line.
    :param name: as given, as are the others; ``None`` where it was not.
    """

    file: str | None
    steps: tuple[Step, ...] = ()
    name: str | None = None
    scope: Scope | None = None
    side: Side | None = None
    seed: int | None = None

    def scenario(self) -> Scenario:
        """The scenario of the line."""
        return self.over(Scenario(name=NAME, steps=self.steps))

    def over(self, scenario: Scenario) -> Scenario:
        """*scenario* with what was given in its place."""
        return replace(
            scenario,
            name=self.name or scenario.name,
            scope=self.scope or scenario.scope,
            side=self.side or scenario.side,
            seed=scenario.seed if self.seed is None else self.seed,
        )


def is_file(text: str) -> bool:
    """Whether *text* names a file rather than being steps.

    It does where it ends in ``.yaml`` or ``.yml``, or begins with ``/``, ``./``, ``../`` or ``~``.
    """
    return _FILE.fullmatch(text.strip()) is not None


def parse_asked(text: str) -> Asked:
    """What *text* asks for: steps or the name of a file, and options.

    :raises Incomplete: something is missing at its end.
    :raises LanguageError: it is not understood.
    """
    given: dict[str, str] = {}
    for name, value in _OPTION.findall(text):
        if name.lower() in given:
            raise LanguageError(f"{name.lower()} is given twice")
        if not value:
            raise Incomplete(f"{name.lower()}= needs a value")
        given[name.lower()] = value
    rest = _OPTION.sub(" ", text).strip()
    if quoted := _QUOTED.fullmatch(rest):
        rest = quoted.group(2).strip()
    file = rest if is_file(rest) else None
    return Asked(
        file,
        () if file else parse_steps(rest),
        name=_read_name(given.get("name")),
        scope=_read_scope(given.get("scope")),
        side=_read_side(given.get("place")),
        seed=_read_seed(given.get("seed")),
    )


def check_asked(text: str) -> None:
    """Refuse a *text* that neither names a file nor is a scenario.

    :raises LanguageError: with what is accepted.
    """
    parse_asked(text)


def parse_steps(text: str) -> tuple[Step, ...]:
    """The steps of one line.

    :raises Incomplete: something is missing at its end.
    :raises LanguageError: one of them is none.
    """
    texts = text.split(",")
    if not text.strip():
        raise Incomplete(f"the steps are missing; accepted: {ACCEPTED}")
    steps = []
    for number, one in enumerate(texts, 1):
        try:
            steps.append(parse_step(one))
        except LanguageError as error:
            kind = Incomplete if isinstance(error, Incomplete) and number == len(texts) else LanguageError
            raise kind(str(error) if len(texts) == 1 else f"step {number}: {error}") from None
    if wrong := problem(steps):
        raise LanguageError(wrong[1])
    return tuple(steps)


def problem(steps: Sequence[Step]) -> tuple[int, str] | None:
    """What is wrong with *steps* taken together: at which of them, and why."""
    if len(steps) > MOST_STEPS:
        return MOST_STEPS, f"there are {len(steps)} steps; accepted: {MOST_STEPS} at most"
    for index, step in enumerate(steps[:-1]):
        if step.times is None:
            later = f'"{shown(steps[index + 1].line)}"'
            return (
                index + 1,
                f'nothing comes to {later}: "{shown(step.line)}" before it takes all that follow',
            )
    return None


def parse_step(text: str, times: int | str | None = None) -> Step:
    """The step that *text* is.

    :param times: how many requests take it where the text does not say so, ``"*"`` for all that follow.
    :raises Incomplete: something is missing at its end.
    :raises LanguageError: it is none.
    """
    words = _SPACED_EQUALS.sub("=", text).split()
    counts = [word for word in words if word == "*" or _TIMES.fullmatch(word)]
    rest = " ".join(word for word in words if word not in counts)
    if len(counts) + (times is not None) > 1:
        raise LanguageError(f'"{shown(" ".join(words))}" says twice how many requests take it')
    if not rest:
        if counts:
            raise LanguageError(f'a fault or ok is missing before "{shown(counts[0])}"')
        raise Incomplete("a step is missing; accepted: a fault or ok")
    often = _times(counts[0] if counts else times)
    if rest.lower() == OK:
        return Step(None, often, OK)
    if rest.lower().split()[0] == OK:
        raise LanguageError(f'ok takes xN or * alone, found "{shown(rest[3:])}"')
    return Step(_rule(rest), often, rest)


def check_times(count: int) -> None:
    """Refuse a *count* of requests that no step can have.

    :raises LanguageError: with those that it can.
    """
    if not 1 <= count <= MOST_TIMES:
        raise LanguageError(
            f"x{count} is out of bounds; accepted: x1 to x{MOST_TIMES}, or * for all that follow"
        )


def check_name(text: str) -> None:
    """Refuse *text* as the name of a scenario.

    :raises LanguageError: with what is accepted.
    """
    if not _NAME.fullmatch(text):
        raise LanguageError(f"name={shown(text)}: accepted are letters, digits, ., _ and -, 64 at most")


def line_of(scenario: Scenario) -> str:
    """The steps of *scenario* as one line; read again they are the same steps."""
    return ", ".join(step.line for step in scenario.steps)


def _times(given: int | str | None) -> int | None:
    if given == "*":
        return None
    if given is None:
        return 1
    count = int(str(given).lstrip("xX"))
    check_times(count)
    return count


def _rule(text: str) -> Rule:
    """The fault that the step *text* is.

    :raises LanguageError: it is none, or says what a scenario says itself.
    """
    command = parse(text)
    if isinstance(command, ClearFault):
        raise LanguageError(f'"{shown(text)}" is no fault; ok is a step that passes')
    rule = command.rule
    if isinstance(rule.when, Times) and rule.when.count > 1:
        word = text.split()[0]
        raise LanguageError(
            f'"{shown(text)}": how many requests take a step is said by x{rule.when.count}, '
            f'as in "{shown(word)} x{rule.when.count}"'
        )
    for said, name in (
        (rule.after, "after="),
        (rule.lasts is not None, "ttl=" if rule.kind in SILENT else "for="),
        (rule.most is not None, "max="),
        (rule.side is not Side.CLIENT, "place="),
    ):
        if said:
            raise LanguageError(f'"{shown(text)}": {name} cannot be said of a step, {_INSTEAD[name]}')
    when = rule.when if isinstance(rule.when, Share) else Times(1)
    return replace(rule, name=NAME, when=when)


_INSTEAD = {
    "after=": 'write "ok xN" before it',
    "for=": "which ends with the requests that take it",
    "ttl=": "which ends with the requests that take it",
    "max=": "write xN",
    "place=": "but of the whole scenario",
}


def _read_name(text: str | None) -> str | None:
    if text is not None:
        check_name(text)
    return text


def _read_scope(text: str | None) -> Scope | None:
    if text is None:
        return None
    if text.lower() not in list(Scope):
        raise LanguageError(f"scope={shown(text)}: accepted are {', '.join(Scope)}")
    return Scope(text.lower())


def _read_side(text: str | None) -> Side | None:
    if text is None:
        return None
    if text.lower() not in list(Side):
        raise LanguageError(f"place={shown(text)}: accepted are {', '.join(Side)}")
    return Side(text.lower())


def _read_seed(text: str | None) -> int | None:
    if text is None:
        return None
    if not _SEED.fullmatch(text):
        raise LanguageError(f"seed={shown(text)}: accepted is a whole number of 18 digits at most")
    return int(text)
