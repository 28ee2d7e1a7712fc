"""How ``llmproxyctl`` comes by a secret: a file, standard input, a prompt, or the command line itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from getpass import getpass
from pathlib import Path

LONGEST = 64 * 1024
"""Bytes of a file with a secret."""


class SecretError(Exception):
    """A secret cannot be had; the message says why and holds nothing of it."""


class SecretSource:
    """Reads secrets; standard input gives one.

    :param warn: told what is risky.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._taken = False

    def read(self, text: str | None, what: str, option: str) -> str:
        """The secret that *text* means: ``@FILE``, ``-``, the secret itself, or ``None`` for a prompt.

        :param what: it is for, in the prompt.
        :param option: how the same is written with a file, for the warning.
        :raises SecretError: it cannot be read.
        """
        if text is None or text == "-":
            return self._typed(what, prompted=text is None)
        if text.startswith("@"):
            return from_file(Path(text[1:]))
        if text:
            self._warn(
                f"{what}: on the command line other users can see it (ps), and the shell keeps it; "
                f"better {option}@FILE, or {option}- for standard input"
            )
        return text

    def _typed(self, what: str, *, prompted: bool) -> str:
        if sys.stdin.isatty():
            return getpass(f"{what}: ")
        if prompted:
            raise SecretError(f"{what}: there is no terminal to ask at; use @FILE, or - for standard input")
        if self._taken:
            raise SecretError(f"{what}: standard input was read already; use @FILE for the others")
        self._taken = True
        line = sys.stdin.readline(LONGEST).rstrip("\r\n")
        if not line:
            raise SecretError(f"{what}: standard input holds nothing")
        return line


def from_file(path: Path) -> str:
    """The first line of *path*.

    :raises SecretError: it cannot be read.
    """
    try:
        with path.expanduser().open("rb") as stream:
            data = stream.read(LONGEST)
    except OSError as error:
        raise SecretError(f"{path}: {error.strerror}") from None
    lines = data.decode("utf-8", "replace").splitlines()
    if not lines or not lines[0].strip():
        raise SecretError(f"{path}: its first line is empty")
    return lines[0].strip()
