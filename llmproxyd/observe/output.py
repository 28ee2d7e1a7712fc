"""The one place where text leaves for the terminal, a pipe or a log file.

Log lines, the answers to commands and the prompt all go through here, so that none of them
garbles another: an attached prompt is taken off the screen before text and put back after.
"""

from __future__ import annotations

import contextlib
from typing import Protocol, TextIO

_LOSSES = (OSError, ValueError, AttributeError)
"""How a stream says that it cannot take text; the last is a closed log file of Twisted's."""


class Prompt(Protocol):
    """A line of input that is being edited at the bottom of the screen."""

    def hidden(self) -> str:
        """What to write to take it off."""
        ...

    def shown(self) -> str:
        """What to write to put it back, typed text and cursor included."""
        ...


class Output:
    """Text to *stream*.

    :param terminal: whether people read it as it comes (symbols, arrival lines).
    :param journald: whether systemd's journal reads it; lines of the log then begin with their level.
    :ivar lost: how many writes failed: a full disk costs lines, never a request.
    """

    def __init__(self, stream: TextIO, *, terminal: bool = False, journald: bool = False) -> None:
        self._stream = stream
        self._prompt: Prompt | None = None
        self.terminal = terminal
        self.journald = journald
        self.lost = 0
        encoding = getattr(stream, "encoding", None) or "utf-8"
        self._encoding = encoding
        self.symbols = terminal and "utf" in encoding.lower()

    def attach(self, prompt: Prompt | None) -> None:
        """Keep *prompt* below all text; ``None`` takes the present one off for good."""
        if self._prompt is not None:
            self.raw(self._prompt.hidden())
        self._prompt = prompt
        if prompt is not None:
            self.raw(prompt.shown())

    def write(self, text: str) -> None:
        """Write whole lines; *text* ends with a line feed."""
        if self._prompt is not None:
            text = self._prompt.hidden() + text + self._prompt.shown()
        self.raw(text)

    def raw(self, text: str) -> None:
        """Write *text* as it is, at the cursor."""
        try:
            self._stream.write(text.encode(self._encoding, "replace").decode(self._encoding))
            self._stream.flush()
        except _LOSSES:
            self.lost += 1

    def close(self) -> None:
        """Write what is buffered, if it still can be."""
        with contextlib.suppress(*_LOSSES):
            self._stream.flush()
