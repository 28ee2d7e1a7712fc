"""Folders of records and the thread that fills them: what stays, who may read it, what failure costs."""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from llmproxyd.observe import files
from llmproxyd.observe.files import Folder, file_word, local_time, stamp
from llmproxyd.observe.writer import DEADLINE, Writer

NAMES = re.compile(r"r\d+(?:_\d+)?\.log")


def folder(path: Path, *, max_files: int = 100, max_bytes: int | None = None) -> Folder:
    return Folder(path, max_files=max_files, names=NAMES, max_bytes=max_bytes)


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# Folders.


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o377])
def test_only_the_owner_can_read_what_is_made_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        folder(tmp_path / "a" / "b").write("r1", lambda name: name)
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
    assert mode(tmp_path / "a" / "b" / "r1.log") == 0o600


def test_folder_that_was_there_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder(tmp_path).write("r1", lambda name: name)
    assert mode(tmp_path) == 0o755


def test_name_that_is_taken_gets_a_number_and_the_text_knows_it(tmp_path: Path) -> None:
    one = folder(tmp_path)
    assert [one.write("r1", lambda name: name) for _ in range(3)] == ["r1.log", "r1_1.log", "r1_2.log"]
    assert (tmp_path / "r1_2.log").read_text() == "r1_2.log"


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "r1.log").symlink_to(victim)
    (logs / "r1_1.log").symlink_to(tmp_path / "nowhere")
    assert folder(logs).write("r1", lambda name: "text") == "r1_2.log"
    assert victim.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_no_more_than_max_files_are_kept_and_the_oldest_go(tmp_path: Path) -> None:
    one = folder(tmp_path, max_files=3)
    for number in range(10):
        one.write(f"r{number}", str)
        assert len(names(tmp_path)) <= 3
    assert names(tmp_path) == ["r7.log", "r8.log", "r9.log"]


def test_max_files_holds_across_a_restart(tmp_path: Path) -> None:
    for number in (5, 3, 9, 1):
        folder(tmp_path).write(f"r{number}", str)
        os.utime(tmp_path / f"r{number}.log", (1e9 - number, 1e9 - number))
    folder(tmp_path, max_files=2).write("r0", str)
    assert names(tmp_path) == ["r0.log", "r1.log"]


def test_files_of_others_are_neither_counted_nor_removed(tmp_path: Path) -> None:
    others = ["notes.txt", "r1.log.gz", "xr1.log", "r1x.log"]
    for name in others:
        (tmp_path / name).write_text("")
    (tmp_path / "r0.log").mkdir()
    (tmp_path / "r2.log").symlink_to(tmp_path / "notes.txt")
    one = folder(tmp_path, max_files=1)
    for number in range(5, 8):
        one.write(f"r{number}", str)
    assert names(tmp_path) == sorted([*others, "r0.log", "r2.log", "r7.log"])


def test_file_that_somebody_removed_is_no_failure(tmp_path: Path) -> None:
    one = folder(tmp_path, max_files=2)
    one.write("r1", str)
    one.write("r2", str)
    (tmp_path / "r1.log").unlink()
    one.write("r3", str)
    assert names(tmp_path) == ["r2.log", "r3.log"]


def test_folder_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    one = folder(tmp_path / "logs")
    one.write("r1", str)
    (tmp_path / "logs" / "r1.log").unlink()
    (tmp_path / "logs").rmdir()
    one.write("r2", str)
    assert names(tmp_path / "logs") == ["r2.log"]


@pytest.mark.parametrize("text", ["a" * 1000, "é" * 500, "💥" * 250])
def test_file_that_would_be_too_large_is_cut_and_says_so(tmp_path: Path, text: str) -> None:
    folder(tmp_path, max_bytes=200).write("r1", lambda name: text)
    data = (tmp_path / "r1.log").read_bytes()
    assert len(data) <= 200
    assert data.decode().endswith("\n[cut: the record has 1000 bytes, and a file at most 200]\n")
    folder(tmp_path, max_bytes=1000).write("r2", lambda name: text)
    assert (tmp_path / "r2.log").read_text() == text


def test_half_a_surrogate_pair_can_be_written(tmp_path: Path) -> None:
    folder(tmp_path).write("r1", lambda name: "a\ud800b")
    assert (tmp_path / "r1.log").read_text() == "a\\ud800b"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyError("x")])
def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path: Path, error: Exception) -> None:
    def render(name: str) -> str:
        raise error

    with pytest.raises(type(error)):
        folder(tmp_path).write("r1", render)
    assert names(tmp_path) == []


def test_a_file_has_its_name_when_it_is_whole_and_not_before(tmp_path: Path) -> None:
    one = folder(tmp_path)
    during: list[tuple[list[str], list[str]]] = []

    def render(name: str) -> str:
        during.append(([file.name for file in one.files()], names(tmp_path)))
        return "x" * 100_000

    one.write("r1", str)
    one.write("r2", render)
    assert during == [(["r1.log"], [".r2.log.part", "r1.log"])]
    assert names(tmp_path) == ["r1.log", "r2.log"]
    assert mode(tmp_path / "r2.log") == 0o600


def test_whoever_looks_meanwhile_sees_whole_files_alone(tmp_path: Path) -> None:
    one = folder(tmp_path, max_files=10_000)
    text = "x" * 300_000
    over = threading.Event()
    sizes: set[int] = set()

    def look() -> None:
        while not over.is_set():
            sizes.update(file.size for file in one.files())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for number in range(200):
            one.write(f"r{number}", lambda name: text)
    finally:
        over.set()
        looking.join()
    assert sizes <= {len(text)}


def test_a_part_that_a_crash_has_left_is_no_file_and_goes_in_its_turn(tmp_path: Path) -> None:
    left = tmp_path / ".r1.log.part"
    left.write_text("half")
    os.utime(left, (1e9, 1e9))
    one = folder(tmp_path, max_files=3)
    assert one.files() == []
    assert [one.write("r1", str) for _ in range(2)] == ["r1_1.log", "r1_2.log"]
    assert left.exists()
    one.write("r2", str)
    assert names(tmp_path) == ["r1_1.log", "r1_2.log", "r2.log"]


def test_hidden_files_of_others_are_not_removed(tmp_path: Path) -> None:
    others = [".r1.log", ".x.log.part", "r1.log.part", ".part"]
    for name in others:
        (tmp_path / name).write_text("")
    one = folder(tmp_path, max_files=1)
    for number in range(5, 8):
        one.write(f"r{number}", str)
    assert names(tmp_path) == sorted([*others, "r7.log"])


def test_two_daemons_in_one_folder_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """One takes the name while the other is about to."""
    one, other = folder(tmp_path), folder(tmp_path)

    def render(name: str) -> str:
        other.write("r1", lambda name: "the other's")
        return name

    assert one.write("r1", render) == "r1.log"
    assert (tmp_path / "r1.log").read_text() == "r1.log"
    assert (tmp_path / "r1_1.log").read_text() == "the other's"


def test_a_name_that_is_taken_between_two_looks_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    taken = files._taken

    def look(name: str, place: int) -> bool:
        found = taken(name, place)
        if not looked:
            (tmp_path / name).write_text("the other's")
        looked.append(name)
        return found

    monkeypatch.setattr(files, "_taken", look)
    assert folder(tmp_path).write("r1", str) == "r1_1.log"
    assert (tmp_path / "r1.log").read_text() == "the other's"
    assert names(tmp_path) == ["r1.log", "r1_1.log"]


def test_folder_that_cannot_be_read_has_no_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert folder(tmp_path / "none").files() == folder(tmp_path / "file").files() == []


def test_a_place_where_folders_can_be_made_has_no_obstacle_and_stays_as_it_is(tmp_path: Path) -> None:
    assert folder(tmp_path).obstacle() is None
    assert folder(tmp_path / "a" / "b").obstacle() is None
    assert names(tmp_path) == []


def test_a_file_in_the_way_is_an_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    for place in ("file", "file/a", "file/a/b", "nowhere/a"):
        assert folder(tmp_path / place).obstacle() == "Not a directory"


@pytest.mark.parametrize(
    ("flags", "why"), [(os.ST_RDONLY, "Read-only file system"), (0, "Permission denied")]
)
def test_a_place_that_may_not_be_written_is_an_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: int, why: str
) -> None:
    asked: list[object] = []

    def access(path: object, mode: int) -> bool:
        asked.append(path)
        return False

    class Told:
        f_flag = flags

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setattr(os, "statvfs", lambda path: Told)
    assert folder(tmp_path / "a" / "b").obstacle() == why
    assert asked == [tmp_path]


# Names.


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("503", "503"),
        ("circuit_open", "circuit_open"),
        ("../../etc/passwd", "etc_passwd"),
        ("", "error"),
        ("\x00\n", "error"),
        ("..", "error"),
        ("a b", "a_b"),
        ("é", "error"),
        ("a" * 300, "a" * 64),
    ],
)
def test_word_of_a_name_is_harmless(text: str, word: str) -> None:
    assert file_word(text, "error") == word


def test_stamp_is_local_time_with_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        assert stamp(1_800_000_000.123456) == "20270115_100000_123"
        assert local_time(1_800_000_000.5).isoformat() == "2027-01-15T10:00:00.500000"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("wall", [float("nan"), float("inf"), -1e300, 1e300])
def test_clock_that_went_mad_is_no_failure(wall: float) -> None:
    assert stamp(wall) == stamp(0)


# The writer.


@dataclass
class Plain:
    folder: Folder
    stem: str = "r1"
    size: int = 10
    work: Callable[[], None] = field(default=lambda: None)

    def render(self, name: str) -> str:
        self.work()
        return name


class Bench:
    """A writer, with what it told the reactor's thread and the log."""

    def __init__(self, path: Path, **bounds: int) -> None:
        self.clock = Clock()
        self.calls: list[Callable[[], object]] = []
        self.writer = Writer(self.calls.append, self.clock, **bounds)
        self.folder = folder(path)

    def put(self, **record: object) -> bool:
        return self.writer.put(Plain(self.folder, **record))  # type: ignore[arg-type]

    def deliver(self) -> None:
        """Do in this thread what the worker asked for."""
        while self.calls:
            self.calls.pop(0)()

    def wait_for(self, true: Callable[[], bool]) -> None:
        for _ in range(1000):
            if true():
                return
            time.sleep(0.01)
        raise AssertionError("it never came")


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    found: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_namespace"] == "llmproxyd.observe.writer.Writer":
            found.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def test_records_are_written_in_order_by_another_thread(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    threads: list[str] = []
    bench.writer.start()
    for number in range(20):
        assert bench.put(stem=f"r{number}", work=lambda: threads.append(threading.current_thread().name))
    assert bench.writer.flush()
    assert set(threads) == {"llmproxyd-records"}
    assert len(names(tmp_path)) == 20
    assert bench.writer.state() == {"queued": 0, "written": 20, "dropped": 0, "failed": 0}
    bench.writer.stop()


def test_what_is_put_before_the_start_waits_for_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.put()
    assert bench.writer.state()["queued"] == 1
    bench.writer.start()
    bench.writer.start()
    assert bench.writer.flush()
    assert names(tmp_path) == ["r1.log"]
    bench.writer.stop()


@pytest.mark.parametrize("bounds", [{"max_records": 2}, {"max_bytes": 20}])
def test_what_does_not_fit_is_dropped_counted_and_told_once(
    tmp_path: Path, warnings: list[str], bounds: dict[str, int]
) -> None:
    bench = Bench(tmp_path, **bounds)
    assert [bench.put() for _ in range(5)] == [True, True, False, False, False]
    assert bench.writer.state()["dropped"] == 3
    assert len(warnings) == 1
    bench.writer.flush()
    assert warnings[1:] == ["Records are written again; 3 were dropped"]
    assert [bench.put() for _ in range(3)] == [True, True, False]
    bench.writer.flush()
    assert warnings[3:] == ["Records are written again; 1 were dropped"]


def test_dropping_ends_only_when_there_is_room(tmp_path: Path, warnings: list[str]) -> None:
    bench = Bench(tmp_path, max_records=4)
    for _ in range(5):
        bench.put()
    bench.writer._write_next()
    assert bench.put()
    assert not bench.put()
    assert len(warnings) == 1


def test_record_larger_than_the_queue_is_dropped(tmp_path: Path) -> None:
    assert not Bench(tmp_path, max_bytes=20).put(size=21)


def test_bytes_of_a_record_are_held_until_it_is_written(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_bytes=20)
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)

    bench.writer.start()
    bench.put(size=20, work=work)
    assert begun.wait(10)
    assert bench.writer.state()["queued"] == 1
    assert not bench.put(size=1)
    go_on.set()
    assert bench.writer.flush()
    assert bench.put(size=20)
    bench.writer.stop()


def test_disk_that_fails_is_told_once_and_again_when_it_works(tmp_path: Path, warnings: list[str]) -> None:
    place = tmp_path / "logs"
    place.write_text("in the way")
    bench = Bench(place)
    for _ in range(3):
        assert bench.put()
        bench.writer.flush()
    assert bench.writer.state()["failed"] == 3
    assert len(warnings) == 1
    assert "cannot be written" in warnings[0]
    place.unlink()
    bench.put()
    bench.writer.flush()
    assert warnings[1:] == [f"Records in {place} are written again: 3 lost"]
    assert bench.writer.state()["written"] == 1


def test_a_folder_that_cannot_be_written_is_told_at_the_start_with_what_to_do(
    tmp_path: Path, warnings: list[str]
) -> None:
    place = tmp_path / "logs"
    place.write_text("in the way")
    bench = Bench(place)
    bench.writer.start({"logging.folder": bench.folder, "other.folder": folder(tmp_path / "fine")})
    bench.wait_for(lambda: bool(bench.calls))
    bench.deliver()
    assert len(warnings) == 1
    assert warnings[0].startswith(
        f"Records in {place} cannot be written: Not a directory; logging.folder is "
    )
    assert "/var/log/llmproxyd" in warnings[0]
    bench.put()
    assert bench.writer.flush()
    bench.deliver()
    assert len(warnings) == 1
    place.unlink()
    bench.put()
    assert bench.writer.flush()
    bench.deliver()
    assert warnings[1:] == [f"Records in {place} are written again: 1 lost"]
    bench.writer.stop()


def test_full_disk_costs_the_record_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)

    def full(*args: object, **kwargs: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fchmod", full)
        bench.put()
        bench.writer.flush()
    assert names(tmp_path) == []
    bench.put()
    bench.writer.flush()
    assert names(tmp_path) == ["r1.log"]


def test_record_that_cannot_be_made_does_not_end_the_thread_and_tells_no_secret(
    tmp_path: Path, warnings: list[str]
) -> None:
    def work() -> None:
        raise KeyError("sk-secret")

    bench = Bench(tmp_path)
    bench.writer.start()
    bench.put(work=work)
    bench.put(stem="r2")
    assert bench.writer.flush()
    assert names(tmp_path) == ["r2.log"]
    assert warnings == []
    bench.deliver()
    assert "KeyError in work" in warnings[0]
    assert "sk-secret" not in "".join(warnings)
    bench.writer.stop()


def test_stop_writes_what_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.writer.start()
    for number in range(50):
        bench.put(stem=f"r{number}")
    stopped = bench.writer.stop()
    assert not bench.put()
    assert bench.writer.stop() is stopped
    bench.wait_for(lambda: bool(bench.calls))
    bench.deliver()
    assert stopped.called
    assert len(names(tmp_path)) == 50
    assert bench.clock.getDelayedCalls() == []


def test_stop_of_a_writer_that_never_started_writes_what_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.put()
    assert bench.writer.stop().called
    assert names(tmp_path) == ["r1.log"]


def test_stop_does_not_wait_for_a_disk_for_ever(tmp_path: Path, warnings: list[str]) -> None:
    bench = Bench(tmp_path)
    go_on = threading.Event()
    bench.writer.start()
    bench.put(work=lambda: go_on.wait(10) and None)
    bench.put(stem="r2")
    stopped = bench.writer.stop()
    bench.clock.advance(DEADLINE - 0.1)
    assert not stopped.called
    bench.clock.advance(0.1)
    assert stopped.called
    assert warnings == ["2 records of requests and errors could not be written in time"]
    go_on.set()
    bench.wait_for(lambda: bool(bench.calls))
    bench.deliver()
    assert len(warnings) == 1
