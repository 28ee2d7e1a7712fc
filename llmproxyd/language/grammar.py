"""What a verb is, and how a line is read by a table of them.

A line is a verb (one word or several, ``upstream drain``), then arguments by position and options
(``--rpm 60``, ``--rpm=60``) in any order.  ``--json`` ends any line.  Verbs whose rest is a language
of its own (faults) take it as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from llmproxyd.faults.language import Incomplete, LanguageError, shown
from llmproxyd.language.kinds import Kind
from llmproxyd.language.lexer import Word, words_of

JSON = "--json"

_FIRST = re.compile(r"\s*([A-Za-z]+(?:[_-][A-Za-z]+)*|\?)")
_EQUALS = re.compile(r"\s*=")
_JSON = re.compile(r"(.*?)(?:^|\s)--json\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Argument:
    """A word by its position.

    :param name: as it is shown, in capitals.
    :param many: it takes all that follow; ``values`` has a tuple.
    """

    name: str
    kind: Kind
    optional: bool = False
    many: bool = False

    @property
    def usage(self) -> str:
        """As it stands in a usage line."""
        text = f"{self.name}…" if self.many else self.name
        return f"[{text}]" if self.optional else text


@dataclass(frozen=True, slots=True)
class Option:
    """``--name VALUE``, or a flag.

    :param kind: of the value; ``None`` for a flag.
    :param shows: the value as it is shown, in capitals.
    :param many: it may be given several times; ``values`` has a tuple.
    :param secret: the value must not be shown or kept.
    """

    name: str
    about: str
    kind: Kind | None = None
    shows: str = ""
    many: bool = False
    required: bool = False
    secret: bool = False

    @property
    def key(self) -> str:
        """Its name among the values."""
        return self.name[2:].replace("-", "_")

    @property
    def usage(self) -> str:
        """As it stands in a usage line."""
        text = self.name if self.kind is None else f"{self.name} {self.shows}"
        text += " …" if self.many else ""
        return text if self.required else f"[{text}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One thing to do.

    :param words: its name.
    :param rest: reads all that follows as a language of its own; ``shows`` is its usage.
    :param single: exactly one of the options must be given.
    :param default: it is meant where the words before its last one stand alone.
    :param changes: it changes something, so it is on record.
    :param hidden: it is another spelling, which help does not list.
    """

    words: tuple[str, ...]
    about: str
    section: str
    arguments: Sequence[Argument] = ()
    options: Sequence[Option] = ()
    examples: Sequence[str] = ()
    rest: Callable[[str], Mapping[str, Any]] | None = None
    shows: str = ""
    single: bool = False
    default: bool = False
    changes: bool = False
    hidden: bool = False

    @property
    def name(self) -> str:
        """Its words."""
        return " ".join(self.words)

    @property
    def usage(self) -> str:
        """How it is written."""
        # "status=503" is one word.
        glue = "" if self.name.endswith("=") else " "
        parts = [f"{self.name}{glue}{self.shows}" if self.shows else self.name]
        parts += [one.usage for one in self.arguments]
        if self.single:
            parts.append(" | ".join(one.usage[1:-1] for one in self.options))
        else:
            parts += [one.usage for one in self.options]
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Call:
    """A line that was understood.

    :param values: arguments by their name in lower case, options by theirs; only what was given.
    :param json: ``--json`` was asked for.
    """

    verb: Verb
    values: Mapping[str, Any]
    json: bool = False


class Table:
    """Verbs, and reading lines by them."""

    def __init__(self, verbs: Sequence[Verb]) -> None:
        self.verbs = verbs
        self._by_words = {one.words: one for one in verbs}
        self._defaults = {one.words[:-1]: one for one in verbs if one.default}

    @property
    def firsts(self) -> list[str]:
        """The first words of all verbs, as help lists them."""
        return list(dict.fromkeys(one.words[0] for one in self.verbs if not one.hidden))

    def verb(self, words: tuple[str, ...]) -> Verb | None:
        """The verb called so."""
        return self._by_words.get(words) or self._defaults.get(words)

    def below(self, words: tuple[str, ...]) -> list[str]:
        """What may follow *words* in the name of a verb."""
        depth = len(words)
        found = (
            one.words[depth] for one in self.verbs if len(one.words) > depth and one.words[:depth] == words
        )
        return list(dict.fromkeys(found))

    def parse(self, line: str) -> Call:
        """What *line* says.

        :raises Incomplete: something is missing at its end.
        :raises LanguageError: it is no command.
        """
        json = _JSON.fullmatch(line)
        text = line if json is None else json.group(1)
        verb, at = self.named(text)
        if verb.rest is not None:
            return Call(verb, verb.rest(text[at:]), json is not None)
        state = State(verb)
        words = words_of(text, at)
        try:
            for word in words:
                state.take(word)
        except LanguageError as error:
            below = self.below(verb.words)
            if near := get_close_matches(words[0].text.lower(), below, 1):
                raise LanguageError(f'{error}; did you mean "{verb.name} {near[0]}"?') from None
            raise
        return Call(verb, state.finished(), json is not None)

    def named(self, text: str) -> tuple[Verb, int]:
        """The verb at the beginning of *text*, and where what it takes begins.

        :raises LanguageError: there is none.
        """
        first = _FIRST.match(text)
        if first is None:
            given = text.strip()
            if not given:
                raise Incomplete(f"nothing was typed; accepted: {', '.join(self.firsts)}")
            raise LanguageError(f'"{shown(given)}" is no command; accepted: {", ".join(self.firsts)}')
        words: tuple[str, ...] = (first.group(1).lower().replace("-", "_"),)
        at = first.end()
        if (equals := _EQUALS.match(text, at)) and (f"{words[0]}=",) in self._by_words:
            return self._by_words[(f"{words[0]}=",)], equals.end()
        glued = at < len(text) and not text[at].isspace()
        one = self._by_words.get(words)
        if one is not None and one.rest is not None:
            # "c30%" and "c 30%" are the same.
            if not self.below(words):
                return one, at
        elif (one is None and not self.below(words)) or glued:
            raise self._unknown(text[first.start(1) :].split()[0])
        return self._longest(text, words, at)

    def _longest(self, text: str, words: tuple[str, ...], at: int) -> tuple[Verb, int]:
        """The verb of the most words that *text* begins with."""
        while below := self.below(words):
            following = re.compile(r"\s+(\S+)").match(text, at)
            if following is None or following.group(1).lower() not in below:
                break
            words, at = (*words, following.group(1).lower()), following.end()
        verb = self.verb(words)
        if verb is None or (verb.default and verb.words != words and text[at:].strip()):
            raise self._nothing_below(words, text[at:].split())
        return verb, at

    def _unknown(self, word: str) -> LanguageError:
        near = get_close_matches(word.lower(), self.firsts, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        return LanguageError(f'"{shown(word)}" is no command{hint}; accepted: {", ".join(self.firsts)}')

    def _nothing_below(self, words: tuple[str, ...], following: Sequence[str]) -> LanguageError:
        group, below = " ".join(words), self.below(words)
        accepted = ", ".join(
            one.usage if len(one.options) < 3 else f"{one.name} …"
            for one in self.verbs
            if one.words[: len(words)] == words
        )
        if not following:
            return Incomplete(f"{group} needs another word; accepted: {accepted}")
        near = get_close_matches(following[0].lower(), below, 1)
        hint = f'; did you mean "{group} {near[0]}"?' if near else ""
        return LanguageError(
            f'"{shown(following[0])}" is nothing to do with {group}{hint}; accepted: {accepted}'
        )


@dataclass(slots=True)
class State:
    """How far the words after a verb have been read.

    :ivar position: of the argument that comes next.
    :ivar waiting: the option whose value comes next.
    """

    verb: Verb
    values: dict[str, Any] = field(default_factory=dict)
    position: int = 0
    waiting: Option | None = None

    def take(self, word: Word) -> None:
        """Read one word.

        :raises LanguageError: it cannot stand here.
        """
        if self.waiting is not None:
            option, self.waiting = self.waiting, None
            self._set(option, word.text)
        elif word.text.startswith("--") and not word.quoted:
            self._option(word.text)
        else:
            self._argument(word.text)

    def finished(self) -> dict[str, Any]:
        """What was read.

        :raises Incomplete: something is missing.
        """
        if self.waiting is not None:
            raise Incomplete(f"{self.waiting.name} needs a value: {_accepted(self.waiting)}")
        for one in self.verb.arguments[self.position :]:
            if not one.optional and one.name.lower() not in self.values:
                raise Incomplete(
                    f"{self.verb.name} needs {one.name}: {one.kind.accepted}; accepted: {self.verb.usage}"
                )
        for option in self.verb.options:
            if option.required and option.key not in self.values:
                raise Incomplete(f"{self.verb.name} needs {option.name}; accepted: {self.verb.usage}")
        if self.verb.single and not self.values:
            raise Incomplete(f"{self.verb.name} needs one option; accepted: {self.verb.usage}")
        return self.values

    def open_arguments(self) -> list[Argument]:
        """The arguments that the next word may be."""
        found = []
        for one in self.verb.arguments[self.position :]:
            found.append(one)
            if not one.optional:
                break
        return found

    def open_options(self) -> list[Option]:
        """The options that may still be given."""
        if self.verb.single and self.values:
            return []
        return [one for one in self.verb.options if one.many or one.key not in self.values]

    def _option(self, text: str) -> None:
        name, equals, value = text.partition("=")
        option = next((one for one in self.verb.options if one.name == name.lower()), None)
        if option is None:
            raise self._no_option(name)
        if option not in self.open_options():
            if self.verb.single and option.key not in self.values:
                raise LanguageError(f"{self.verb.name} takes one option alone; accepted: {self.verb.usage}")
            raise LanguageError(f"{option.name} is given twice")
        if option.kind is None:
            if equals:
                raise LanguageError(f'{option.name} takes no value, found "{shown(value)}"')
            self.values[option.key] = True
        elif equals:
            self._set(option, value)
        else:
            self.waiting = option

    def _no_option(self, name: str) -> LanguageError:
        if name == JSON:
            return LanguageError(f"{JSON} stands at the end of a line, without a value")
        known = [one.name for one in self.verb.options]
        near = get_close_matches(name.lower(), known, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        accepted = ", ".join([*known, JSON])
        return LanguageError(f'"{shown(name)}" is no option of {self.verb.name}{hint} (accepted: {accepted})')

    def _set(self, option: Option, text: str) -> None:
        assert option.kind is not None
        try:
            value = option.kind.read(text)
        except LanguageError as error:
            raise type(error)(f"{option.name}: {error}") from None
        if option.many:
            value = (*self.values.get(option.key, ()), value)
        self.values[option.key] = value

    def _argument(self, text: str) -> None:
        open_ones = self.open_arguments()
        if not open_ones:
            raise LanguageError(self._too_much(text))
        for number, one in enumerate(open_ones, self.position):
            try:
                value = one.kind.read(text)
            except LanguageError as error:
                if one is open_ones[-1]:
                    raise type(error)(f"{one.name}: {error}") from None
                continue
            key = one.name.lower()
            self.values[key] = (*self.values.get(key, ()), value) if one.many else value
            self.position = number if one.many else number + 1
            return

    def _too_much(self, text: str) -> str:
        verb = self.verb
        if not verb.arguments and not verb.options:
            return f'{verb.name} takes nothing after it, found "{shown(text)}"'
        return f'"{shown(text)}" is too much; accepted: {verb.usage}'


def _accepted(option: Option) -> str:
    return "" if option.kind is None else option.kind.accepted
