"""What is said of a text that is no command."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class LanguageError(ValueError):
    """The text is no command; the message says what was wrong and what is accepted."""


class Incomplete(LanguageError):
    """The text may be the beginning of a command: something is missing at its end."""


def shown(text: str) -> str:
    """*text* as shown in an answer: bounded, without control characters."""
    short = text if len(text) <= 40 else text[:40] + "…"
    return "".join(char if char.isprintable() else "�" for char in short)


def quoted(text: str) -> str:
    """The same in quotes."""
    return f'"{shown(text)}"'


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """``; did you mean "cut"?``, empty where nothing known is near."""
    near = get_close_matches(text, list(known), 1)
    return f'; did you mean "{near[0]}"?' if near else ""
