"""Commands of one operator: in order, one after the other, and none is told to nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from llmproxyd.control.answers import OWN, Answer, Console
from llmproxyd.control.calls import Caller
from llmproxyd.operator.console import WAITING, Aside, Lines, Session
from llmproxyd.operator.line import LINE_LIMIT
from llmproxyd.operator.stdin import LineConsole


class Control:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.waiting: list[Deferred[Answer]] = []
        self.callers: set[tuple[str, str]] = set()
        self.emit: Callable[[str], None] | None = None

    def run(self, line: str, caller: Caller, *, console: Console) -> Answer | Deferred[Answer]:
        self.lines.append(line)
        self.callers.add((caller.who, caller.address))
        if line == "slow":
            self.waiting.append(Deferred())
            return self.waiting[-1]
        if line == "follow":
            return Answer("", follow=self.follow)
        if line == "ask":
            return Answer("", asks="Sure?", confirm=lambda: self.run("slow", caller, console=console))
        return Answer(f"{line}!\n", ok=line != "bad", leaves=line == "quit", python=line == "python")

    def follow(self, emit: Callable[[str], None]) -> Callable[[], None]:
        self.emit = emit

        def stop() -> None:
            self.emit = None

        return stop

    def prompt(self) -> str:
        return "> "

    def complete(self, text: str) -> list[str]:
        return [text]

    def holds_secret(self, line: str) -> bool:
        return "key" in line


class Bench:
    def __init__(self, **options: Any) -> None:
        self.control = Control()
        self.said: list[str] = []
        self.ended = 0
        control: Any = self.control
        self.session = Session(
            control,
            Caller("telnet alice", "192.0.2.1"),
            Console(),
            self.said.append,
            ended=self._end,
            **options,
        )

    def _end(self) -> None:
        self.ended += 1


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_each_line_is_done_for_who_typed_it(bench: Bench):
    bench.session.enter(" status ")
    bench.session.enter("")
    assert bench.control.lines == ["status"]
    assert bench.control.callers == {("telnet alice", "192.0.2.1")}
    assert bench.said == ["status!\n"]


def test_lines_wait_for_the_one_under_way_and_then_come_in_order(bench: Bench):
    for line in ("slow", "one", "slow", "two"):
        bench.session.enter(line)
    assert bench.session.prompt() is None
    bench.control.waiting[0].callback(Answer("late\n"))
    assert bench.said == ["late\n", "one!\n"]
    bench.control.waiting[1].callback(Answer("later\n"))
    assert bench.said[2:] == ["later\n", "two!\n"]
    assert bench.session.prompt() == "> "


def test_only_so_many_lines_wait(bench: Bench):
    bench.session.enter("slow")
    for _ in range(WAITING + 5):
        bench.session.enter("x")
    assert len(bench.said) == 5
    assert "left out" in bench.said[0]
    bench.control.waiting[0].callback(Answer(""))
    assert bench.control.lines.count("x") == WAITING


def test_a_command_that_breaks_is_told_and_the_next_is_done(bench: Bench):
    bench.session.enter("slow")
    bench.session.enter("one")
    logged: list[object] = []
    bench.session.log = type("Log", (), {"failure": lambda *arguments: logged.append(arguments)})()  # type: ignore[assignment]
    bench.control.waiting[0].errback(ValueError("inner details"))
    assert "went wrong" in bench.said[0]
    assert "inner details" not in bench.said[0]
    assert bench.said[1] == "one!\n"
    assert logged


def test_a_question_may_be_answered_by_what_takes_its_time(bench: Bench):
    bench.session.enter("ask")
    assert bench.session.prompt() == "Sure? (yes/no) "
    assert not bench.session.remembered("yes")
    assert bench.session.complete("y") == []
    bench.session.enter("YES")
    assert bench.session.busy
    bench.control.waiting[0].callback(Answer("done\n"))
    assert bench.said == ["done\n"]
    bench.session.enter("ask")
    bench.session.interrupt()
    bench.session.enter("yes")
    assert bench.said[1:] == ["Nothing has changed.\n", "yes!\n"]


def test_commands_may_be_given_while_something_is_followed(bench: Bench):
    bench.session.enter("follow")
    assert bench.control.emit is not None
    bench.control.emit("row\n")
    bench.session.enter("status")
    bench.control.emit("row\n")
    bench.session.enter("")
    assert bench.control.emit is None
    assert bench.said[1:] == ["row\n", "status!\n", "row\n", "No longer following.\n"]


def test_following_anew_ends_what_was_followed(bench: Bench):
    bench.session.enter("follow")
    first = bench.session._stop
    bench.session.enter("follow")
    assert bench.session._stop is not first
    bench.session.close()
    assert bench.control.emit is None


def test_nothing_is_told_once_it_is_closed(bench: Bench):
    bench.session.enter("slow")
    bench.session.enter("one")
    bench.session.close()
    bench.control.waiting[0].callback(Answer("late\n", leaves=True, python=True, follow=bench.control.follow))
    bench.session.enter("two")
    assert (bench.said, bench.ended, bench.control.emit) == ([], 0, None)


def test_leaving_ends_and_what_is_to_come_later_waits_for_what_is_under_way(bench: Bench):
    calls: list[str] = []
    bench.session.enter("slow")
    bench.session.when_idle(lambda: calls.append("idle"))
    assert not calls
    bench.control.waiting[0].callback(Answer("late\n"))
    assert calls == ["idle"]
    bench.session.enter("quit")
    assert bench.ended == 1


@given(st.lists(st.binary(max_size=12)))
def test_lines_are_the_same_however_they_are_cut(pieces: list[bytes]):
    whole, cut = [], []
    for into, feed in ((whole, [b"".join(pieces)]), (cut, pieces)):
        lines = Lines(into.append)
        for piece in feed:
            lines.feed(piece)
        lines.over()
    assert whole == cut


def test_a_line_without_end_is_not_kept():
    lines = Lines(lambda line: None)
    for _ in range(100):
        lines.feed(b"x" * 10_000)
    assert len(lines._rest) == LINE_LIMIT + 1


def test_what_comes_by_itself_comes_a_few_times_a_second():
    clock, said, blocked = Clock(), [], [False]
    aside = Aside(clock, said.append, lambda: blocked[0])
    for number in range(3):
        aside(f"{number}\n")
    assert said == []
    clock.advance(Aside.PAUSE)
    assert said == ["0\n1\n2\n"]
    blocked[0] = True
    for number in range(Aside.MOST + 7):
        aside(f"{number}\n")
    clock.advance(1)
    assert len(said) == 1
    blocked[0] = False
    clock.advance(Aside.PAUSE)
    assert said[1].startswith("… 7 left out\n7\n")
    aside("x")
    aside.stop()
    assert clock.getDelayedCalls() == []


class Reactor(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.readers: set[object] = set()

    def addReader(self, reader: object) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: object) -> None:
        self.readers.discard(reader)


def test_standard_input_is_not_read_while_a_command_takes_its_time():
    control: Any = Control()
    reactor: Any = Reactor()
    said: list[str] = []
    ended: list[bool] = []
    console = LineConsole(reactor, control, said.append, lambda: ended.append(True))
    console.start()
    console._lines.feed(b"one\nslow\n" + b"two\n" * (WAITING + 9))
    assert not reactor.readers
    control.waiting[0].callback(Answer("late\n"))
    assert reactor.readers
    assert control.lines.count("two") == WAITING + 9
    assert control.callers == {("stdin", "-")}
    console._lines.feed(b"slow\nlast")
    console._over()
    assert not ended
    control.waiting[1].callback(Answer("late\n"))
    assert control.lines[-1] == "last"
    assert ended == [True]
    assert not reactor.readers


def test_standard_input_ends_the_daemon_itself():
    assert OWN.own
