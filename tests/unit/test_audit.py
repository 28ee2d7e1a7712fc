"""The audit log: on the disk before it counts, in bounded time, or not at all."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from llmproxyd.model import Change, Denied
from llmproxyd.observe import rotation
from llmproxyd.observe.audit import GROUP, TIMEOUT, WAITING, AuditLog, AuditUnavailable, NoAudit
from llmproxyd.observe.auditfile import LINE, AuditFile, last_seq
from llmproxyd.redaction import REDACTED, Redactor, Secret

T = TypeVar("T")


class Thread:
    """Does jobs when it is told to; at once unless *held*."""

    def __init__(self) -> None:
        self.held = False
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.closed = False

    def do(self, job: Callable[[], T]) -> Deferred[T]:
        assert not self.closed
        if not self.held:
            return execute(job)
        done: Deferred[T] = Deferred()
        self.jobs.append((job, done))
        return done

    def run(self) -> None:
        self.held = False
        jobs, self.jobs = self.jobs, []
        for job, done in jobs:
            execute(job).chainDeferred(done)

    def close(self) -> None:
        self.closed = True


class Bench:
    def __init__(self, path: Path, **more: Any) -> None:
        self.path = path
        self.clock = Clock()
        self.thread = Thread()
        self.wall = 1_700_000_000.0
        file = AuditFile(path, **more)
        self.audit = AuditLog(
            file, self.thread, self.clock, lambda: self.wall, Redactor([Secret("hunter2-key")])
        )
        self.results: list[str] = []

    def record(self, target: str = "proj_1", **more: Any) -> Deferred[None]:
        change = Change(
            **{"who": "stdin", "address": "-", "action": "project.create", "target": target} | more
        )
        done = self.audit.record(change)
        done.addCallbacks(
            lambda _: self.results.append(f"{target} ok"),
            lambda failure: self.results.append(f"{target} {failure.type.__name__}: {failure.value}"),
        )
        return done

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_bytes().split(b"\n") if line.startswith(b"{")]

    def targets(self) -> list[str]:
        return [line["target"] for line in self.lines()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "audit.jsonl")


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("llmproxyd"):
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def no_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


# Lines.


def test_change_is_one_line_with_all_that_is_known(bench: Bench) -> None:
    bench.record(
        before=None, after={"name": "team", "credentials": {"openai": Secret("k")}}, detail="by hand"
    )
    assert bench.results == ["proj_1 ok"]
    assert bench.lines() == [
        {
            "seq": 1,
            "ts": "2023-11-14T22:13:20.000Z",
            "event": "change",
            "who": "stdin",
            "address": "-",
            "action": "project.create",
            "target": "proj_1",
            "outcome": "ok",
            "before": None,
            "after": {"name": "team", "credentials": {"openai": REDACTED}},
            "detail": "by hand",
        }
    ]


@pytest.mark.parametrize("member", ["who", "address", "action", "target", "outcome", "detail"])
def test_no_secret_stands_in_any_member(bench: Bench, member: str) -> None:
    for text in ("hunter2-key", "sk-abcdefghijklmnopqrstuv"):
        bench.record(**{member: f"of {text}!"})
    assert [line[member] for line in bench.lines()] == [f"of {REDACTED}!"] * 2
    assert b"hunter2-key" not in bench.path.read_bytes()


def test_lines_are_numbered_over_restarts_and_rotations(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(4):
        bench = Bench(path, max_bytes=600, keep=100)
        for number in range(3):
            bench.record(str(number))
        bench.audit.stop()
    files = sorted(
        tmp_path.iterdir(), key=lambda one: -int(one.suffix[1:] if one.suffix[1:].isdigit() else 0)
    )
    assert len(files) > 3
    seqs = [json.loads(line)["seq"] for file in files for line in file.read_text().splitlines()]
    assert seqs == list(range(1, 13))


def test_numbers_go_on_after_a_torn_line(bench: Bench) -> None:
    bench.path.write_bytes(b'{"seq": 41, "event": "change", "target": "x"}\n{"seq": 42, "eve')
    bench.record("y")
    assert bench.path.read_bytes().startswith(
        b'{"seq": 41, "event": "change", "target": "x"}\n{"seq": 42, "eve\n'
    )
    line = json.loads(bench.path.read_bytes().splitlines()[-1])
    assert (line["seq"], line["target"]) == (42, "y")


@pytest.mark.parametrize(
    ("tail", "seq"),
    [
        (b"", 0),
        (b"nonsense\n", 0),
        (b'{"seq": 5}\n', 5),
        (b'{"seq": 5}\n{"seq": 6', 5),
        (b'{"seq": 5}\n{"seq": true}\n{"seq": "7"}\n[]\n3\nnull\n\n', 5),
        (b'{"seq": -1}\n', 0),
        (b'{"seq": 5}\n' + b"[" * 100_000 + b"\n", 5),
        (b'{"seq": 5}\n\xff\xfe\n', 5),
    ],
)
def test_number_of_the_last_whole_line(tail: bytes, seq: int) -> None:
    assert last_seq(tail) == seq


def test_line_that_would_be_too_long_leaves_out_what_changed(bench: Bench) -> None:
    bench.record(after={str(number): "x" * 1000 for number in range(100)})
    (line,) = bench.lines()
    assert (line["before"], line["after"], line["target"]) == (None, "[too long]", "proj_1")
    assert bench.path.stat().st_size < LINE


# On the disk.


def test_it_counts_only_when_it_is_on_the_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sync = os.fsync
    monkeypatch.setattr(rotation.os, "fsync", lambda file: (order.append("fsync"), sync(file))[1])
    bench.record().addCallback(lambda _: order.append("fired"))
    assert order[-2:] == ["fsync", "fired"]


def test_those_that_wait_together_share_one_fsync(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.record("first")
    synced: list[int] = []
    monkeypatch.setattr(rotation.os, "fsync", synced.append)
    bench.thread.held = True
    for number in range(50):
        bench.record(str(number))
    assert len(bench.thread.jobs) == 1  # the first one, before the others came
    bench.thread.run()
    assert len(synced) == 2
    assert bench.targets() == ["first", *map(str, range(50))]
    assert bench.results == ["first ok", *(f"{number} ok" for number in range(50))]
    assert bench.clock.getDelayedCalls() == []


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    bench: Bench, call: str, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    bench.record("a")
    with monkeypatch.context() as broken:
        broken.setattr(rotation.os, call, no_disk)
        bench.record("b")
        bench.record("c")
    bench.record("d")
    assert bench.results == [
        "a ok",
        "b AuditUnavailable: No space left on device",
        "c AuditUnavailable: No space left on device",
        "d ok",
    ]
    assert [(line["seq"], line["target"]) for line in bench.lines()] == [(1, "a"), (2, "d")]
    assert logged == [
        f"The audit log {bench.path} cannot be written: No space left on device",
        f"The audit log {bench.path} is written again",
    ]
    assert bench.audit.state() == {"queued": 0, "written": 2, "failed": 2}


def test_those_before_the_disk_was_full_count_and_numbers_go_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "audit.jsonl", max_bytes=600, keep=9)
    bench.record("first")
    bench.thread.held = True
    bench.record("second")
    bench.record("short")
    bench.record("long", detail="x" * 900)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, before[1]))
    try:
        bench.thread.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    bench.record("last")
    assert bench.results == [
        "first ok",
        "second ok",
        "short ok",
        "long AuditUnavailable: File too large",
        "last ok",
    ]
    assert bench.lines()[-1]["seq"] == 4


def test_fault_of_ours_refuses_without_its_text(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("sk-secret")

    monkeypatch.setattr(AuditFile, "write", broken)
    bench.record("a")
    assert bench.results == ["a AuditUnavailable: ValueError"]


def test_start_says_early_that_it_cannot_be_written(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    failures: list[Failure] = []
    bench.audit.start().addErrback(failures.append)
    assert [failure.type for failure in failures] == [AuditUnavailable]
    good = Bench(tmp_path / "a" / "audit.jsonl")
    done = good.audit.start()
    assert done.called
    assert good.path.exists()


# In time.


def test_disk_that_does_not_answer_refuses_in_time(bench: Bench) -> None:
    bench.thread.held = True
    bench.record("under way")
    bench.clock.advance(1)
    bench.record("waiting")
    bench.clock.advance(TIMEOUT - 1)
    assert bench.results == ["under way AuditUnavailable: the disk did not answer within 5 s"]
    bench.clock.advance(1)
    assert bench.results[1:] == ["waiting AuditUnavailable: the disk did not answer within 5 s"]


def test_line_that_came_too_late_is_taken_back(bench: Bench) -> None:
    bench.thread.held = True
    bench.record("late", after={"a": 1})
    bench.record("never")
    bench.clock.advance(TIMEOUT)
    bench.thread.run()
    told = [(line["seq"], line["target"], line["outcome"], line["detail"]) for line in bench.lines()]
    assert told == [
        (1, "late", "ok", None),
        (2, "late", "refused", "seq 1 was written too late and does not hold"),
    ]


def test_cancelled_record_is_withdrawn(bench: Bench) -> None:
    bench.thread.held = True
    bench.record("first")
    bench.record("second").cancel()
    bench.thread.run()
    assert bench.targets() == ["first"]
    assert bench.clock.getDelayedCalls() == []


def test_too_many_that_wait_are_refused_at_once(bench: Bench) -> None:
    bench.thread.held = True
    for number in range(WAITING + 10):
        bench.record(str(number))
    assert len(bench.results) == 9  # one is under way
    assert bench.results[0].endswith("too much waits to be recorded")
    bench.thread.run()
    assert len(bench.lines()) == WAITING + 1
    assert GROUP < WAITING


def test_record_within_a_callback_is_written_too(bench: Bench) -> None:
    bench.record("a").addCallback(lambda _: bench.record("b"))
    assert bench.targets() == ["a", "b"]


# Refused clients.


def test_refused_clients_are_a_line_a_minute(bench: Bench) -> None:
    for _ in range(3):
        bench.audit(Denied(address="192.0.2.1", code="token_not_found", shown="sk-Ab3x"))
    bench.clock.advance(59)
    assert not bench.path.exists()
    bench.wall += 60
    bench.clock.advance(1)
    assert bench.lines() == [
        {
            "seq": 1,
            "ts": "2023-11-14T22:14:20.000Z",
            "event": "denied",
            "action": "authenticate",
            "outcome": "refused",
            "address": "192.0.2.1",
            "since": "2023-11-14T22:13:20.000Z",
            "count": 3,
            "codes": {"token_not_found": 3},
            "shown": ["sk-Ab3x"],
        }
    ]
    assert bench.clock.getDelayedCalls() == []
    bench.audit(Denied(address="192.0.2.1", code="token_not_found"))
    bench.clock.advance(60)
    assert len(bench.lines()) == 2


def test_refused_clients_never_fail_anything(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation.os, "write", no_disk)
    bench.audit(Denied(address="192.0.2.1", code="token_not_found"))
    bench.clock.advance(60)
    assert bench.audit.state() == {"queued": 0, "written": 0, "failed": 1}


# The end.


def test_stop_writes_what_waits_refused_clients_too(bench: Bench) -> None:
    bench.audit(Denied(address="192.0.2.1", code="token_not_found"))
    bench.thread.held = True
    bench.record("a")
    done = bench.audit.stop()
    assert not done.called
    bench.record("b")
    assert bench.results == ["b AuditUnavailable: the daemon stops"]
    bench.thread.run()
    assert done.called
    assert {line.get("target") for line in bench.lines()} == {None, "a"}
    assert bench.thread.closed
    bench.audit(Denied(address="192.0.2.1", code="token_not_found"))
    assert bench.clock.getDelayedCalls() == []


def test_stop_waits_for_no_disk_for_ever(bench: Bench, logged: list[str]) -> None:
    bench.thread.held = True
    bench.record("a")
    bench.record("b")
    done = bench.audit.stop()
    bench.clock.advance(TIMEOUT)
    assert done.called
    assert [result.split(":")[0] for result in bench.results] == ["a AuditUnavailable", "b AuditUnavailable"]
    assert logged == ["The audit log could not be written in time"]
    bench.thread.run()
    assert bench.clock.getDelayedCalls() == []


def test_nothing_is_recorded_where_none_is_configured() -> None:
    assert NoAudit().record(Change(who="a", address="-", action="b", target="c")).called
