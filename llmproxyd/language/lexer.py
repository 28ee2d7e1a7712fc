"""A line as words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmproxyd.faults.language import Incomplete, shown

_PIECE = re.compile(r"\"([^\"]*)\"|'([^']*)'|([^\s\"']+)")
_SPACE = re.compile(r"\s+")
_PLAIN = re.compile(r"[^\s\"'-][^\s\"']*")


@dataclass(frozen=True, slots=True)
class Word:
    """One word.

    :param text: without quotes.
    :param at: where it starts in the line, in characters.
    :param quoted: it starts with a quote, so that it is no option.
    """

    text: str
    at: int
    quoted: bool = False


def words_of(line: str, start: int = 0) -> list[Word]:
    """The words of *line* from *start* on; what stands in quotes may hold white space.

    :raises Incomplete: a quote is not closed.
    """
    found: list[Word] = []
    at, end = start, len(line)
    while at < end:
        if space := _SPACE.match(line, at):
            at = space.end()
            continue
        first, pieces = at, []
        while at < end and not line[at].isspace():
            piece = _PIECE.match(line, at)
            if piece is None:
                raise Incomplete(f'the quote at "{shown(line[at:])}" is not closed')
            pieces.append(piece.group(piece.lastindex or 0))
            at = piece.end()
        found.append(Word("".join(pieces), first, line[first] in "\"'"))
    return found


def last_word(line: str) -> int:
    """Where the word at the end of *line* starts; its end where white space ends it."""
    start, quote = 0, ""
    for at, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char.isspace():
            start = at + 1
    return start


def written(text: str) -> str | None:
    """*text* as it is written as one word; ``None`` where it cannot be."""
    if not text.isprintable():
        return None
    if _PLAIN.fullmatch(text):
        return text
    for quote in "\"'":
        if quote not in text:
            return f"{quote}{text}{quote}"
    return None
