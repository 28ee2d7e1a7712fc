"""The options of a fault: ``name=value`` pairs to values, pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from llmproxyd.faults.kinds import OPTIONS, SILENT, normal, provider_error
from llmproxyd.faults.mistakes import Incomplete, LanguageError, did_you_mean, quoted, shown
from llmproxyd.faults.rules import Breakage, FaultKind, Manner, Match, Rule, Side, When
from llmproxyd.faults.values import (
    at_of,
    count,
    excess_of,
    file_name,
    jitter_of,
    media_of,
    most,
    pace,
    percent_of,
    retry_after,
    status_of,
    waiting,
)

T = TypeVar("T")

EXCESS = 100
"""Bytes by which a ``wrong_length`` is too large where no number is given."""

_SPACED_EQUALS = re.compile(r"\s*=\s*(?![A-Za-z][A-Za-z_-]*\s*=)")
"""Not where the next word is an option of its own: then this one has no value."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a fault, as values.

    :param percent: of ``percent=``: when it fires; ``None`` where it was not given.
    :param never: ``percent=0`` was given.
    """

    match: Match = Match()
    after: int = 0
    lasts: float | None = None
    retry_after: float | None = None
    most: int | None = None
    side: Side = Side.CLIENT
    manner: Manner = Manner()
    percent: When | None = None
    never: bool = False

    def rule(self, name: str, kind: FaultKind, when: When) -> Rule:
        """The rule of these options.

        :raises Incomplete: *kind* needs an option that was not given.
        """
        need(kind, self.manner)
        return Rule(
            name=name,
            kind=kind,
            when=when,
            match=self.match,
            after=self.after,
            lasts=self.lasts,
            retry_after=self.retry_after,
            most=self.most,
            side=self.side,
            manner=self.manner,
        )


def need(kind: FaultKind, manner: Manner) -> None:
    """See that a fault of *kind* can be done in this *manner*.

    :raises Incomplete: an option is missing.
    """
    paces = (manner.first_token, manner.per_event, manner.tokens_per_second)
    if kind is Breakage.SLOW and not any(paces):
        raise Incomplete("slow needs a pace: first_token=2s, per_event=200ms or tokens_per_second=20")
    if kind is Breakage.DELAY and manner.silence is None:
        raise Incomplete("delay needs for=, such as for=3s (never is the delay that does not end)")
    if kind is Breakage.STATUS and not manner.status:
        raise Incomplete("status needs a number: status=503")


def pairs(text: str, accepted: tuple[str, ...]) -> dict[str, str]:
    """``name=value`` pairs, separated by white space, which is free around ``=``.

    :raises LanguageError: an option that is unknown, or given twice.
    """
    given: dict[str, str] = {}
    for word in _SPACED_EQUALS.sub("=", text).split():
        name, equals, value = word.partition("=")
        name = normal(name)
        if not equals:
            raise LanguageError(f"{quoted(word)} after the options; write the modifier before them")
        if name not in accepted:
            hint, all_of_them = did_you_mean(name, accepted), ", ".join(accepted) or "none"
            raise LanguageError(f"{quoted(name)} is no option here{hint} (accepted: {all_of_them})")
        if name in given:
            raise LanguageError(f"{name} is given twice")
        if not value:
            raise Incomplete(f"{name}= needs a value")
        given[name] = value
    return given


def parse_options(
    text: str,
    kind: FaultKind = "",
    accepted: tuple[str, ...] = OPTIONS,
    before: Mapping[str, str] | None = None,
) -> Options:
    """The options of a fault of *kind*.

    :param before: options that stood elsewhere.
    :raises LanguageError: an option that is unknown, given twice or impossible.
    """
    given = pairs(text, accepted)
    for name, value in (before or {}).items():
        if name in given:
            raise LanguageError(f"{name} is given twice")
        given[name] = value
    return options_from(given, kind)


def options_from(given: Mapping[str, str], kind: FaultKind) -> Options:
    """The values of the texts *given* by the names of options.

    :raises LanguageError: one is impossible.
    """
    streaming = _choice(given, "stream", ("yes", "no"))
    place = _choice(given, "place", tuple(Side))
    percent = _read(given, "percent", percent_of)
    return Options(
        match=Match(
            upstream=given.get("upstream"),
            model=given.get("model"),
            path=given.get("path"),
            streaming=None if streaming is None else streaming == "yes",
        ),
        after=_read(given, "after", count) or 0,
        lasts=_lasting(given, "ttl" if kind in SILENT else "for"),
        retry_after=_read(given, "retry_after", retry_after),
        most=_read(given, "max", most),
        side=Side.CLIENT if place is None else Side(place),
        manner=_manner(given, kind),
        percent=percent,
        never=percent is None and "percent" in given,
    )


def _manner(given: Mapping[str, str], kind: FaultKind) -> Manner:
    """How it is done, as far as the texts say."""
    file = _read(given, "body", file_name)
    excess = _read(given, "length", excess_of)
    return Manner(
        at=_read(given, "at", at_of),
        error=_read(given, "error", provider_error),
        silence=_lasting(given, "for") if kind in SILENT else None,
        first_token=_read(given, "first_token", waiting),
        per_event=_read(given, "per_event", waiting),
        tokens_per_second=_read(given, "tokens_per_second", pace),
        jitter=_read(given, "jitter", jitter_of) or 0.0,
        status=_read(given, "status", status_of) or 0,
        file=file,
        media=Manner().media if file is None else media_of(file),
        excess=EXCESS if excess is None and kind is Breakage.WRONG_LENGTH else excess or 0,
    )


def _read(given: Mapping[str, str], name: str, read: Callable[[str], T]) -> T | None:
    """The value of the option *name*, ``None`` where it was not given.

    :raises LanguageError: *read* takes it for none, whose :exc:`ValueError` says what is accepted.
    """
    text = given.get(name)
    if text is None:
        return None
    try:
        return read(text)
    except LanguageError:
        raise
    except ValueError as error:
        raise LanguageError(f"{name}={shown(text)}: {error}") from None


def _lasting(given: Mapping[str, str], name: str) -> float | None:
    seconds = _read(given, name, waiting)
    if seconds == 0:
        raise LanguageError(
            f"{name}={shown(given[name])} would be over at once; leave it out or give a longer duration"
        )
    return seconds


def _choice(given: Mapping[str, str], name: str, words: tuple[str, ...]) -> str | None:
    text = given.get(name)
    if text is None or text.lower() in words:
        return None if text is None else text.lower()
    accepted = " and ".join(f"{name}={word}" for word in words)
    raise LanguageError(f"{name}={shown(text)}: accepted are {accepted}")
