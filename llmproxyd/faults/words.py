"""Faults in words that leave no doubt: for the terminal, ``/health`` and the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from llmproxyd.faults.choose import Running, Tally
from llmproxyd.faults.rules import UNKNOWN, FaultKind, Match, Rule, Share, Times
from llmproxyd.providers.base import ErrorKind
from llmproxyd.units import format_duration, parse_duration

NO_ERROR = "No error (pass through)"

TITLES: dict[FaultKind, tuple[str, str]] = {
    ErrorKind.CONTEXT_LENGTH: ("📏", "Context length exceeded"),
    ErrorKind.RATE_LIMIT: ("⏱️", "Rate limit exceeded"),
    ErrorKind.SERVER_ERROR: ("💥", "Server error"),
    ErrorKind.OVERLOADED: ("🔥", "Overloaded"),
    ErrorKind.QUOTA: ("💳", "Quota exceeded"),
    ErrorKind.AUTHENTICATION: ("🔑", "Authentication error"),
    ErrorKind.PERMISSION: ("🚫", "Permission denied"),
    ErrorKind.NOT_FOUND: ("❓", "Not found"),
    ErrorKind.CONTENT_FILTER: ("🛑", "Content filtered"),
    ErrorKind.TOO_LARGE: ("📦", "Request too large"),
    ErrorKind.BAD_GATEWAY: ("🚧", "Bad gateway"),
    ErrorKind.GATEWAY_TIMEOUT: ("⌛", "Gateway timeout"),
    UNKNOWN: ("💥", "Unknown server error"),
}

RETRIED = frozenset(
    {
        ErrorKind.RATE_LIMIT,
        ErrorKind.SERVER_ERROR,
        ErrorKind.OVERLOADED,
        ErrorKind.QUOTA,
        ErrorKind.BAD_GATEWAY,
        ErrorKind.GATEWAY_TIMEOUT,
        UNKNOWN,
    }
)
"""Kinds that SDKs retry by themselves, so that a single one never shows."""


LETTERS: Mapping[FaultKind, str] = {ErrorKind.CONTEXT_LENGTH: "c", ErrorKind.RATE_LIMIT: "r", UNKNOWN: "u"}
"""The seed's letters, by kind."""


def when_in_words(running: Running) -> str:
    """``next 1 request``, ``30 % of requests``, ``every request``."""
    when = running.rule.when
    if isinstance(when, Share):
        return f"{when.fraction * 100:.10g} % of requests"
    if isinstance(when, Times):
        count = running.remaining or 0
        return f"next {count} request{'' if count == 1 else 's'}"
    return "every request"


def match_in_words(match: Match) -> list[str]:
    """The narrowing conditions of *match*, empty when it takes every inference request."""
    parts = []
    if match.upstream is not None:
        parts.append(f"upstream {match.upstream}")
    if match.model is not None:
        parts.append(f"model {match.model}")
    if match.path is not None:
        parts.append(f"path {match.path}")
    if match.streaming is not None:
        parts.append("streams" if match.streaming else "no streams")
    return parts


def describe(running: Running, now: float) -> str:
    """``Rate limit exceeded (next 1 request, only upstream openai, for 4m59s more)``."""
    parts = [when_in_words(running)]
    if running.passing:
        parts.append(f"after {running.passing} more pass{'es' if running.passing == 1 else ''}")
    if narrowed := match_in_words(running.rule.match):
        parts.append("only " + ", ".join(narrowed))
    if running.rule.retry_after is not None:
        parts.append(f"retry_after {running.rule.retry_after:.10g} s")
    if running.ends is not None:
        parts.append(f"for {format_duration(max(1, round(running.ends - now)))} more")
    return f"{TITLES[running.rule.kind][1]} ({', '.join(parts)})"


def line_of(rule: Rule) -> str:
    """*rule* as the operator would write it: ``r 3 after=1 upstream=openai for=5m``.

    Read again it is the same rule, but for its name, and for texts that hold white space, which the
    language cannot say.
    """
    when = rule.when
    often = "*"
    if isinstance(when, Times):
        often = str(when.count)
    elif isinstance(when, Share):
        often = _decimal(when.fraction)
    parts = [LETTERS.get(rule.kind, f"error {rule.kind}"), often]
    match, streaming = rule.match, rule.match.streaming
    options = {
        "upstream": match.upstream,
        "model": match.model,
        "path": match.path,
        "stream": None if streaming is None else "yes" if streaming else "no",
        "after": str(rule.after) if rule.after else None,
        "for": None if rule.lasts is None else _duration(rule.lasts),
        "retry_after": None if rule.retry_after is None else _decimal(rule.retry_after),
    }
    parts += [f"{name}={value}" for name, value in options.items() if value is not None]
    return " ".join(parts)


def _decimal(number: float) -> str:
    """*number* without an exponent, exactly."""
    return f"{Decimal(repr(number)):f}"


def _duration(seconds: float) -> str:
    text = format_duration(seconds)
    return text if parse_duration(text) == seconds else _decimal(seconds)


def symbol(kind: FaultKind | None) -> str:
    """The sign that stands before a mode; ``None`` is the sign of no error."""
    return "✅" if kind is None else TITLES[kind][0]


def retry_note(rule: Rule) -> str | None:
    """What to know when a counted error is one that clients retry by themselves."""
    if not isinstance(rule.when, Times) or rule.kind not in RETRIED or rule.when.count > 3:
        return None
    letter = {ErrorKind.RATE_LIMIT: "r", UNKNOWN: "u"}.get(rule.kind, f"error {rule.kind}")
    return (
        "Clients retry this error by themselves (OpenAI and Anthropic SDKs twice, goose three "
        f"times), so a call may still succeed. To make one call fail: {letter} 3 "
        f"(goose: {letter} 4), or {letter} * until n."
    )


def tally_in_words(tally: Tally) -> str | None:
    """``injected 2 of 3; 1 never reached``, ``None`` when nothing was ever asked for."""
    parts = []
    if tally.injected or tally.never:
        parts.append(f"injected {tally.injected} of {tally.injected + tally.never}")
    if tally.never:
        parts.append(f"{tally.never} never reached")
    parts += [f"{name} was never reached" for name in tally.idle]
    return "; ".join(parts) or None


def prompt_words(mode: Running | None, rules: Iterable[Running]) -> str | None:
    """The active fault in a few words for a prompt, ``None`` when everything passes."""
    if mode is not None:
        return f"{TITLES[mode.rule.kind][1]}: {when_in_words(mode)}"
    names = [running.rule.name for running in rules]
    return f"rules: {', '.join(names)}" if names else None
