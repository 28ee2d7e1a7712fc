"""Where text leaves: the prompt stays below it, and a broken stream costs lines alone."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from twisted.python.logfile import LogFile

from llmproxyd.observe.output import Output


class Line:
    """A prompt that says when it is taken off and put back."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def hidden(self) -> str:
        return f"<hide{self.name}>"

    def shown(self) -> str:
        return f"<show{self.name}>"


class Full(io.StringIO):
    """A disk without space."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def encoded(encoding: str) -> tuple[io.BytesIO, io.TextIOWrapper]:
    below = io.BytesIO()
    return below, io.TextIOWrapper(below, encoding=encoding, newline="")


def test_text_is_written_at_once() -> None:
    stream = io.StringIO()
    Output(stream).write("one\n")
    assert stream.getvalue() == "one\n"


def test_prompt_is_taken_off_before_text_and_put_back_after() -> None:
    stream = io.StringIO()
    output = Output(stream)
    output.attach(Line())
    output.write("one\n")
    output.write("two\nthree\n")
    assert stream.getvalue() == "<show><hide>one\n<show><hide>two\nthree\n<show>"


def test_prompt_and_text_leave_in_one_piece() -> None:
    """Another process writing to the same terminal cannot come between."""
    pieces: list[str] = []

    class Recording(io.StringIO):
        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    output = Output(Recording())
    output.attach(Line())
    output.write("one\n")
    assert pieces == ["<show>", "<hide>one\n<show>"]


def test_another_prompt_takes_the_place_of_the_first() -> None:
    stream = io.StringIO()
    output = Output(stream)
    output.attach(Line("1"))
    output.attach(Line("2"))
    output.write("x\n")
    assert stream.getvalue() == "<show1><hide1><show2><hide2>x\n<show2>"


def test_prompt_that_is_detached_is_gone_for_good() -> None:
    stream = io.StringIO()
    output = Output(stream)
    output.attach(Line())
    output.attach(None)
    output.write("x\n")
    output.attach(None)
    assert stream.getvalue() == "<show><hide>x\n"


def test_full_disk_loses_lines_and_counts_them() -> None:
    output = Output(Full())
    output.write("one\n")
    output.write("two\n")
    output.close()
    assert output.lost == 2


def test_closed_stream_loses_lines_and_counts_them() -> None:
    stream = io.StringIO()
    output = Output(stream)
    stream.close()
    output.write("one\n")
    output.attach(Line())
    output.close()
    assert output.lost == 2


def test_reader_that_is_gone_loses_lines_and_counts_them() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    output = Output(stream)
    output.write("one\n")
    output.close()
    assert output.lost == 1
    with pytest.raises(OSError, match="pipe"):
        stream.close()


def test_closed_log_file_of_twisted_loses_lines_and_counts_them(tmp_path: Path) -> None:
    file = LogFile("proxy.log", str(tmp_path))
    output = Output(file)  # type: ignore[arg-type]
    output.write("héllo 📨\n")
    file.close()
    output.write("two\n")
    output.close()
    assert output.lost == 1
    assert (tmp_path / "proxy.log").read_bytes() == "héllo 📨\n".encode()


def test_stream_that_recovers_is_written_to_again() -> None:
    class Flaky(io.StringIO):
        broken = True

        def write(self, text: str) -> int:
            if self.broken:
                raise BlockingIOError
            return super().write(text)

    stream = Flaky()
    output = Output(stream)
    output.write("one\n")
    stream.broken = False
    output.write("two\n")
    assert stream.getvalue() == "two\n"
    assert output.lost == 1


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("utf-8", "é📨\n".encode()), ("latin-1", b"\xe9?\n"), ("ascii", b"??\n"), ("cp1252", b"\xe9?\n")],
)
def test_what_the_encoding_lacks_is_replaced(encoding: str, written: bytes) -> None:
    below, stream = encoded(encoding)
    output = Output(stream)
    output.write("é📨\n")
    assert below.getvalue() == written
    assert output.lost == 0


def test_half_a_surrogate_pair_is_replaced() -> None:
    below, stream = encoded("utf-8")
    output = Output(stream)
    output.write("a\ud800b\n")
    assert below.getvalue() == b"a?b\n"


@pytest.mark.parametrize(
    ("encoding", "terminal", "symbols"),
    [
        ("utf-8", True, True),
        ("UTF8", True, True),
        ("utf-8", False, False),
        ("ascii", True, False),
        ("latin-1", True, False),
    ],
)
def test_symbols_are_for_terminals_that_show_them(encoding: str, terminal: bool, symbols: bool) -> None:
    assert Output(encoded(encoding)[1], terminal=terminal).symbols == symbols


def test_terminal_is_what_it_was_told() -> None:
    assert Output(io.StringIO(), terminal=True).terminal
    assert not Output(io.StringIO()).terminal
