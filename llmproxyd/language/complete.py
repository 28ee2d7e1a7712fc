"""What the last word of a line may be."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmproxyd.faults.kinds import SILENT, kind_of, options_of
from llmproxyd.faults.language import KINDS, OPTIONS, VERBS, Incomplete, LanguageError
from llmproxyd.faults.limitlines import LIMIT_OPTIONS
from llmproxyd.faults.limits import Each
from llmproxyd.faults.rules import Side
from llmproxyd.faults.scenariotext import OK
from llmproxyd.language.grammar import JSON, State, Table
from llmproxyd.language.kinds import Kind, Names
from llmproxyd.language.lexer import last_word, words_of, written
from llmproxyd.language.scenarios import OPTIONS as OPTIONS_OF_SCENARIO

MOST = 200
"""Candidates that are told."""

_OPTION = re.compile(r"(--[a-z-]+=)(.*)", re.DOTALL)
_QUOTES = re.compile("[\"']")
_GIVEN = re.compile(r"(?<!\S)([A-Za-z][A-Za-z_-]*)=")
_KIND_FIRST = re.compile("[^A-Za-z_-]")


def complete(table: Table, text: str, names: Names) -> list[str]:
    """The words that the last word of *text* may be, each whole; sorted as the table has them.

    With any of them in its place *text* is a command, or the beginning of one.
    """
    start = last_word(text)
    before, partial = text[:start], text[start:]
    found: list[str] = []
    for one in dict.fromkeys(_candidates(table, before, partial, names)):
        if _begins(one, partial) and one != partial and plausible(table, before + one):
            found.append(one)
            if len(found) == MOST:
                break
    return found


def _begins(word: str, partial: str) -> bool:
    """Whether *word* goes on from *partial*, in any case and with or without quotes."""
    return _QUOTES.sub("", word).lower().startswith(_QUOTES.sub("", partial).lower())


def plausible(table: Table, text: str) -> bool:
    """Whether *text* is a command, or the beginning of one."""
    try:
        table.parse(text)
    except Incomplete:
        return True
    except LanguageError:
        return False
    return True


def _candidates(table: Table, before: str, partial: str, names: Names) -> Iterable[str]:
    if not before.strip():
        yield from table.firsts
        return
    words = tuple(word.lower() for word in before.split())
    if table.below(words):
        yield from table.below(words)
    try:
        verb, at = table.named(before)
    except LanguageError:
        return
    if verb.words == ("scenario", "run"):
        yield from _steps(before[at:], names)
    elif verb.rest is not None:
        yield from _fault(verb.words, before[at:], names)
    else:
        yield from _following(State(verb), before, at, partial, names)
    if _whole(table, before):
        yield JSON


def _whole(table: Table, text: str) -> bool:
    try:
        return not table.parse(text).json
    except LanguageError:
        return False


def _following(state: State, before: str, at: int, partial: str, names: Names) -> Iterable[str]:
    try:
        for word in words_of(before, at):
            state.take(word)
    except LanguageError:
        return
    if state.waiting is not None:
        assert state.waiting.kind is not None
        yield from _words(state.waiting.kind, names)
        return
    if option := _OPTION.fullmatch(partial):
        for one in state.open_options():
            if one.kind is not None and f"{one.name}=" == option.group(1):
                yield from (option.group(1) + word for word in _words(one.kind, names))
        return
    for argument in state.open_arguments():
        yield from _words(argument.kind, names)
    for one in state.open_options():
        yield one.name


def _words(kind: Kind, names: Names) -> Iterable[str]:
    for one in kind.candidates(names):
        word = written(one)
        if word is not None:
            yield word


def _fault(verb: tuple[str, ...], before: str, names: Names) -> Iterable[str]:
    """Words of the language of faults after *before*, which follows *verb*."""
    words = before.split()
    if verb == ("n",):
        return
    if verb == ("fault", "add") and not words:
        yield from ("c", "r", "u", "error", *VERBS, "status=")
    if (verb == ("error",) and not words) or words == ["error"]:
        yield from (*KINDS, "unknown")
        return
    given = {name.lower().replace("-", "_") for name in _GIVEN.findall(before)}
    if verb == ("limit",):
        for name in LIMIT_OPTIONS:
            if name not in given:
                yield from _option(name, names)
        return
    if not given - {"status"}:
        yield "*"
    for name in (*_options(verb, words), *(["name"] if verb == ("fault", "add") else [])):
        if name not in given:
            yield from _option(name, names)


def _steps(before: str, names: Names) -> Iterable[str]:
    """Words of a scenario after *before*."""
    last = before.rpartition(",")[2]
    if not last.strip():
        yield OK
    # What is said of the whole scenario, or cannot be said of a step.
    said: tuple[str, ...] = ("name=", "place=", "after=", "max=", "ttl=")
    if not any(word in SILENT for word in last.split()[:1]):
        said += ("for=",)
    yield from (word for word in _fault(("fault", "add"), last, names) if not word.startswith(said))
    given = {name.lower() for name in _GIVEN.findall(before)}
    yield from (word for word in OPTIONS_OF_SCENARIO if word.partition("=")[0] not in given)


def _options(verb: tuple[str, ...], words: list[str]) -> tuple[str, ...]:
    """The options of the fault that *verb* and *words* are the beginning of."""
    told = (*(word for word in verb if word not in ("fault", "add", "error")), *words, "")[0]
    told = words[1] if told == "error" and len(words) > 1 else told
    try:
        kind = kind_of(_KIND_FIRST.split(told, 1)[0])
    except LanguageError:
        return OPTIONS
    options = options_of(kind)
    if kind in SILENT:
        # What it is about comes first.
        return ("for", *(one for one in options if one != "for"))
    return tuple(one for one in options if one != "status")


def _option(name: str, names: Names) -> Iterable[str]:
    if name == "stream":
        yield from ("stream=yes", "stream=no")
    elif name == "upstream":
        yield from (f"upstream={one}" for one in names("upstream"))
    elif name == "key":
        yield from (f"key={one}" for one in Each)
    elif name == "place":
        yield from (f"place={one}" for one in Side)
    elif name == "at":
        yield from ("at=start", "at=tool", "at=end")
    elif name == "error":
        yield from (f"error={one}" for one in (*KINDS, "unknown"))
    yield f"{name}="
