"""Limits in the operator's language: text to limit and back, pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmproxyd.faults.limits import Each, Limit, Working
from llmproxyd.faults.mistakes import Incomplete, LanguageError, shown
from llmproxyd.faults.options import options_from, pairs
from llmproxyd.faults.words import duration_of, left_in_words, match_in_words

LIMIT_OPTIONS = ("rpm", "tpm", "upstream", "model", "path", "stream", "key", "for", "name")
LIMIT_HELP = 'a limit such as "limit rpm=60 upstream=openai", or limit list, limit rm NAME, limit clear'

MOST = 10**9
"""Units a minute."""

NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_PER_MINUTE = re.compile(r"[0-9]{1,10}")


def parse_limit(text: str) -> tuple[str | None, Limit]:
    """The limit that *text* says: ``rpm=60 tpm=30000 upstream=openai key=all for=10m name=NAME``.

    :returns: the name, if one was given, and the limit, which is called ``limit`` until it has one.
    :raises LanguageError: it is none.
    """
    if text.strip() and "=" not in text:
        raise LanguageError(f'"{shown(text.strip())}" is no limit; accepted: {LIMIT_HELP}')
    given = pairs(text, LIMIT_OPTIONS)
    name = given.get("name")
    if name is not None and not NAME.fullmatch(name):
        raise LanguageError(
            f"name={shown(name)}: accepted are letters, digits, ., _ and -, 64 at most, a letter first"
        )
    key = given.get("key", Each.EACH).lower()
    if key not in tuple(Each):
        raise LanguageError(f"key={shown(key)}: accepted are key=each and key=all")
    options = options_from(given, "")
    limit = Limit(
        name="limit",
        rpm=_per_minute(given, "rpm"),
        tpm=_per_minute(given, "tpm"),
        match=options.match,
        key=Each(key),
        lasts=options.lasts,
    )
    if limit.rpm is None and limit.tpm is None:
        raise Incomplete(f"limit needs rpm= or tpm=; accepted: {LIMIT_HELP}")
    return name, limit


def limit_line(limit: Limit) -> str:
    """*limit* as the operator would write it, but for its name."""
    match, streaming = limit.match, limit.match.streaming
    options = {
        "rpm": limit.rpm,
        "tpm": limit.tpm,
        "upstream": match.upstream,
        "model": match.model,
        "path": match.path,
        "stream": None if streaming is None else "yes" if streaming else "no",
        "key": None if limit.key is Each.EACH else limit.key,
        "for": None if limit.lasts is None else duration_of(limit.lasts),
    }
    return " ".join(["limit", *(f"{name}={value}" for name, value in options.items() if value is not None)])


def describe_limit(one: Working, now: float) -> str:
    """``60 requests a minute for each key (only upstream openai, for 4m59s more)``."""
    limit = one.limit
    counts = [(limit.rpm, "request"), (limit.tpm, "token")]
    told = [f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts if count is not None]
    parts = []
    if narrowed := match_in_words(limit.match):
        parts.append("only " + ", ".join(narrowed))
    if one.ends is not None:
        parts.append(left_in_words(one.ends - now))
    whose = "for each key" if limit.key is Each.EACH else "for all together"
    return f"{' and '.join(told)} a minute {whose}" + (f" ({', '.join(parts)})" if parts else "")


def _per_minute(given: Mapping[str, str], name: str) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not _PER_MINUTE.fullmatch(text) or not 1 <= int(text) <= MOST:
        raise LanguageError(f"{name}={shown(text)}: a whole number from 1 to {MOST} is accepted")
    return int(text)
