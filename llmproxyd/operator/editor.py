"""A line that is edited at the bottom of a terminal.

Imported when there is a terminal: Twisted's terminal protocols install a reactor on import.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any
from unicodedata import combining, east_asian_width

from twisted.conch.insults.insults import ServerProtocol, TerminalProtocol

from llmproxyd.observe.output import Output
from llmproxyd.operator.line import Line

COLUMNS = 80
"""Of a terminal that does not tell."""

MOST_COLUMNS = 2000
"""More is no terminal."""

_LONGEST_SEQUENCE = 32
"""Bytes of what a key sends; more is none."""

_MOST_CHOICES = 100
"""Completions that are shown at once."""


class Terminal(ServerProtocol):
    """Bytes of a terminal as keys, whatever they are.

    :param keys: takes the keys.
    """

    def __init__(self, keys: TerminalProtocol) -> None:
        super().__init__(lambda: keys)
        self.usual = keys

    def dataReceived(self, data: bytes) -> None:
        """Bytes that were typed."""
        super().dataReceived(data)
        if self.state == b"bracket-escaped" and len(self.escBuf) > _LONGEST_SEQUENCE:
            self.state, self.escBuf = b"data", []
        over = getattr(self.terminalProtocol, "typed", None)
        if over is not None:
            over()

    def hand_over(self, keys: TerminalProtocol) -> None:
        """Have *keys* take them from now on."""
        self.terminalProtocol = keys
        keys.makeConnection(self)

    def take_back(self) -> None:
        """Have the usual taker take them again."""
        self.terminalProtocol = self.usual


class Editor(TerminalProtocol):
    """One line at the bottom of a terminal, with history and completion.

    What is seen is drawn anew after each piece of input, because the line may take several rows
    and other text may push it down.

    :param prompt: what stands before the line, ``None`` while there is nothing to type.
    :param width: columns of the terminal.
    :param entered: takes each line.
    :param complete: what the last word of the text left of the cursor may be.
    :param ended: called on Ctrl-D in an empty line.
    :param interrupted: called on Ctrl-C.
    :param remembered: whether a line may be kept for the arrow keys.
    """

    def __init__(
        self,
        output: Output,
        *,
        prompt: Callable[[], str | None],
        width: Callable[[], int],
        entered: Callable[[str], None],
        complete: Callable[[str], list[str]],
        ended: Callable[[], None],
        interrupted: Callable[[], None],
        remembered: Callable[[str], bool],
    ) -> None:
        self.line = Line()
        self._output = output
        self._prompt = prompt
        self._width = width
        self._entered = entered
        self._complete = complete
        self._ended = ended
        self._interrupted = interrupted
        self._remembered = remembered
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._drawn = ""
        """What was drawn last, and"""
        self._left = ""
        """what of it stands left of the cursor."""
        self._keys: dict[bytes, Callable[[], None]] = {}

    def makeConnection(self, terminal: Any) -> None:
        """Take the keys of *terminal* from now on."""
        line = self.line
        self.terminal = terminal
        self._keys = {
            b"\x01": line.home,
            b"\x02": line.left,
            b"\x03": self._interrupt,
            b"\x04": self._end,
            b"\x05": line.end,
            b"\x06": line.right,
            b"\x08": line.backspace,
            b"\t": self._tab,
            b"\n": self._enter,
            b"\x0b": line.kill_right,
            b"\x0c": self.clear,
            b"\r": self._enter,
            b"\x0e": line.newer,
            b"\x10": line.older,
            b"\x15": line.kill_left,
            b"\x17": line.kill_word,
            b"\x19": line.yank,
            b"\x7f": line.backspace,
            terminal.LEFT_ARROW: line.left,
            terminal.RIGHT_ARROW: line.right,
            terminal.UP_ARROW: line.older,
            terminal.DOWN_ARROW: line.newer,
            terminal.HOME: line.home,
            terminal.END: line.end,
            terminal.DELETE: line.delete,
        }

    def keystrokeReceived(self, keyID: bytes, modifier: object) -> None:
        """A key; one without a meaning here is ignored."""
        if modifier is not None:
            self._with_alt(keyID)
            return
        handler = self._keys.get(keyID)
        if handler is not None:
            handler()
        elif len(keyID) == 1:
            text = self._decoder.decode(keyID)
            if text.isprintable():
                self.line.insert(text)

    def _with_alt(self, key: object) -> None:
        if key == b"b":
            self.line.word_left()
        elif key == b"f":
            self.line.word_right()

    def unhandledControlSequence(self, seq: bytes) -> None:
        """Ctrl or Alt with an arrow; other keys have no meaning."""
        if seq[:-2] == b"\x1b[1;" and seq[-2:] in (b"5D", b"3D"):
            self.line.word_left()
        elif seq[:-2] == b"\x1b[1;" and seq[-2:] in (b"5C", b"3C"):
            self.line.word_right()

    def typed(self) -> None:
        """All keys of a piece of input were taken."""
        self.redraw()

    # Keys that do more than edit.

    def _enter(self) -> None:
        self.leave_line()
        self._entered(self.line.take(remembered=self._remembered(self.line.text)))

    def _end(self) -> None:
        if self.line.text:
            self.line.delete()
        else:
            self.leave_line()
            self._ended()

    def _interrupt(self) -> None:
        self.line.end()
        self.leave_line("^C")
        self.line.take(remembered=False)
        self._interrupted()

    def clear(self) -> None:
        """Ctrl-L: an empty screen."""
        self._output.raw("\x1b[H\x1b[2J")
        self._forget()

    def _tab(self) -> None:
        typed = self.line.before.rpartition(" ")[2]
        words = sorted({word for word in self._complete(self.line.before) if word.startswith(typed)})
        if not words:
            return
        common = _common_start(words[0], words[-1])
        if len(words) == 1:
            self.line.insert(common[len(typed) :] + ("" if common.endswith("=") else " "))
        elif common != typed:
            self.line.insert(common[len(typed) :])
        else:
            self._output.write(_in_columns(words, self._width()))

    # What is seen.

    def leave_line(self, mark: str = "") -> None:
        """Go on below the line, which stays as it is, with *mark* behind it."""
        self.line.end()
        self.redraw()
        self._output.raw(mark + "\n")
        self._forget()

    def hidden(self) -> str:
        """See :class:`~llmproxyd.observe.output.Prompt`."""
        rows, _ = place(self._left, self._width())
        self._forget()
        return "\r" + (f"\x1b[{rows}A" if rows else "") + "\x1b[J"

    def shown(self) -> str:
        """See :class:`~llmproxyd.observe.output.Prompt`."""
        prompt = self._prompt()
        if prompt is None:
            return ""
        text, self._left = prompt + self.line.text, prompt + self.line.before
        self._drawn = text
        width = self._width()
        last, column = place(text, width)
        # A terminal stays in the last column until another character comes.
        drawn = text + (" \r" if text and not column else "")
        if self._left == text:
            return drawn
        row, column = place(self._left, width)
        up = f"\x1b[{last - row}A" if last > row else ""
        return f"{drawn}{up}\r" + (f"\x1b[{column}C" if column else "")

    def redraw(self) -> None:
        """Show what has changed."""
        before, left = self._drawn, self._left
        prompt = self._prompt()
        now = "" if prompt is None else prompt + self.line.text
        at_end = self.line.cursor == len(self.line.text)
        if now == before and left == (now if at_end else (prompt or "") + self.line.before):
            return
        if before and left == before and at_end and now.startswith(before):
            # What was typed at the end: no more than that is sent.
            added = now[len(before) :]
            self._drawn = self._left = now
            self._output.raw(added + (" \r" if not place(now, self._width())[1] else ""))
            return
        self._output.raw(self.hidden() + self.shown())

    def _forget(self) -> None:
        """Nothing of the line stands on the screen any more."""
        self._drawn = self._left = ""


def cells(character: str) -> int:
    """Columns that *character* takes."""
    if combining(character):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def place(text: str, width: int) -> tuple[int, int]:
    """Row and column behind *text*, from where it starts in column 0."""
    if text.isascii():
        return divmod(len(text), width)
    row = column = 0
    for character in text:
        taken = cells(character)
        if column + taken > width:
            row, column = row + 1, 0
        column += taken
    return (row + 1, 0) if column >= width else (row, column)


def _common_start(first: str, last: str) -> str:
    """What both begin with."""
    count = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        count += 1
    return first[:count]


def _in_columns(words: list[str], width: int) -> str:
    """*words* side by side, as many as fit."""
    shown = words[:_MOST_CHOICES]
    column = max(len(word) for word in shown) + 2
    each = max(width // column, 1)
    rows = [shown[start : start + each] for start in range(0, len(shown), each)]
    lines = ["".join(f"{word:<{column}}" for word in row).rstrip() for row in rows]
    left = len(words) - len(shown)
    return "\n".join([*lines, *([f"… and {left} more"] if left else [])]) + "\n"
