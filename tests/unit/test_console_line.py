"""The line that is edited: each key does what it says, whatever came before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmproxyd.operator.line import HISTORY, LINE_LIMIT, Line


def typed(text: str, cursor: int | None = None) -> Line:
    line = Line()
    line.set(text)
    if cursor is not None:
        line.cursor = cursor
    return line


def test_characters_are_typed_at_the_cursor():
    line = typed("ac", 1)
    line.insert("b")
    assert (line.text, line.cursor, line.before) == ("abc", 2, "ab")


def test_words_are_passed_and_killed_as_a_shell_does():
    line = typed("fault add  r 30%", 11)
    line.word_left()
    assert line.cursor == 6
    line.word_left()
    assert line.cursor == 0
    line.word_right()
    assert line.cursor == 5
    line.end()
    line.kill_word()
    assert line.text == "fault add  r "
    line.kill_word()
    assert line.text == "fault add  "
    line.yank()
    assert line.text == "fault add  r "


def test_kills_take_one_side_of_the_cursor():
    line = typed("left right", 5)
    line.kill_left()
    assert (line.text, line.cursor) == ("right", 0)
    line.right()
    line.kill_right()
    assert (line.text, line.cursor) == ("r", 1)


def test_history_keeps_what_was_being_typed():
    line = Line()
    for text in ("one", "two", "two", "   ", "three"):
        line.set(text)
        assert line.take() == text
    line.set("draft")
    line.older()
    line.older()
    assert line.text == "two"
    line.older()
    line.older()
    assert line.text == "one"
    for _ in range(5):
        line.newer()
    assert line.text == "draft"


def test_what_must_not_be_remembered_is_not():
    line = Line()
    line.set("project credential x openai=sk-1")
    line.take(remembered=False)
    line.older()
    assert line.text == ""


def test_history_and_line_have_an_end():
    line = Line()
    for number in range(HISTORY + 50):
        line.set(str(number))
        line.take()
    for _ in range(2 * HISTORY):
        line.older()
    assert line.text == "50"
    line.insert("x" * 10_000)
    assert len(line.text) == LINE_LIMIT


KEYS = [name for name in dir(Line) if not name.startswith("_") and name not in ("text", "cursor", "before")]
PLAIN = [name for name in KEYS if name not in ("set", "insert", "take")]


@given(st.lists(st.sampled_from(PLAIN) | st.text(max_size=5).map(lambda text: "=" + text) | st.just("take")))
def test_any_keys_leave_the_cursor_within_the_line(keys: list[str]):
    line = Line()
    for key in keys:
        if key.startswith("="):
            before = line.text, line.cursor
            line.insert(key[1:])
            assert line.text == before[0][: before[1]] + key[1:] + before[0][before[1] :]
        elif key == "take":
            assert line.take() is not None
            assert line.text == ""
        else:
            getattr(line, key)()
        assert 0 <= line.cursor <= len(line.text)
