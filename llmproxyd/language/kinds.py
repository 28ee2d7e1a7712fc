"""Kinds of words that a verb takes: how each is read, described and completed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

from llmproxyd.faults.language import LanguageError, shown
from llmproxyd.language.filters import ACCEPTED, FIELDS, NUMBERS, TEXTS, Filter, parse_filter

Names = Callable[[str], Iterable[str]]
"""What there is of something (``upstream``, ``rule``, ``breaker``, ``project``, ``namespace``)."""

MOST = 4096
"""Characters of one word."""

_WHOLE = re.compile(r"[0-9]{1,15}")


class Kind(Protocol):
    """A kind of word."""

    @property
    def accepted(self) -> str:
        """What is accepted, in words."""
        ...

    def read(self, text: str) -> object:
        """What *text* means.

        :raises LanguageError: nothing.
        """
        ...

    def candidates(self, names: Names) -> Iterable[str]:
        """Words that it may be, as far as they are known."""
        ...


@dataclass(frozen=True, slots=True)
class Free:
    """Any word; whoever takes it looks closer.

    :param of: what it is a name of, where there are names.
    """

    accepted: str
    of: str = ""

    def read(self, text: str) -> str:
        """The word itself."""
        if not text or len(text) > MOST or not text.isprintable():
            raise _refused(text, self.accepted)
        return text

    def candidates(self, names: Names) -> Iterable[str]:
        """The names that there are."""
        return names(self.of) if self.of else ()


@dataclass(frozen=True, slots=True)
class Keyed:
    """``NAME=VALUE``, where the value must not be shown."""

    accepted: str
    of: str

    def read(self, text: str) -> tuple[str, str]:
        """The name and the value."""
        name, equals, value = text.partition("=")
        if not equals or not name or len(text) > 2 * MOST or not text.isprintable():
            raise LanguageError(f"accepted: {self.accepted}")
        return name, value

    def candidates(self, names: Names) -> Iterable[str]:
        """The names, to be followed by a value."""
        return [f"{name}=" for name in names(self.of)]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several words, in any case."""

    of: Sequence[str]

    @property
    def accepted(self) -> str:
        """All of them."""
        return ", ".join(self.of)

    def read(self, text: str) -> str:
        """The word in lower case."""
        if text.lower() not in self.of:
            near = get_close_matches(text.lower(), self.of, 1)
            raise _refused(text, self.accepted, near[0] if near else None)
        return text.lower()

    def candidates(self, names: Names) -> Iterable[str]:
        """All of them."""
        return self.of


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number.

    :param none: a word that stands for no limit, where there is one.
    """

    least: int
    most: int
    none: str | None = None

    @property
    def accepted(self) -> str:
        """Its bounds."""
        other = "" if self.none is None else f', or "{self.none}"'
        return f"a whole number from {self.least} to {self.most}{other}"

    def read(self, text: str) -> int | None:
        """The number, ``None`` for the word that says so."""
        if self.none is not None and text.lower() == self.none:
            return None
        if not _WHOLE.fullmatch(text) or not self.least <= int(text) <= self.most:
            raise _refused(text, self.accepted)
        return int(text)

    def candidates(self, names: Names) -> Iterable[str]:
        """The word alone."""
        return () if self.none is None else (self.none,)


@dataclass(frozen=True, slots=True)
class Filtering:
    """A filter of requests."""

    accepted: str = ACCEPTED

    def read(self, text: str) -> Filter:
        """The filter."""
        return parse_filter(text)

    def candidates(self, names: Names) -> Iterable[str]:
        """The fields, and upstreams by name."""
        yield from (f"upstream={name}" for name in names("upstream"))
        yield from (f"{name}{'=' if name in TEXTS else '>='}" for name in FIELDS)
        yield from (f"{name}=" for name in NUMBERS)


def _refused(text: str, accepted: str, near: str | None = None) -> LanguageError:
    hint = f'; did you mean "{near}"?' if near else ""
    return LanguageError(f'found "{shown(text)}"{hint}; accepted: {accepted}')
