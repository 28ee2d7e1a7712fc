"""Completion in shells: what the last word of a command line may be, and the scripts that ask for it.

The scripts call ``llmproxyctl __complete -- WORD…`` with all words after the program's name, the one
under the cursor last.  It prints one candidate a line, or :data:`FILES` where the shell knows better.
"""

from __future__ import annotations

import argparse
import os
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmproxyd.admin.client import Client, Failed, Place, Unreachable, checked_url
from llmproxyd.admin.lines import STANDING, line_of
from llmproxyd.admin.secrets import SecretError, from_file
from llmproxyd.admin.shells import SCRIPTS
from llmproxyd.admin.socket import candidates
from llmproxyd.admin.starters import PROFILES
from llmproxyd.admin.verbs import DONE
from llmproxyd.config.folders import state_folder
from llmproxyd.language.complete import complete
from llmproxyd.language.table import TABLE

ASKS = "__complete"
FILES = ":files"
PATIENCE = 1.0
"""Seconds that the daemon has to tell names."""
MOST = 200
"""Names of a kind that are looked at."""
TOKEN = "LLMPROXYD_ADMIN_TOKEN"

_NAMES = {
    "UPSTREAM": "upstream",
    "UPSTREAM[=KEY|=@FILE|=-]": "upstream",
    "PROJECT": "project",
    "TOKEN": "token",
    "BREAKER": "breaker",
}
"""What is named, by the placeholder of an argument."""
_FILES = ("FILE", "PATH", "FOLDER")
_OTHERS = {"namespace": ("llmproxyd", "twisted")}

FAULT = ("fault",)
COMMANDS = ("n", "c", "r", "u", "error")

Names = Callable[[str], Iterable[str]]


def completion(given: Namespace) -> int:
    """Print the script for a shell."""
    print(SCRIPTS[given.shell], end="")
    return DONE


def answer(parser: argparse.ArgumentParser, words: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """The candidates for the last of *words*; nothing rather than an error."""
    try:
        return list(dict.fromkeys(_found(parser, list(words) or [""], environ)))
    except (Unreachable, Failed, SecretError, OSError, ValueError, KeyError, TypeError):
        return []


def _found(parser: argparse.ArgumentParser, words: list[str], environ: Mapping[str, str]) -> Iterator[str]:
    typed = _Typed(parser)
    for word in words[:-1]:
        typed.take(word)
    names = _Asked(typed.options, environ)
    last = words[-1]
    for one in typed.candidates(last, names):
        if one == FILES or (one.startswith(last) and one.isprintable()):
            yield one


class _Typed:
    """A command line as far as it stands.

    :ivar options: values by the first long name of their options.
    """

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._given: list[str] = []
        self._positional = 0
        self._waiting: argparse.Action | None = None
        self._plain = False
        self.options: dict[str, str] = {}

    def take(self, word: str) -> None:
        """The next word."""
        if self._waiting is not None:
            self.options[self._waiting.option_strings[-1]] = word
            self._waiting = None
        elif word == "--":
            self._plain = True
        elif word.startswith("-") and word != "-" and not self._plain:
            name, equals, value = word.partition("=")
            action = self._parser._option_string_actions.get(name)
            if action is not None and action.nargs != 0:
                if equals:
                    self.options[action.option_strings[-1]] = value
                else:
                    self._waiting = action
        elif (below := self._below()) is not None:
            found: Mapping[str, argparse.ArgumentParser] = below.choices
            if word in found:
                self._parser, self._positional, self._given = found[word], 0, []
        else:
            self._given.append(word)
            self._positional += 1

    def candidates(self, last: str, names: Names) -> Iterator[str]:
        """What *last* may be, whatever it begins with."""
        if self._waiting is not None:
            yield from _values(self._waiting, names)
            return
        if last.startswith("-") and not self._plain:
            option, equals, _ = last.partition("=")
            action = self._parser._option_string_actions.get(option)
            if equals and action is not None:
                for value in _values(action, names):
                    yield value if value == FILES else f"{option}={value}"
                return
            yield from self._options()
            return
        if (below := self._below()) is not None:
            assert below.choices is not None
            yield from below.choices
            return
        lead = self._parser.get_default("words")
        if lead is not None:
            yield from self._line(lead, last, names)
            return
        positionals = [one for one in self._parser._actions if not one.option_strings]
        if positionals:
            at = min(self._positional, len(positionals) - 1)
            if self._positional < len(positionals) or positionals[at].nargs in ("*", "..."):
                yield from _values(positionals[at], names)

    def _below(self) -> argparse._SubParsersAction[Any] | None:
        for action in self._parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                return action
        return None

    def _options(self) -> Iterator[str]:
        for action in self._parser._actions:
            if action.option_strings and action.help != argparse.SUPPRESS:
                yield from (one for one in action.option_strings if one.startswith("--"))

    def _line(self, lead: Sequence[str], last: str, names: Names) -> Iterator[str]:
        """What the operator's language has for *last*, after *lead* and what is given."""
        words = [*lead, *self._given]
        if lead == FAULT and not self._given:
            yield from COMMANDS
        elif lead == FAULT and self._given[0] not in STANDING:
            words = self._given  # "fault r 3" is "r 3"
        before = line_of(words) + " " if words else ""
        yield from complete(TABLE, before + last, names)


def _values(action: argparse.Action, names: Names) -> Iterator[str]:
    if action.choices is not None:
        yield from (str(one) for one in action.choices)
        return
    metavar = str(action.metavar or action.dest.upper())
    if metavar in _FILES or metavar.split("|")[0] in _FILES:
        yield FILES
    elif metavar == "PROFILE":
        yield from PROFILES
    elif metavar in _NAMES:
        yield from names(_NAMES[metavar])


class _Asked:
    """Asks the daemon for names, quickly.

    :param options: of the command line: where the daemon is.
    """

    def __init__(self, options: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self._options = options
        self._environ = environ

    def __call__(self, kind: str) -> Iterable[str]:
        """The names of *kind*; none where they cannot be had."""
        if kind in _OTHERS:
            return _OTHERS[kind]
        with suppress(Unreachable, Failed, SecretError, OSError, ValueError, KeyError, TypeError):
            return list(self._ask(Client(self._place(), PATIENCE), kind))
        return ()

    def _place(self) -> Place:
        token_file = self._options.get("--token-file")
        token = from_file(Path(token_file)) if token_file else self._environ.get(TOKEN) or None
        if url := self._options.get("--url"):
            return Place(url=checked_url(url), token=token)
        if given := self._options.get("--socket"):
            return Place(sockets=[Path(os.path.expanduser(given))], token=token)
        return Place(sockets=candidates(self._environ, state_folder(self._environ)), token=token)

    def _ask(self, client: Client, kind: str) -> Iterator[str]:
        if kind == "upstream":
            answer = client.call("POST", "faults", body={"command": "upstream list"})
            yield from (one["name"] for one in answer["data"]["upstreams"])
        elif kind == "breaker":
            yield from (one["name"] for one in client.call("GET", "breakers")["breakers"])
        elif kind == "rule":
            yield from (one["name"] for one in client.call("GET", "faults")["rules"])
        elif kind == "project":
            found = client.call("GET", "projects", query={"limit": MOST})["projects"]
            yield from (one["name"] for one in found)
        elif kind == "token":
            for one in client.call("GET", "tokens", query={"limit": MOST})["tokens"]:
                yield one["name"] or one["id"]
