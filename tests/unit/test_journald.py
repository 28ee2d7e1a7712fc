"""Log lines have their level where systemd's journal reads them, and nowhere else."""

from __future__ import annotations

import io
import json
import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from llmproxyd.model import BreakerChanged, End, FaultsChanged, Finished
from llmproxyd.observe.journald import complain, marked, reads
from llmproxyd.observe.logs import Observer
from llmproxyd.observe.output import Output
from llmproxyd.observe.requestlog import RequestLog
from llmproxyd.tap import output_for

FINISHED = Finished(
    number=7,
    request_id="ab-7",
    method="POST",
    path="/v1/chat/completions",
    provider="openai",
    upstream="openai",
    status=200,
    duration=0.1234,
    sent=512,
    end=End.COMPLETE,
)
FAILED = replace(FINISHED, status=502, code="upstream_unreachable", detail="connection refused")
OPENED = BreakerChanged(name="openai", before="closed", after="open", cause="5 failures", seconds=60.0)
MODE = FaultsChanged("No error (pass through)", "its count is used up", commanded=False)


def stream_of(file: Any) -> str:
    found = os.fstat(file.fileno())
    return f"{found.st_dev}:{found.st_ino}"


def test_the_journal_reads_a_file_that_systemd_has_named() -> None:
    with tempfile.TemporaryFile() as one, tempfile.TemporaryFile() as other:
        assert reads(one, {"JOURNAL_STREAM": stream_of(one)})
        assert not reads(one, {"JOURNAL_STREAM": stream_of(other)})
        assert not reads(one, {})


def test_the_journal_reads_a_socket() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert reads(here, {"JOURNAL_STREAM": stream_of(here)})


@pytest.mark.parametrize("named", ["", "1", "1:2:3", "x:y", ":", "-1:-1"])
def test_a_name_that_is_none_is_no_journal(named: str) -> None:
    with tempfile.TemporaryFile() as one:
        assert not reads(one, {"JOURNAL_STREAM": named})


@pytest.mark.parametrize("file", [None, io.StringIO(), object()])
def test_what_is_no_file_is_no_journal(file: object) -> None:
    assert not reads(file, {"JOURNAL_STREAM": "1:2"})


def test_a_closed_file_is_no_journal() -> None:
    with tempfile.TemporaryFile() as one:
        named = stream_of(one)
    assert not reads(one, {"JOURNAL_STREAM": named})


@pytest.mark.parametrize(
    ("level", "mark"),
    [("debug", "<7>"), ("info", "<6>"), ("warn", "<4>"), ("error", "<3>"), ("critical", "<2>")],
)
def test_every_line_has_the_level(level: str, mark: str) -> None:
    assert marked("one\n", level) == f"{mark}one\n"
    assert marked("one\n\ntwo\n", level) == f"{mark}one\n{mark}\n{mark}two\n"


def test_every_level_of_the_log_has_a_mark() -> None:
    for level in LogLevel.iterconstants():
        assert marked("x\n", level.name).startswith("<")


def requests(event: Any, **how: bool) -> str:
    stream = io.StringIO()
    log = RequestLog(Output(stream, journald=True), Clock(), lambda: 1.8e9, as_json=how.get("as_json", False))
    log(event)
    log.flush()
    return stream.getvalue()


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("event", "mark"), [(FINISHED, "<6>"), (MODE, "<6>"), (FAILED, "<4>"), (OPENED, "<4>")]
)
def test_the_line_of_a_request_has_its_level(event: Any, mark: str, as_json: bool) -> None:
    line = requests(event, as_json=as_json)
    assert line.startswith(mark)
    assert line.count("\n") == 1
    if as_json:
        assert json.loads(line[3:])["level"] == {"<6>": "info", "<4>": "warn"}[mark]


def observed(emit: Callable[[Logger], object], *, as_json: bool = False, journald: bool = True) -> str:
    stream = io.StringIO()
    observer = Observer(Output(stream, journald=journald), "debug", as_json=as_json, before=lambda: None)
    emit(Logger(namespace="llmproxyd.test", observer=observer))
    return stream.getvalue()


@pytest.mark.parametrize("as_json", [False, True])
def test_what_the_daemon_says_has_its_level(as_json: bool) -> None:
    assert observed(lambda log: log.debug("x"), as_json=as_json).startswith("<7>")
    assert observed(lambda log: log.info("x"), as_json=as_json).startswith("<6>")
    assert observed(lambda log: log.warn("x"), as_json=as_json).startswith("<4>")
    assert observed(lambda log: log.error("x"), as_json=as_json).startswith("<3>")


def test_every_line_of_a_trace_has_the_level_of_the_failure() -> None:
    def fail(log: Logger) -> None:
        try:
            raise ValueError("one\n<6>two")
        except ValueError:
            log.failure("it failed", Failure())

    lines = observed(fail).splitlines()
    assert len(lines) > 3
    assert all(line.startswith("<2>") for line in lines)


def test_a_line_break_in_what_is_said_cannot_choose_a_level() -> None:
    assert observed(lambda log: log.warn("{text}", text="one\n<0>two")).splitlines()[1] == "<4><0>two"


def test_elsewhere_lines_have_no_mark() -> None:
    assert not observed(lambda log: log.warn("x"), journald=False).startswith("<")


def test_the_output_of_the_daemon_knows_who_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryFile("w") as file:
        assert not output_for(file).journald
        monkeypatch.setenv("JOURNAL_STREAM", stream_of(file))
        assert output_for(file).journald


def test_why_it_cannot_run_is_an_error_in_each_line() -> None:
    with tempfile.TemporaryFile("w+") as file:
        complain("one\ntwo", file, {"JOURNAL_STREAM": stream_of(file)})
        complain("three", file, {})
        file.seek(0)
        assert file.read() == "<3>llmproxyd: one\n<3>two\nllmproxyd: three\n"
