"""Faults in words that leave no doubt: for the terminal, ``/health`` and the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from llmproxyd.faults.choose import Running, Tally
from llmproxyd.faults.kinds import SILENT
from llmproxyd.faults.rules import (
    UNKNOWN,
    At,
    Breakage,
    FaultKind,
    Manner,
    Match,
    Rule,
    Share,
    Side,
    Spot,
    Times,
)
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
    Breakage.CUT: ("✂️", "Connection cut"),
    Breakage.RESET: ("🔌", "Connection reset"),
    Breakage.STALL: ("🧊", "Silence"),
    Breakage.STREAM_ERROR: ("⚡", "Error within the stream"),
    Breakage.GARBAGE: ("🧩", "Broken event"),
    Breakage.TRUNCATE: ("🪓", "Clean end too early"),
    Breakage.DUPLICATE: ("👯", "Event sent twice"),
    Breakage.REORDER: ("🔀", "Events out of order"),
    Breakage.NO_USAGE: ("🧾", "No counts of tokens"),
    Breakage.EMPTY: ("📭", "Stream without content"),
    Breakage.WRONG_LENGTH: ("📐", "Wrong Content-Length"),
    Breakage.SLOW: ("🐌", "Slow answer"),
    Breakage.DELAY: ("⏳", "Late answer"),
    Breakage.REFUSE: ("⛔", "Connection closed without an answer"),
    Breakage.NEVER: ("🌑", "No answer at all"),
    Breakage.STATUS: ("🔢", "Any status"),
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
        Breakage.REFUSE,
    }
)
"""Kinds that SDKs retry by themselves, so that a single one never shows."""

RETRIED_STATUSES = frozenset({408, 409, 429, *range(500, 600)})
"""The same of answers with any status."""


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
    if running.rule.most is not None:
        left = max(running.rule.most - running.hits, 0)
        parts.append(f"{left} hit{'' if left == 1 else 's'} at most")
    if running.rule.side is Side.UPSTREAM:
        parts.append("as from the upstream")
    if running.ends is not None:
        parts.append(left_in_words(running.ends - now))
    return f"{title_of(running.rule)} ({', '.join(parts)})"


def left_in_words(seconds: float) -> str:
    """``for 4m59s more``; of hours, in whole minutes."""
    left = max(1, round(seconds))
    return f"for {format_duration(left if left < 3600 else -(-left // 60) * 60)} more"


def title_of(rule: Rule) -> str:
    """What goes wrong: ``Rate limit exceeded``, ``Connection cut after 5 content events``."""
    kind, manner = rule.kind, rule.manner
    if kind == Breakage.STATUS:
        body = f", body {manner.file}" if manner.file else ""
        return f"Status {manner.status}{body}"
    parts = [TITLES[kind][1]]
    if manner.error is not None:
        parts.append(f"({TITLES[manner.error][1]})")
    if manner.at is not None:
        parts.append(at_in_words(manner.at))
    if manner.silence is not None:
        parts.append(f"{'by' if kind == Breakage.DELAY else 'for'} {format_duration(manner.silence)}")
    if manner.excess:
        parts.append(f"({abs(manner.excess)} bytes too {'large' if manner.excess > 0 else 'small'})")
    if paces := _paces(manner):
        parts.append(f"({', '.join(paces)})")
    return " ".join(parts)


def at_in_words(at: At) -> str:
    """``after 5 content events``, ``before the first content``."""
    number = f"{at.number:.10g}"
    if at.spot is Spot.EVENTS:
        return f"after {number} content event{'' if at.number == 1 else 's'}"
    if at.spot is Spot.BYTES:
        return f"after {number} byte{'' if at.number == 1 else 's'}"
    if at.spot is Spot.PERCENT:
        return f"after {number} % of the bytes"
    return {
        Spot.START: "before the first content",
        Spot.TOOL: "within the arguments of a tool call",
        Spot.END: "in place of the terminator",
    }[at.spot]


def _paces(manner: Manner) -> list[str]:
    parts = []
    if manner.first_token is not None:
        parts.append(f"{format_duration(manner.first_token)} before the first content")
    if manner.per_event is not None:
        parts.append(f"{format_duration(manner.per_event)} before each event")
    if manner.tokens_per_second is not None:
        parts.append(f"{manner.tokens_per_second:.10g} tokens a second")
    if manner.jitter:
        parts.append(f"±{manner.jitter * 100:.10g} %")
    return parts


def line_of(rule: Rule) -> str:
    """*rule* as the operator would write it: ``r 3 after=1 upstream=openai for=5m``.

    Read again it is the same rule, but for its name, the body that was read of a file, and texts that
    hold white space, which the language cannot say.
    """
    when = rule.when
    often = "*"
    if isinstance(when, Times):
        often = str(when.count)
    elif isinstance(when, Share):
        often = _decimal(when.fraction)
    match, streaming, manner = rule.match, rule.match.streaming, rule.manner
    options = {
        "upstream": match.upstream,
        "model": match.model,
        "path": match.path,
        "stream": None if streaming is None else "yes" if streaming else "no",
        "after": str(rule.after) if rule.after else None,
        "ttl" if rule.kind in SILENT else "for": None if rule.lasts is None else duration_of(rule.lasts),
        "retry_after": None if rule.retry_after is None else _decimal(rule.retry_after),
        "max": None if rule.most is None else str(rule.most),
        "place": None if rule.side is Side.CLIENT else str(rule.side),
    }
    parts = [command_of(rule), often, *_written(_manner(manner)), *_written(options)]
    return " ".join(parts)


def command_of(rule: Rule) -> str:
    """The verb for the kind of *rule*: ``r``, ``error quota``, ``cut``, ``status=503``."""
    if rule.kind == Breakage.STATUS:
        return f"status={rule.manner.status}"
    if isinstance(rule.kind, Breakage):
        return str(rule.kind)
    return LETTERS.get(rule.kind, f"error {rule.kind}")


def _manner(manner: Manner) -> dict[str, str | None]:
    """How a breakage is done, as options."""
    return {
        "at": None if manner.at is None else _at(manner.at),
        "error": None if manner.error is None else str(manner.error),
        "for": None if manner.silence is None else duration_of(manner.silence),
        "first_token": None if manner.first_token is None else duration_of(manner.first_token),
        "per_event": None if manner.per_event is None else duration_of(manner.per_event),
        "tokens_per_second": None if manner.tokens_per_second is None else _decimal(manner.tokens_per_second),
        "jitter": _decimal(manner.jitter) if manner.jitter else None,
        "body": manner.file,
        "length": str(manner.excess) if manner.excess else None,
    }


def _at(at: At) -> str:
    if at.spot is Spot.EVENTS:
        return f"{at.number:.0f}"
    if at.spot is Spot.BYTES:
        return f"{at.number:.0f}B"
    return f"{_decimal(at.number)}%bytes" if at.spot is Spot.PERCENT else str(at.spot)


def _written(options: Mapping[str, str | None]) -> list[str]:
    return [f"{name}={value}" for name, value in options.items() if value is not None]


def _decimal(number: float) -> str:
    """*number* without an exponent, exactly."""
    return f"{Decimal(repr(number)):f}"


def duration_of(seconds: float) -> str:
    """*seconds* as the language has them, exactly."""
    text = format_duration(seconds)
    return text if parse_duration(text) == seconds else _decimal(seconds)


def symbol(kind: FaultKind | None) -> str:
    """The sign that stands before a mode; ``None`` is the sign of no error."""
    return "✅" if kind is None else TITLES[kind][0]


def retry_note(rule: Rule) -> str | None:
    """What to know when a counted error is one that clients retry by themselves."""
    if not isinstance(rule.when, Times) or rule.when.count > 3 or rule.side is Side.UPSTREAM:
        return None
    retried = rule.kind in RETRIED
    if rule.kind == Breakage.STATUS:
        retried = rule.manner.status in RETRIED_STATUSES
    if not retried:
        return None
    verb = command_of(rule)
    return (
        "Clients retry this error by themselves (OpenAI and Anthropic SDKs twice, goose three "
        f"times), so a call may still succeed. To make one call fail: {verb} 3 "
        f"(goose: {verb} 4), or {verb} * until n."
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
        return f"{title_of(mode.rule)}: {when_in_words(mode)}"
    names = [running.rule.name for running in rules]
    return f"rules: {', '.join(names)}" if names else None
