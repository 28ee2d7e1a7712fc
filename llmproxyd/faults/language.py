"""Faults in the operator's language: text to command, pure.

``n``, and ``c``, ``r``, ``u`` with the seed's modifiers, and ``error KIND …`` for every kind of
the catalogue.  The same grammar serves the terminal, ``--mode``, the ``faults:`` section of a file
and the request field ``x-llmproxyd-fault``.  The other verbs are in :mod:`llmproxyd.language`.
A text that is not understood raises, with what would be accepted; it never means "nothing".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from llmproxyd.faults.rules import UNKNOWN, Always, FaultKind, Match, Rule, Share, Times, When
from llmproxyd.providers.base import ErrorKind
from llmproxyd.units import DURATION_HELP, parse_duration


class LanguageError(ValueError):
    """The text is no command; the message says what was wrong and what is accepted."""


class Incomplete(LanguageError):
    """The text may be the beginning of a command: something is missing at its end."""


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

SHORT: Mapping[str, FaultKind] = {
    "c": ErrorKind.CONTEXT_LENGTH,
    "r": ErrorKind.RATE_LIMIT,
    "u": UNKNOWN,
}
KINDS: tuple[str, ...] = tuple(kind.value for kind in ErrorKind)
OPTIONS = ("retry_after", "after", "for", "upstream", "model", "path", "stream")
COMMANDS = "n, c, r, u, error KIND"
MODIFIER_HELP = (
    'nothing (once), a whole number ("3": that many), a share ("0.3", "30%") or "*" (every request)'
)

STANDING = 'a fault such as "r 30% upstream=openai for=10m", with name=NAME if you like'

RULE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_NAME = re.compile(r"(?<!\S)name\s*=\s*(?![A-Za-z_]+\s*=)(\S*)", re.IGNORECASE)
_WORD = re.compile(r"([A-Za-z]+)(.*)", re.DOTALL)
_KIND = re.compile(r"\s*([A-Za-z_-]+)(.*)", re.DOTALL)
_OPTION_START = re.compile(r"(?:^|\s)([A-Za-z_]+)\s*=")
# Not where the next word is an option of its own: then this one has no value.
_SPACED_EQUALS = re.compile(r"\s*=\s*(?![A-Za-z_]+\s*=)")
_COUNT = re.compile(r"[0-9]{1,9}")
_DECIMAL = re.compile(r"[0-9]*\.[0-9]+")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*%")
_SECONDS = re.compile(r"[0-9]{1,7}(?:\.[0-9]+)?")


def parse(text: str) -> Command:
    """The command that *text* is.

    :raises LanguageError: it is none.
    """
    match = _WORD.fullmatch(text.strip())
    if match is None:
        raise LanguageError(f"{_quoted(text.strip())} is no fault; accepted: {COMMANDS}")
    word, rest = match.group(1).lower(), match.group(2)
    if word == "error":
        return _fault(*_error_kind(rest))
    if word in SHORT:
        return _fault(SHORT[word], rest)
    if word != "n":
        raise LanguageError(f"{_quoted(word)} is no fault; accepted: {COMMANDS}")
    if rest.strip():
        raise LanguageError(f"{word} takes nothing after it, found {_quoted(rest.strip())}")
    return ClearFault()


def parse_field(text: str) -> Rule:
    """The fault that a request asks for: ``rate_limit; retry_after=2``.

    :raises LanguageError: no such fault, or an option that a single request cannot have.
    """
    name, *options = text.split(";")
    given = parse_options(" ".join(options), accepted=("retry_after",))
    return given.rule("header", kind_of(name.strip()), Always())


def parse_rule(name: str, error: str, when: str, options: Options) -> Rule:
    """A rule of the file, from the texts of its ``error`` and ``when``.

    :raises LanguageError: one of them is not understood, or the rule could never fire.
    """
    fires = parse_when(when)
    if fires is None:
        raise LanguageError(f"{_quoted(when)} never fires; remove the rule instead")
    return options.rule(name, kind_of(error), fires)


def kind_of(text: str) -> FaultKind:
    """The kind named by *text*: a name of the catalogue, ``unknown``, or ``c``, ``r``, ``u``.

    :raises LanguageError: there is no such kind.
    """
    name = text.lower().replace("-", "_")
    if name in SHORT:
        return SHORT[name]
    if name == UNKNOWN:
        return UNKNOWN
    if name in KINDS:
        return ErrorKind(name)
    near = get_close_matches(name, KINDS, 1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    raise LanguageError(f"{_quoted(text)} is no kind of error{hint} (accepted: {', '.join(KINDS)})")


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
        raise LanguageError(f"{_quoted(text)} is no modifier; accepted: {MODIFIER_HELP}")
    if fraction > 1:
        raise LanguageError(
            f"{_quoted(text)} is more than every request; a share goes from 0.0 to 1.0 or 0% to 100%"
        )
    if fraction == 0:
        return None
    return Always() if fraction == 1 else Share(fraction)


@dataclass(frozen=True, slots=True)
class Options:
    """The options after a modifier, as values."""

    match: Match = Match()
    after: int = 0
    lasts: float | None = None
    retry_after: float | None = None

    def rule(self, name: str, kind: FaultKind, when: When) -> Rule:
        """The rule of these options."""
        return Rule(
            name=name,
            kind=kind,
            when=when,
            match=self.match,
            after=self.after,
            lasts=self.lasts,
            retry_after=self.retry_after,
        )


def parse_options(text: str, accepted: tuple[str, ...] = OPTIONS) -> Options:
    """``name=value`` pairs, separated by white space, which is free around ``=``.

    :raises LanguageError: an option that is unknown, given twice or impossible.
    """
    given: dict[str, str] = {}
    for word in _SPACED_EQUALS.sub("=", text).split():
        name, equals, value = word.partition("=")
        name = name.lower()
        if not equals:
            raise LanguageError(f"{_quoted(word)} after the options; write the modifier before them")
        if name not in accepted:
            near = get_close_matches(name, accepted, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise LanguageError(f"{_quoted(name)} is no option here{hint} (accepted: {', '.join(accepted)})")
        if name in given:
            raise LanguageError(f"{name} is given twice")
        if not value:
            raise Incomplete(f"{name}= needs a value")
        given[name] = value
    return _options(given)


def _options(given: Mapping[str, str]) -> Options:
    streaming = given.get("stream")
    if streaming is not None and streaming.lower() not in ("yes", "no"):
        raise LanguageError(f"stream={shown(streaming)}: accepted are stream=yes and stream=no")
    after = given.get("after", "0")
    if not _COUNT.fullmatch(after):
        raise LanguageError(f"after={shown(after)}: a whole number of requests is accepted")
    retry_after = given.get("retry_after")
    if retry_after is not None and not _SECONDS.fullmatch(retry_after):
        raise LanguageError(f"retry_after={shown(retry_after)}: a number of seconds is accepted, 0 included")
    lasts = given.get("for")
    try:
        seconds = None if lasts is None else parse_duration(lasts)
    except ValueError:
        raise LanguageError(f"for={shown(lasts or '')}: accepted is {DURATION_HELP}") from None
    if seconds == 0:
        raise LanguageError("for=0 would be over at once; leave it out or give a longer duration")
    return Options(
        match=Match(
            upstream=given.get("upstream"),
            model=given.get("model"),
            path=given.get("path"),
            streaming=None if streaming is None else streaming.lower() == "yes",
        ),
        after=int(after),
        lasts=seconds,
        retry_after=None if retry_after is None else float(retry_after),
    )


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
        raise LanguageError(f"{_quoted(text.strip())} never fires; accepted: {STANDING}")
    if names and not RULE_NAME.fullmatch(names[0]):
        raise LanguageError(
            f"name={shown(names[0])}: accepted are letters, digits, ., _ and -, 64 at most, a letter first"
        )
    return (names[0] if names else None), command.rule


def _fault(kind: FaultKind, rest: str) -> SetFault | ClearFault:
    start = _OPTION_START.search(rest)
    modifier = (rest if start is None else rest[: start.start()]).strip()
    when = parse_when(modifier)
    options = parse_options("" if start is None else rest[start.start() :])
    if when is None:
        return ClearFault(note=f"{shown(modifier)} means that no request fails: the same as n")
    return SetFault(options.rule("mode", kind, when))


def _error_kind(rest: str) -> tuple[FaultKind, str]:
    match = _KIND.fullmatch(rest)
    if match is None:
        told = f"error needs a kind: {', '.join(KINDS)}"
        raise LanguageError(told) if rest.strip() else Incomplete(told)
    return kind_of(match.group(1)), match.group(2)


def shown(text: str) -> str:
    """*text* as shown in an answer: bounded, without control characters."""
    short = text if len(text) <= 40 else text[:40] + "…"
    return "".join(char if char.isprintable() else "�" for char in short)


def _quoted(text: str) -> str:
    return f'"{shown(text)}"'
