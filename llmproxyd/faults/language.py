"""Faults in the operator's language: text to command, pure.

``n``, and ``c``, ``r``, ``u`` with the seed's modifiers, ``error KIND …`` for every kind of the
catalogue, and every breakage by its name (``cut at=5``, ``status=503``).  The same grammar serves
the terminal, ``--mode``, the ``faults:`` section of a file, the steps of scenarios and the request
field ``x-llmproxyd-fault``.  The other verbs are in :mod:`llmproxyd.language`.
A text that is not understood raises, with what would be accepted; it never means "nothing".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llmproxyd.faults.kinds import BREAKAGES as BREAKAGES
from llmproxyd.faults.kinds import KINDS as KINDS
from llmproxyd.faults.kinds import OPTIONS as OPTIONS
from llmproxyd.faults.kinds import SHORT as SHORT
from llmproxyd.faults.kinds import kind_of as kind_of
from llmproxyd.faults.kinds import normal, options_of, options_of_field
from llmproxyd.faults.mistakes import Incomplete as Incomplete
from llmproxyd.faults.mistakes import LanguageError as LanguageError
from llmproxyd.faults.mistakes import did_you_mean, quoted
from llmproxyd.faults.mistakes import shown as shown
from llmproxyd.faults.options import Options as Options
from llmproxyd.faults.options import parse_options
from llmproxyd.faults.rules import Always, Breakage, FaultKind, Rule, Share, Times, When
from llmproxyd.faults.values import status_of


@dataclass(frozen=True, slots=True)
class SetFault:
    """Make *rule* the operator's mode."""

    rule: Rule


@dataclass(frozen=True, slots=True)
class ClearFault:
    """Pass everything through.

    :param note: why, where the operator wrote something else than ``n`` (``c 0``).
    """

    note: str = ""


Command = SetFault | ClearFault

VERBS: tuple[str, ...] = tuple(name for name in BREAKAGES if name != Breakage.STATUS)
"""Breakages that are verbs as they stand; ``status`` is one with its number alone."""

COMMANDS = f"n, c, r, u, error KIND, {', '.join(VERBS)}, status=NNN"
MODIFIER_HELP = (
    'nothing (once), a whole number ("3": that many), a share ("0.3", "30%") or "*" (every request)'
)

STANDING = 'a fault such as "r 30% upstream=openai for=10m", with name=NAME if you like'

RULE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_NAME = re.compile(r"(?<!\S)name\s*=\s*(?![A-Za-z_]+\s*=)(\S*)", re.IGNORECASE)
_WORD = re.compile(r"([A-Za-z]+(?:[_-][A-Za-z]+)*)(.*)", re.DOTALL)
_STATUS = re.compile(r"status\s*=\s*(\S*)(.*)", re.DOTALL | re.IGNORECASE)
_KIND = re.compile(r"\s*([A-Za-z_-]+)(.*)", re.DOTALL)
_OPTION_START = re.compile(r"(?:^|\s)([A-Za-z][A-Za-z_-]*)\s*=")
_COUNT = re.compile(r"[0-9]{1,9}")
_DECIMAL = re.compile(r"[0-9]*\.[0-9]+")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*%")


def parse(text: str) -> Command:
    """The command that *text* is.

    :raises LanguageError: it is none.
    """
    given = text.strip()
    if status := _STATUS.fullmatch(given):
        return _fault(Breakage.STATUS, status.group(2), _status(status.group(1)))
    match = _WORD.fullmatch(given)
    if match is None:
        raise LanguageError(f"{quoted(given)} is no fault; accepted: {COMMANDS}")
    word, rest = normal(match.group(1)), match.group(2)
    if word == "error":
        return _fault(*_error_kind(rest))
    if word in SHORT:
        return _fault(SHORT[word], rest)
    if word in VERBS:
        return _fault(Breakage(word), rest)
    if word != "n":
        raise LanguageError(f"{quoted(word)} is no fault{did_you_mean(word, VERBS)}; accepted: {COMMANDS}")
    if rest.strip():
        raise LanguageError(f"{word} takes nothing after it, found {quoted(rest.strip())}")
    return ClearFault()


def parse_field(text: str) -> Rule:
    """The fault that a request asks for: ``rate_limit; retry_after=2``, ``cut; at=3``, ``status=503``.

    :raises LanguageError: no such fault, or an option that a single request cannot have.
    """
    name, *options = text.split(";")
    before: Mapping[str, str] = {}
    if status := _STATUS.fullmatch(name.strip()):
        name, before = Breakage.STATUS, _status(status.group(1))
        options.insert(0, status.group(2))
    kind = kind_of(name.strip())
    given = parse_options(" ".join(options), kind, options_of_field(kind), before)
    return given.rule("header", kind, Always())


def parse_rule(name: str, error: str, when: str, options: Options) -> Rule:
    """A rule of the file, from the texts of its ``error`` and ``when``.

    :raises LanguageError: one of them is not understood, or the rule could never fire.
    """
    fires = None if options.never else options.percent or parse_when(when)
    if fires is None:
        told = "percent=0" if options.never else quoted(when)
        raise LanguageError(f"{told} never fires; remove the rule instead")
    return options.rule(name, kind_of(error), fires)


def parse_when(text: str) -> When | None:
    """When a fault fires; ``None`` for a count or share of zero, which is never.

    :raises LanguageError: it is no modifier.
    """
    text = text.strip()
    if not text:
        return Times(1)
    if text == "*":
        return Always()
    if _COUNT.fullmatch(text):
        return Times(int(text)) if int(text) else None
    if percent := _PERCENT.fullmatch(text):
        fraction = float(percent.group(1)) / 100
    elif _DECIMAL.fullmatch(text):
        fraction = float(text)
    else:
        raise LanguageError(f"{quoted(text)} is no modifier; accepted: {MODIFIER_HELP}")
    if fraction > 1:
        raise LanguageError(
            f"{quoted(text)} is more than every request; a share goes from 0.0 to 1.0 or 0% to 100%"
        )
    if fraction == 0:
        return None
    return Always() if fraction == 1 else Share(fraction)


def parse_standing(text: str) -> tuple[str | None, Rule]:
    """A rule that stands beside the mode: a fault as :func:`parse` takes it, and ``name=``.

    :returns: the name, if one was given, and the rule.
    :raises LanguageError: it is no fault, or one that could never fire.
    """
    names = _NAME.findall(text)
    if len(names) > 1:
        raise LanguageError("name is given twice")
    if names and not names[0]:
        raise Incomplete("name= needs a value")
    if not text.strip():
        raise Incomplete(f"a fault is missing; accepted: {STANDING}")
    command = parse(_NAME.sub(" ", text))
    if isinstance(command, ClearFault):
        raise LanguageError(f"{quoted(text.strip())} never fires; accepted: {STANDING}")
    if names and not RULE_NAME.fullmatch(names[0]):
        raise LanguageError(
            f"name={shown(names[0])}: accepted are letters, digits, ., _ and -, 64 at most, a letter first"
        )
    return (names[0] if names else None), command.rule


def _fault(kind: FaultKind, rest: str, before: Mapping[str, str] | None = None) -> SetFault | ClearFault:
    """The command of *kind*.

    :param before: options that stood elsewhere.
    """
    start = _OPTION_START.search(rest)
    modifier = (rest if start is None else rest[: start.start()]).strip()
    when = parse_when(modifier)
    options = parse_options("" if start is None else rest[start.start() :], kind, options_of(kind), before)
    if modifier and (options.percent is not None or options.never):
        raise LanguageError(f"{shown(modifier)} and percent= both say how often; write one of them")
    if when is None or options.never:
        told = shown(modifier) or "percent=0"
        return ClearFault(note=f"{told} means that no request fails: the same as n")
    return SetFault(options.rule("mode", kind, options.percent or when))


def _status(number: str) -> Mapping[str, str]:
    """The option that ``status=NUMBER`` stands for.

    :raises LanguageError: it is no status.
    """
    if not number:
        raise Incomplete("status= needs a value")
    try:
        status_of(number)
    except ValueError as error:
        raise LanguageError(f"status={shown(number)}: {error}") from None
    return {"status": number}


def _error_kind(rest: str) -> tuple[FaultKind, str]:
    match = _KIND.fullmatch(rest)
    if match is None:
        told = f"error needs a kind: {', '.join(KINDS)}"
        raise LanguageError(told) if rest.strip() else Incomplete(told)
    return kind_of(match.group(1)), match.group(2)
