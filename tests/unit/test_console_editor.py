"""What a terminal shows of the line that is edited: always the prompt, the line, and the cursor in it."""

from __future__ import annotations

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.observe.output import Output
from llmproxyd.operator.editor import Editor, Terminal, place

PROMPT = "Enter command: "
WORDS = ("status", "breaker", "requests", "reload")


class Nothing:
    def write(self, data: bytes) -> None: ...


class Screen:
    """An editor on a terminal that is looked at."""

    encoding = "utf-8"

    def __init__(self, columns: int = 40, rows: int = 30) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.Stream(self.screen)
        self.sent = 0
        self.prompt: str | None = PROMPT
        self.entered: list[str] = []
        self.told: list[str] = []
        self.output = Output(self, terminal=True)  # type: ignore[arg-type]
        self.editor = Editor(
            self.output,
            prompt=lambda: self.prompt,
            width=lambda: columns,
            entered=self.entered.append,
            complete=lambda text: [one for one in WORDS if one.startswith(text.rpartition(" ")[2])],
            ended=lambda: self.told.append("ended"),
            interrupted=lambda: self.told.append("interrupted"),
            remembered=lambda line: "secret" not in line,
        )
        self.terminal = Terminal(self.editor)
        self.terminal.makeConnection(Nothing())
        self.output.attach(self.editor)

    def write(self, text: str) -> None:
        self.sent += len(text)
        self.stream.feed(text.replace("\r\n", "\n").replace("\n", "\r\n"))

    def flush(self) -> None: ...

    def type(self, data: bytes | str) -> None:
        self.terminal.dataReceived(data if isinstance(data, bytes) else data.encode())

    def shown(self) -> str:
        """Everything from the last prompt on, rows joined."""
        text = "".join(self.screen.display)
        return text[text.rindex(PROMPT) + len(PROMPT) :].rstrip() if PROMPT in text else ""

    def cursor(self) -> tuple[int, int]:
        return self.screen.cursor.y, self.screen.cursor.x


@pytest.fixture
def screen() -> Screen:
    return Screen()


def test_typed_text_stands_behind_the_prompt(screen: Screen):
    screen.type("c 3")
    assert screen.shown() == "c 3"
    assert screen.cursor() == (0, len(PROMPT) + 3)


def test_each_typed_character_costs_one(screen: Screen):
    before = screen.sent
    for character in "status of all":
        screen.type(character)
    assert screen.sent - before == len("status of all")


def test_a_line_over_several_rows_is_drawn_and_moved_in(screen: Screen):
    screen.type("x" * 90)
    assert screen.shown() == "x" * 90
    screen.type(b"\x01y\x05z\x1b[D\x1b[D")
    assert screen.shown() == "y" + "x" * 90 + "z"
    assert screen.cursor() == divmod(len(PROMPT) + 90, 40)


def test_text_from_elsewhere_stands_above(screen: Screen):
    screen.type("half a comm" + "x" * 60)
    screen.output.write("log line\n")
    assert screen.screen.display[0].rstrip() == "log line"
    assert screen.shown() == "half a comm" + "x" * 60
    assert sum(PROMPT in row for row in screen.screen.display) == 1


def test_entering_leaves_the_line_where_it_is(screen: Screen):
    screen.type("one\rtwo\n")
    assert screen.entered == ["one", "two"]
    assert [row.rstrip() for row in screen.screen.display[:3]] == [
        PROMPT + "one",
        PROMPT + "two",
        PROMPT.rstrip(),
    ]


def test_without_a_prompt_nothing_is_shown_until_there_is_one(screen: Screen):
    screen.prompt = None
    screen.type("ahead")
    assert screen.screen.display[0].rstrip() == ""
    screen.prompt = PROMPT
    screen.editor.redraw()
    assert screen.shown() == "ahead"


def test_tab_completes_what_is_common_then_shows_the_choices(screen: Screen):
    screen.type("sta\t")
    assert screen.editor.line.text == "status "
    screen.type("\x15x re\t")
    assert screen.editor.line.text == "x re"
    assert "reload    requests" in screen.screen.display[0]
    screen.type("q\t")
    assert screen.editor.line.text == "x requests "
    screen.type("\x15nothing\t")
    assert screen.editor.line.text == "nothing"


def test_control_c_and_d_are_told(screen: Screen):
    screen.type("abc\x03")
    screen.type("x\x04\x01\x04\x04")
    assert screen.told == ["interrupted", "ended"]


def test_a_line_with_a_secret_is_not_brought_back(screen: Screen):
    screen.type("plain\rsecret=1\r\x1b[A")
    assert screen.editor.line.text == "plain"


def test_ctrl_and_alt_move_by_words(screen: Screen):
    screen.type(b"one two\x1b[1;5DX\x1bbY\x1bfZ")
    assert screen.editor.line.text == "one YXtwoZ"


def test_wide_and_combining_characters_have_their_width():
    assert place("日本", 80) == (0, 4)
    assert place("é", 80) == (0, 1)
    assert place("日本語", 5) == (1, 2)
    assert place("xxxx", 4) == (1, 0)


KEYS = st.sampled_from(
    [bytes([code]) for code in (1, 3, 4, 5, 9, 11, 13, 21, 23, 25, 127)]
    + [b"\x1b" + key for key in (b"[A", b"[B", b"[C", b"[D", b"[3~", b"b", b"f")]
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(KEYS | st.text("abc xyz~", min_size=1, max_size=70).map(str.encode), max_size=12), st.booleans()
)
def test_whatever_is_typed_the_terminal_shows_the_line_and_the_cursor(pieces: list[bytes], log: bool):
    screen = Screen(columns=31, rows=130)
    for piece in pieces:
        screen.type(piece)
        if log:
            screen.output.write("log\n")
        line = screen.editor.line
        assert screen.shown() == line.text.rstrip()
        text = "".join(screen.screen.display)
        row, column = divmod(text.rindex(PROMPT) + len(PROMPT) + line.cursor, 31)
        assert screen.cursor() == (row, column)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_keys(data: bytes):
    screen = Screen()
    screen.type(data)
    screen.type(b"\x1b[")
    for _ in range(5):
        screen.type(b"1" * 100)
        assert len(getattr(screen.terminal, "escBuf", b"")) < 150
