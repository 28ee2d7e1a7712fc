"""What is recorded is bounded, written elsewhere, and lost without harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from test_cassette_format import EXCHANGE
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from llmproxyd.cassettes.folder import Folder, load
from llmproxyd.cassettes.hiding import Hidden
from llmproxyd.pipeline.tape import GOODBYE, Tape
from llmproxyd.wire.wheel import Wheel


@dataclass
class Work:
    """Does jobs when it is told to."""

    jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = field(default_factory=list)
    closed: bool = False

    def do(self, job: Callable[[], Any]) -> Deferred[Any]:
        if self.closed:
            raise RuntimeError
        self.jobs.append((job, Deferred()))
        return self.jobs[-1][1]

    def close(self) -> None:
        self.closed = True

    def go_on(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job, done in jobs:
            try:
                done.callback(job())
            except Exception:
                done.errback(Failure())


@dataclass
class Bench:
    path: Path
    max_files: int = 10

    def __post_init__(self) -> None:
        self.work, self.clock = Work(), Clock()
        self.tape = Tape(self.work, Hidden(()), Wheel(self.clock), max_files=self.max_files, max_body=100)

    def open(self) -> Tape:
        self.tape.open(Folder(self.path))
        return self.tape

    def keep(self, size: int = 7) -> None:
        number = self.tape.begin()
        assert number is not None
        assert self.tape.take(size)
        self.tape.keep(number, "chat", EXCHANGE, size)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_nothing_is_taken_before_the_folder_is_open(bench: Bench) -> None:
    assert bench.tape.begin() is None
    assert bench.tape.state()["left_out"] == 0
    assert bench.open().begin() == 1


def test_an_exchange_is_written_elsewhere(bench: Bench) -> None:
    bench.open()
    bench.keep()
    assert bench.tape.state() == {"recorded": 0, "left_out": 0, "failed": 0, "waiting": 1}
    assert load(bench.path) == []
    bench.work.go_on()
    assert bench.tape.state() == {"recorded": 1, "left_out": 0, "failed": 0, "waiting": 0}
    assert [one.name for one in load(bench.path)] == ["0001-my-vllm-chat-200.yaml"]


def test_what_there_was_counts_among_the_files_that_may_be(tmp_path: Path) -> None:
    (tmp_path / "0004-x.yaml").write_text("")
    bench = Bench(tmp_path, max_files=3)
    bench.open()
    assert (bench.tape.begin(), bench.tape.begin(), bench.tape.begin()) == (5, 6, None)
    assert bench.tape.state()["left_out"] == 1
    bench.tape.forget(0, None)
    assert bench.tape.begin() == 7


def test_no_more_is_held_than_may_be(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmproxyd.pipeline.tape.HELD", 100)
    bench.open()
    bench.keep(60)
    assert not bench.tape.take(41)
    assert bench.tape.take(40)
    bench.work.go_on()
    assert bench.tape.take(60)
    assert not bench.tape.take(1)
    bench.tape.forget(100, "x")
    assert bench.tape.take(100)


def test_what_cannot_be_written_is_counted_and_its_place_is_free_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_files=1)
    bench.open()
    tmp_path.rmdir()
    bench.keep()
    bench.work.go_on()
    assert bench.tape.state() == {"recorded": 0, "left_out": 0, "failed": 1, "waiting": 0}
    assert bench.tape.begin() == 2


def test_the_end_waits_for_what_waits(bench: Bench) -> None:
    bench.open()
    bench.keep()
    closing = bench.tape.close()
    assert not closing.called
    bench.work.go_on()
    assert closing.called
    assert bench.clock.getDelayedCalls() == []
    assert len(load(bench.path)) == 1
    Folder(bench.path).close()


def test_the_end_does_not_wait_for_ever(bench: Bench) -> None:
    bench.open()
    bench.keep()
    closing = bench.tape.close()
    bench.clock.advance(GOODBYE)
    assert closing.called
    # What is done late is done all the same, and then others may record there.
    bench.work.go_on()
    assert bench.tape.state()["waiting"] == 0
    assert len(load(bench.path)) == 1
    Folder(bench.path).close()


def test_what_ends_after_the_end_is_left_out(bench: Bench) -> None:
    bench.open()
    number = bench.tape.begin()
    assert number is not None
    assert bench.tape.close().called
    bench.tape.keep(number, "chat", EXCHANGE, 0)
    assert bench.tape.state() == {"recorded": 0, "left_out": 1, "failed": 0, "waiting": 0}


def test_what_ends_while_others_are_awaited_is_left_out(bench: Bench) -> None:
    bench.open()
    bench.keep()
    number = bench.tape.begin()
    assert number is not None
    closing = bench.tape.close()
    bench.tape.keep(number, "chat", EXCHANGE, 0)
    assert not closing.called
    bench.work.go_on()
    assert closing.called
