"""The kinds of faults by their names, and the options that each has."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxyd.faults.mistakes import LanguageError, did_you_mean, quoted
from llmproxyd.faults.rules import UNKNOWN, Breakage, FaultKind
from llmproxyd.providers.base import ErrorKind

SHORT: Mapping[str, FaultKind] = {
    "c": ErrorKind.CONTEXT_LENGTH,
    "r": ErrorKind.RATE_LIMIT,
    "u": UNKNOWN,
}
KINDS: tuple[str, ...] = tuple(kind.value for kind in ErrorKind)
BREAKAGES: tuple[str, ...] = tuple(kind.value for kind in Breakage)

COMMON = ("after", "for", "max", "percent", "place", "upstream", "model", "path", "stream")
"""Options of every fault."""

OPTIONS = ("retry_after", *COMMON)
"""Options of the provider's own errors."""

SILENT = frozenset({Breakage.STALL, Breakage.DELAY})
"""Kinds whose ``for=`` is the silence; how long the rule is on is their ``ttl=``."""

OF_RULES = frozenset({*COMMON, "ttl", "body"})
"""Options that a request's own fault cannot have, but for the silence."""

_OWN: Mapping[Breakage, tuple[str, ...]] = {
    Breakage.CUT: ("at",),
    Breakage.RESET: ("at",),
    Breakage.STALL: ("at", "ttl"),
    Breakage.STREAM_ERROR: ("at", "error"),
    Breakage.GARBAGE: ("at",),
    Breakage.TRUNCATE: ("at",),
    Breakage.DUPLICATE: ("at",),
    Breakage.REORDER: ("at",),
    Breakage.NO_USAGE: (),
    Breakage.EMPTY: (),
    Breakage.WRONG_LENGTH: ("length",),
    Breakage.SLOW: ("first_token", "per_event", "tokens_per_second", "jitter"),
    Breakage.DELAY: ("ttl",),
    Breakage.REFUSE: (),
    Breakage.NEVER: (),
    Breakage.STATUS: ("status", "body", "retry_after"),
}


def options_of(kind: FaultKind) -> tuple[str, ...]:
    """The options that a fault of *kind* may have."""
    return (*_OWN[kind], *COMMON) if isinstance(kind, Breakage) else OPTIONS


def options_of_field(kind: FaultKind) -> tuple[str, ...]:
    """Those of them that a request may ask for with its field."""
    silence = ("for",) if kind in SILENT else ()
    return (*(name for name in options_of(kind) if name not in OF_RULES), *silence)


def normal(name: str) -> str:
    """*name* as it is known: lower case, dashes as underscores."""
    return name.lower().replace("-", "_")


def kind_of(text: str) -> FaultKind:
    """The kind named by *text*: one of the catalogue, ``unknown``, ``c``, ``r``, ``u``, or a breakage.

    :raises LanguageError: there is no such kind.
    """
    name = normal(text)
    if name in SHORT:
        return SHORT[name]
    if name == UNKNOWN:
        return UNKNOWN
    if name in KINDS:
        return ErrorKind(name)
    if name in BREAKAGES:
        return Breakage(name)
    hint = did_you_mean(name, (*KINDS, *BREAKAGES))
    accepted = ", ".join((*KINDS, *BREAKAGES))
    raise LanguageError(f"{quoted(text)} is no kind of error{hint} (accepted: {accepted})")


def provider_error(text: str) -> ErrorKind | None:
    """The provider's own error named by *text*; ``None`` for the server error that each is known for.

    :raises LanguageError: there is none of this name.
    """
    name = normal(text)
    if name in SHORT:
        name = str(SHORT[name])
    if name == UNKNOWN:
        return None
    if name in KINDS:
        return ErrorKind(name)
    raise LanguageError(
        f"{quoted(text)} is no kind of error{did_you_mean(name, KINDS)} (accepted: {', '.join(KINDS)})"
    )
