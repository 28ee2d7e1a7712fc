"""Files of lines: rotation, torn lines, files that move away, disks that are full."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxyd.observe.rotation import LineFile


def lines(*names: str) -> list[bytes]:
    return [f"{name}\n".encode() for name in names]


def read(path: Path) -> list[str]:
    return path.read_text().splitlines()


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file of this process may become larger than *size* bytes: the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o377])
def test_lines_are_appended_for_the_owner_alone_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    path = tmp_path / "a" / "b" / "events.jsonl"
    before = os.umask(mask)
    try:
        file = LineFile(path, max_bytes=1000, keep=1)
        assert file.append(lines("one", "two")) == 2
    finally:
        os.umask(before)
    file.append(lines("three"))
    assert read(path) == ["one", "two", "three"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_file_that_was_there_is_gone_on_with_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old\n")
    path.chmod(0o640)
    LineFile(path, max_bytes=1000, keep=1).append(lines("new"))
    assert read(path) == ["old", "new"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_full_file_is_moved_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "f"
    file = LineFile(path, max_bytes=8, keep=2)
    for number in range(9):
        file.append(lines(f"l{number}x"))
    assert [read(tmp_path / name) for name in ("f", "f.1", "f.2")] == [
        ["l8x"],
        ["l6x", "l7x"],
        ["l4x", "l5x"],
    ]
    assert len(list(tmp_path.iterdir())) == 3


def test_one_call_may_fill_several_files(tmp_path: Path) -> None:
    path = tmp_path / "f"
    assert LineFile(path, max_bytes=8, keep=9).append(lines(*[f"l{number}x" for number in range(5)])) == 5
    assert [read(tmp_path / name) for name in ("f.2", "f.1", "f")] == [
        ["l0x", "l1x"],
        ["l2x", "l3x"],
        ["l4x"],
    ]


def test_line_longer_than_a_file_may_be_has_one_of_its_own(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "f", max_bytes=8, keep=9)
    file.append(lines("a", "b" * 50, "c"))
    assert [read(tmp_path / name) for name in ("f.2", "f.1", "f")] == [["a"], ["b" * 50], ["c"]]


def test_none_kept_means_none(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "f", max_bytes=8, keep=0)
    for number in range(5):
        file.append(lines(f"l{number}x"))
    assert [one.name for one in tmp_path.iterdir()] == ["f"]
    assert read(tmp_path / "f") == ["l4x"]


def test_gap_among_the_rotated_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "f.3").write_text("old\n")
    file = LineFile(tmp_path / "f", max_bytes=4, keep=3)
    file.append(lines("a1x", "a2x"))
    assert {one.name for one in tmp_path.iterdir()} == {"f", "f.1", "f.3"}


@pytest.mark.parametrize("torn", ["half of a li", '{"a": 1}', "\0\0\0"])
def test_torn_last_line_gets_its_end(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "f"
    path.write_text(f"whole\n{torn}")
    file = LineFile(path, max_bytes=1000, keep=1)
    file.append(lines("new"))
    file.append(lines("newer"))
    assert path.read_text() == f"whole\n{torn}\nnew\nnewer\n"


def test_torn_line_of_a_full_file_moves_with_it(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("whole\ntorn")
    LineFile(tmp_path / "f", max_bytes=12, keep=1).append(lines("new"))
    assert (tmp_path / "f").read_text() == "new\n"
    assert (tmp_path / "f.1").read_text() == "whole\ntorn"


@pytest.mark.parametrize("away", ["moved", "removed", "replaced"])
def test_file_that_was_taken_away_is_made_anew(tmp_path: Path, away: str) -> None:
    path = tmp_path / "f"
    file = LineFile(path, max_bytes=1000, keep=1)
    file.append(lines("one"))
    if away == "removed":
        path.unlink()
    else:
        path.rename(tmp_path / "archive")
    if away == "replaced":
        path.write_text("of logrotate\n")
    file.append(lines("two"))
    assert read(path) == (["of logrotate"] if away == "replaced" else []) + ["two"]


def test_file_that_was_truncated_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "f"
    file = LineFile(path, max_bytes=1000, keep=1)
    file.append(lines("one"))
    os.truncate(path, 0)
    file.append(lines("two"))
    assert path.read_bytes() == b"two\n"


def test_folder_that_was_taken_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "d" / "f"
    file = LineFile(path, max_bytes=1000, keep=1)
    file.append(lines("one"))
    path.parent.rename(tmp_path / "gone")
    file.append(lines("two"))
    assert read(path) == ["two"]


@pytest.mark.parametrize("size", [0, 6, 7, 11])
def test_full_disk_leaves_whole_lines_and_the_rest_can_follow(tmp_path: Path, size: int) -> None:
    path = tmp_path / "f"
    file = LineFile(path, max_bytes=1000, keep=1)
    file.append(lines("first"))
    with room(size), pytest.raises(OSError, match="File too large"):
        file.append(lines("second", "third"))
    assert path.read_text() == "first\n"
    assert file.append(lines("second", "third")) == 2
    assert read(path) == ["first", "second", "third"]


def test_what_could_not_be_cut_off_again_becomes_a_line_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    file = LineFile(path, max_bytes=1000, keep=1)
    file.append(lines("first"))
    with monkeypatch.context() as broken, room(10):
        broken.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="File too large"):
            file.append(lines("second"))
    file.append(lines("third"))
    assert read(path) == ["first", "seco", "third"]


def test_what_fitted_before_the_disk_was_full_is_told(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "f", max_bytes=8, keep=9)
    # The second file cannot hold its first line.
    (tmp_path / "f.1").mkdir()
    (tmp_path / "f.1" / "x").touch()
    with room(8):
        assert file.append(lines("l0x", "l1x")) == 2
    with room(4):
        assert LineFile(tmp_path / "g", max_bytes=4, keep=9).append(lines("abc", "abcdefgh")) == 1
    assert read(tmp_path / "g.1") == ["abc"]


def test_file_that_cannot_be_rotated_grows_on_and_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "f.1"
    blocked.mkdir()
    (blocked / "x").touch()
    file = LineFile(tmp_path / "f", max_bytes=8, keep=1)
    for number in range(5):
        file.append(lines(f"l{number}x"))
    assert file.stuck is not None
    assert len(read(tmp_path / "f")) == 5
    (blocked / "x").unlink()
    blocked.rmdir()
    file.append(lines("new"))
    assert file.stuck is None
    assert read(tmp_path / "f") == ["new"]
    assert len(read(blocked)) == 5


def test_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    (tmp_path / "f").symlink_to(victim)
    with pytest.raises(OSError):
        LineFile(tmp_path / "f", max_bytes=1000, keep=1).append(lines("x"))
    assert victim.read_text() == "mine\n"


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError) as caught:
            LineFile(tmp_path / name, max_bytes=1000, keep=1).append(lines("x"))
        assert caught.value.strerror


def test_tail_of_a_file_that_was_just_rotated_is_that_of_the_one_before(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "f", max_bytes=1000, keep=1)
    assert file.tail(100) == b""
    (tmp_path / "f.1").write_text("one\ntwo\n")
    assert file.tail(4) == b"two\n"
    file.append(lines("three"))
    assert file.tail(100) == b"three\n"
    assert file.tail(3) == b"ee\n"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), max_size=8),
    st.integers(8, 60),
    st.integers(0, 40),
)
def test_no_line_is_lost_doubled_or_out_of_order(calls: list[list[int]], max_bytes: int, size: int) -> None:
    """Whatever the sizes, and whenever the disk is full for a while."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        file = LineFile(folder / "f", max_bytes=max_bytes, keep=50)
        sent: list[str] = []
        for turn, lengths in enumerate(calls):
            batch = [f"{len(sent) + place}".ljust(length, "x") for place, length in enumerate(lengths)]
            sent += batch
            left = lines(*batch)
            if turn % 2:
                with suppress(OSError), room(size):
                    left = left[file.append(left) :]
            while left:
                left = left[file.append(left) :]
        file.close()
        files = [folder / f"f.{number}" for number in range(50, 0, -1)] + [folder / "f"]
        assert [line for one in files if one.exists() for line in read(one)] == sent


WRITE = """
import sys
from pathlib import Path
from llmproxyd.observe.rotation import LineFile
file = LineFile(Path(sys.argv[1]), max_bytes=20_000, keep=1000)
number = 0
while True:
    file.append([(b'{"number": %d, "text": "' % (number + one)) + b"x" * 700 + b'"}\\n' for one in range(5)])
    number += 5
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [0.01, 0.03, 0.07])
def test_killed_at_any_moment_it_leaves_readable_lines(tmp_path: Path, after: float) -> None:
    path = tmp_path / "f"
    writer = subprocess.Popen([sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(after)
    os.kill(writer.pid, signal.SIGKILL)
    said = writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()
    LineFile(path, max_bytes=10**6, keep=1).append([b'{"number": -1}\n'])
    files = [path, *(path.with_name(f"f.{number}") for number in range(1, 1000))]
    got = []
    torn = 0
    for one in reversed([one for one in files if one.exists()]):
        for line in one.read_bytes().split(b"\n")[:-1]:
            try:
                got.append(json.loads(line)["number"])
            except ValueError:
                torn += 1
    assert torn <= 1
    assert got[-1] == -1
    assert got[:-1] == list(range(len(got) - 1))
    assert len(got) - 1 >= int(said[-1] if said else 0)
