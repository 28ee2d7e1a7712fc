"""One line of text that is edited, with its history.  Nothing is drawn here."""

from __future__ import annotations

LINE_LIMIT = 4096
"""Characters (of plain lines: bytes) of one line; more is no command."""

HISTORY = 200
"""Lines that the arrow keys bring back."""


class Line:
    """The line that an operator types, and those typed before.

    :ivar text: what is typed.
    :ivar cursor: where, in characters from its start.
    """

    def __init__(self) -> None:
        self.text = ""
        self.cursor = 0
        self._killed = ""
        self._history: list[str] = []
        self._shown = 0
        """The place in the history; its length stands for the line that is new."""
        self._draft = ""

    @property
    def before(self) -> str:
        """What is left of the cursor."""
        return self.text[: self.cursor]

    def set(self, text: str) -> None:
        """Have *text* on the line, the cursor at its end."""
        self.text = text[:LINE_LIMIT]
        self.cursor = len(self.text)

    def insert(self, text: str) -> None:
        """Type *text* at the cursor, as far as there is room for it."""
        text = text[: LINE_LIMIT - len(self.text)]
        self.text = self.before + text + self.text[self.cursor :]
        self.cursor += len(text)

    # Moves.

    def left(self) -> None:
        """One character to the left."""
        self.cursor = max(self.cursor - 1, 0)

    def right(self) -> None:
        """One character to the right."""
        self.cursor = min(self.cursor + 1, len(self.text))

    def home(self) -> None:
        """To the start."""
        self.cursor = 0

    def end(self) -> None:
        """To the end."""
        self.cursor = len(self.text)

    def word_left(self) -> None:
        """To the start of the word."""
        self.cursor = len(self.before.rstrip(" ")[: self._word()])

    def word_right(self) -> None:
        """Behind the end of the word."""
        rest = self.text[self.cursor :]
        word = rest.lstrip(" ").partition(" ")[0]
        self.cursor += len(rest) - len(rest.lstrip(" ")) + len(word)

    def _word(self) -> int:
        """Where the word left of the cursor starts."""
        return self.before.rstrip(" ").rfind(" ") + 1

    # What is taken away.

    def backspace(self) -> None:
        """The character left of the cursor."""
        if self.cursor:
            self.text = self.text[: self.cursor - 1] + self.text[self.cursor :]
            self.cursor -= 1

    def delete(self) -> None:
        """The character at the cursor."""
        self.text = self.before + self.text[self.cursor + 1 :]

    def kill_right(self) -> None:
        """All that is right of the cursor."""
        self._kill(self.cursor, len(self.text))

    def kill_left(self) -> None:
        """All that is left of the cursor."""
        self._kill(0, self.cursor)

    def kill_word(self) -> None:
        """The word left of the cursor."""
        self._kill(self._word(), self.cursor)

    def yank(self) -> None:
        """What was killed last, back at the cursor."""
        self.insert(self._killed)

    def _kill(self, start: int, end: int) -> None:
        if start < end:
            self._killed = self.text[start:end]
            self.text = self.text[:start] + self.text[end:]
            self.cursor = start

    # The history.

    def older(self) -> None:
        """The line that was entered before the one shown."""
        if self._shown:
            self._keep_draft()
            self._shown -= 1
            self.set(self._history[self._shown])

    def newer(self) -> None:
        """The line that was entered after the one shown; at last what was being typed."""
        if self._shown < len(self._history):
            self._shown += 1
            at_end = self._shown == len(self._history)
            self.set(self._draft if at_end else self._history[self._shown])

    def _keep_draft(self) -> None:
        if self._shown == len(self._history):
            self._draft = self.text

    def take(self, *, remembered: bool = True) -> str:
        """The line as it stands, and begin a new one.

        :param remembered: into the history with it, unless it is empty or the last one again.
        """
        text = self.text
        if remembered and text.strip() and self._history[-1:] != [text]:
            self._history.append(text)
            del self._history[:-HISTORY]
        self.text, self.cursor, self._draft = "", 0, ""
        self._shown = len(self._history)
        return text
