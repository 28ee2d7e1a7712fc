"""Events in a file, written by a thread: full disks, rotation, what others do to the file."""

from __future__ import annotations

import json
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from bench import reactor
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from wireclient import until

from llmproxyd.config.gateway import Dispatch, Events, Price
from llmproxyd.model import End, Finished, Reading
from llmproxyd.observe.bus import Bus
from llmproxyd.observe.dispatch import dispatcher
from llmproxyd.observe.dispatch.build import Means, bus_of
from llmproxyd.observe.rotation import LineFile
from llmproxyd.redaction import Redactor


def finished(number: int = 1, **more: Any) -> Finished:
    return Finished(number, f"r-{number}", "GET", "/", "openai", "openai", 200, 0.1, 2, End.COMPLETE, **more)


class Log:
    """A bus with one file."""

    def __init__(self, path: Path, **more: Any) -> None:
        self.path = path
        settings = Dispatch("file", path=path, **{"every": 0.01, "batch": 10} | more)
        means = Means(reactor, lambda: 1_700_000_000.0, lambda: 0.0)
        prices = {"m": Price(input=1.0)}
        self.bus: Bus = bus_of(Events(dispatch=(settings,), prices=prices), means, Redactor(), "p")

    def publish(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            self.bus.publish(finished(number))

    def state(self) -> dict[str, int]:
        (state,) = self.bus.state().values()
        return dict(state)

    async def settled(self, **counts: int) -> None:
        await until(lambda: counts.items() <= self.state().items(), f"{counts}")

    def numbers(self, *paths: Path) -> list[int]:
        lines = [line for path in paths or (self.path,) for line in path.read_text().splitlines()]
        return [int(json.loads(line)["request_id"].removeprefix("r-")) for line in lines]


@pytest.fixture
def log(tmp_path: Path, _nothing_left: None) -> Iterator[Any]:
    made: list[Log] = []

    def make(path: Path | None = None, **more: Any) -> Log:
        made.append(Log(path or tmp_path / "events.jsonl", **more))
        return made[-1]

    yield make
    for one in made:
        pytest_twisted.blockon(one.bus.stop())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(dispatcher, "FLUSH", 1.0)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if "Events to" in (text := formatEvent(event)) or "rotated" in text:
            lines.append(text)

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@contextmanager
def room(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest_twisted.ensureDeferred
async def test_each_event_is_a_line(log: Any) -> None:
    made = log()
    made.bus.publish(finished(1, model="m", reading=Reading(tokens={"input": 1_000_000})))
    made.publish(2, 25)
    await made.settled(delivered=25)
    assert made.numbers() == list(range(1, 26))
    assert json.loads(made.path.read_text().splitlines()[0])["cost"] == 1.0


@pytest_twisted.ensureDeferred
async def test_nothing_is_made_before_the_first_event(log: Any, tmp_path: Path) -> None:
    before = threading.active_count()
    made = log(tmp_path / "folder" / "events.jsonl")
    assert not (tmp_path / "folder").exists()
    assert threading.active_count() == before
    made.publish(1, 1)
    await made.settled(delivered=1)
    assert made.path.stat().st_mode & 0o777 == 0o600


@pytest_twisted.ensureDeferred
async def test_files_rotate_without_a_loss(log: Any, tmp_path: Path) -> None:
    made = log(max_bytes=4096, keep=100)
    made.publish(1, 200)
    await made.settled(delivered=200)
    files = sorted(tmp_path.glob("events.jsonl.*"), key=lambda one: -int(one.suffix[1:]))
    assert len(files) > 10
    assert all(one.stat().st_size <= 4096 for one in (*files, made.path))
    assert made.numbers(*files, made.path) == list(range(1, 201))


@pytest_twisted.ensureDeferred
async def test_full_disk_delays_then_drops_and_recovers(log: Any, logged: list[str]) -> None:
    made = log()
    made.publish(1, 10)
    await made.settled(delivered=10)
    with room(made.path.stat().st_size + 100):
        made.publish(11, 10 + dispatcher.LIMIT + 7)
        await until(lambda: made.state()["failures"] > 2)
        assert made.numbers() == list(range(1, 11))
    await made.settled(queued=0, dropped=7)
    assert made.numbers() == list(range(1, 11 + dispatcher.LIMIT))
    assert sorted(line.split(" ", 4)[4] for line in logged) == [
        "are delivered again; 7 were dropped",
        "are dropped: they come faster than they are taken",
        "have to wait: File too large",
    ]


@pytest_twisted.ensureDeferred
async def test_file_moved_away_by_logrotate_is_made_anew(log: Any, tmp_path: Path) -> None:
    made = log()
    for turn in range(5):
        made.publish(turn * 3, turn * 3 + 2)
        await made.settled(delivered=turn * 3 + 3)
        made.path.rename(tmp_path / f"archive{turn}")
    assert [made.numbers(tmp_path / f"archive{turn}") for turn in range(5)] == [
        [turn * 3, turn * 3 + 1, turn * 3 + 2] for turn in range(5)
    ]


@pytest_twisted.ensureDeferred
async def test_next_start_begins_on_a_new_line(log: Any, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"id": "torn')
    made = log()
    made.publish(1, 1)
    await made.settled(delivered=1)
    torn, whole = made.path.read_text().splitlines()
    assert torn == '{"id": "torn'
    assert json.loads(whole)["request_id"] == "r-1"


@pytest_twisted.ensureDeferred
async def test_path_that_is_no_file_costs_events_alone(log: Any, tmp_path: Path, logged: list[str]) -> None:
    made = log(tmp_path)
    made.publish(1, 3)
    await until(lambda: made.state()["failures"] > 2)
    await made.bus.stop()
    assert made.state()["dropped"] == 3
    assert logged[0].endswith("have to wait: Is a directory")


@pytest_twisted.ensureDeferred
async def test_file_that_cannot_be_rotated_is_told_once(log: Any, tmp_path: Path, logged: list[str]) -> None:
    (tmp_path / "events.jsonl.1" / "x").mkdir(parents=True)
    made = log(max_bytes=1024, keep=1)
    made.publish(1, 50)
    await made.settled(delivered=50)
    assert [line for line in logged if "cannot be rotated and grows on" in line] == logged
    assert len(logged) == 1


@pytest_twisted.ensureDeferred
async def test_disk_that_hangs_holds_up_neither_requests_nor_the_stop(
    log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(LineFile, "append", lambda *_: answers.wait(20))
    made = log()
    start = reactor.seconds()
    made.publish(1, 3000)
    await made.bus.stop()
    assert reactor.seconds() - start < 3
    assert made.state() == {"queued": 0, "delivered": 0, "dropped": 3000, "failures": 0}
    answers.set()


@pytest_twisted.ensureDeferred
async def test_stop_writes_what_waits(log: Any) -> None:
    made = log(every=60.0, batch=1000)
    made.publish(1, 500)
    await made.bus.stop()
    assert made.numbers() == list(range(1, 501))
