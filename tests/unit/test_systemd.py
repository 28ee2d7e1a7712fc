"""What systemd is told, when, and that nothing happens where it is not there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from llmproxyd import systemd
from llmproxyd.systemd import LONGEST, MARGIN, Systemd, handed_over

ROOT = Path(__file__).parents[2]
PID = 4711


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket's address takes about a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="sd-") as name:
        yield Path(name)


@pytest.fixture
def manager(folder: Path) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(folder / "notify"))
        found.setblocking(False)
        yield found


def said(manager: socket.socket) -> list[dict[str, str]]:
    """The messages that were sent so far."""
    found = []
    while True:
        try:
            message = manager.recv(65536).decode()
        except BlockingIOError:
            return found
        found.append(dict(line.split("=", 1) for line in message.split("\n")))


def environ(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(manager.getsockname()), **more}


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    found: list[LogEvent] = []
    globalLogPublisher.addObserver(found.append)
    yield found
    globalLogPublisher.removeObserver(found.append)


# What is said.


def test_each_state_is_told_in_one_message(manager: socket.socket) -> None:
    told = Systemd(environ(manager), Clock(), pid=PID, monotonic=lambda: 12.3456789)
    told.ready("Listening on http://127.0.0.1:8888")
    told.status("3 requests")
    told.reloading()
    told.ready("Listening")
    told.stopping(30.0)
    assert said(manager) == [
        {"READY": "1", "STATUS": "Listening on http://127.0.0.1:8888"},
        {"STATUS": "3 requests"},
        {"RELOADING": "1", "MONOTONIC_USEC": "12345678", "STATUS": "Reloading"},
        {"READY": "1", "STATUS": "Listening"},
        {"STOPPING": "1", "STATUS": "Stopping", "EXTEND_TIMEOUT_USEC": str(int((30 + MARGIN) * 1e6))},
    ]


def test_a_reload_is_dated_by_the_clock_that_systemd_reads(manager: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Systemd(environ(manager), Clock()).reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert before - 1 <= int(said(manager)[0]["MONOTONIC_USEC"]) <= after


@pytest.mark.skipif(sys.platform != "linux", reason="the abstract namespace of sockets is Linux's")
def test_an_abstract_socket_is_reached() -> None:
    name = f"llmproxyd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        manager.setblocking(False)
        Systemd({"NOTIFY_SOCKET": "@" + name}, Clock()).status("here")
        assert said(manager) == [{"STATUS": "here"}]


@given(st.text())
def test_a_status_is_one_line_whatever_stands_in_it(text: str) -> None:
    line = systemd._line(text)
    assert len(line.splitlines()) <= 1
    assert len(line) <= LONGEST


def test_a_status_cannot_pass_for_another_message(manager: socket.socket) -> None:
    told = Systemd(environ(manager), Clock())
    told.status("a\nSTOPPING=1\r\nMAINPID=1\x00\ud800")
    assert [set(one) for one in said(manager)] == [{"STATUS"}]


# Where nobody listens.


@pytest.mark.parametrize(
    "address", ["", "nonsense", "vsock:2:1234", "/nonexistent/notify", "/" + "x" * 200, "@" + "y" * 200]
)
def test_a_manager_that_is_not_there_is_no_reason_to_fail(address: str) -> None:
    clock = Clock()
    told = Systemd({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"}, clock)
    told.start_watchdog()
    told.ready("x")
    told.status("x")
    told.reloading()
    told.stopping()
    clock.pump([1.0] * 5)
    told.stop()


def test_without_a_manager_nothing_is_sent_nor_timed(logged: list[LogEvent]) -> None:
    clock = Clock()
    told = Systemd({"WATCHDOG_USEC": "2000000"}, clock)
    told.start_watchdog()
    told.ready("x")
    assert clock.getDelayedCalls() == []
    assert told.watched is None
    assert told.sockets == ()
    assert told.unused(["tcp:8888"]) is None
    assert logged == []


def test_that_it_cannot_be_told_is_logged_once(logged: list[LogEvent]) -> None:
    told = Systemd({"NOTIFY_SOCKET": "/nonexistent/notify"}, Clock())
    told.ready("x")
    told.status("x")
    assert len(logged) == 1


def test_a_manager_that_does_not_read_holds_nothing_up(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "PATIENCE", 0.05)
    told = Systemd(environ(manager), Clock())
    began = time.monotonic()
    for _ in range(2000):
        told.status("x" * 400)
    told.stopping()
    assert time.monotonic() - began < 3
    assert len(said(manager)) < 2000


def test_no_descriptor_is_left_open(manager: socket.socket) -> None:
    told = Systemd(environ(manager), Clock())
    before = len(os.listdir("/dev/fd"))
    for _ in range(50):
        told.status("x")
    assert len(os.listdir("/dev/fd")) == before


# The watchdog.


def test_signs_of_life_come_twice_as_often_as_asked_for(manager: socket.socket) -> None:
    clock = Clock()
    told = Systemd(environ(manager, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(PID)), clock, pid=PID)
    assert told.watched == 30.0
    assert said(manager) == []
    told.start_watchdog()
    told.start_watchdog()
    assert said(manager) == [{"WATCHDOG": "1"}]
    clock.pump([5.0] * 12)
    assert len(said(manager)) == 4
    told.stop()
    told.stop()
    clock.pump([15.0] * 4)
    assert said(manager) == []


@pytest.mark.parametrize("pid", [str(PID + 1), "", "x"])
def test_a_watchdog_of_another_process_is_not_fed(manager: socket.socket, pid: str) -> None:
    clock = Clock()
    told = Systemd(environ(manager, WATCHDOG_USEC="30000000", WATCHDOG_PID=pid), clock, pid=PID)
    told.start_watchdog()
    clock.pump([15.0] * 4)
    assert said(manager) == []


def test_a_watchdog_without_a_pid_is_ours(manager: socket.socket) -> None:
    assert Systemd(environ(manager, WATCHDOG_USEC="500000"), Clock(), pid=PID).watched == 0.5


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "1e6", "9" * 30, "٣", " 5"])
def test_a_watchdog_that_makes_no_sense_is_none(manager: socket.socket, text: str) -> None:
    assert Systemd(environ(manager, WATCHDOG_USEC=text), Clock(), pid=PID).watched is None


def test_a_loop_that_is_stuck_gives_no_sign_of_life(manager: socket.socket) -> None:
    # The clock is the reactor's: what does not turn it says nothing.
    clock = Clock()
    told = Systemd(environ(manager, WATCHDOG_USEC="100000"), clock, pid=PID)
    told.start_watchdog()
    said(manager)
    time.sleep(0.3)
    assert said(manager) == []


# Sockets.

LISTENER = """\
import json, os, socket, sys
from dataclasses import astuple
sys.path.insert(0, sys.argv[1])
from llmproxyd.systemd import FIRST, Systemd
kinds, names = sys.argv[2].split(","), sys.argv[3]
made = []
for kind in kinds:
    if kind == "tcp":
        one = socket.socket(); one.bind(("127.0.0.1", 0)); one.listen()
    elif kind == "unix":
        one = socket.socket(socket.AF_UNIX); one.bind(sys.argv[4]); one.listen()
    elif kind == "datagram":
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); one.bind(("127.0.0.1", 0))
    elif kind == "file":
        one = open(os.devnull)
    made.append(one)
numbers = [os.dup(one.fileno()) for one in made]
for at, number in enumerate(numbers):
    os.dup2(number, 100 + at)
for at in range(len(numbers)):
    os.dup2(100 + at, FIRST + at)
os.environ["LISTEN_FDS"], os.environ["LISTEN_FDNAMES"] = str(len(kinds)), names
os.environ["LISTEN_PID"] = str(os.getpid())
class Reactor: pass
told = Systemd(dict(os.environ), Reactor())
again = Systemd({"LISTEN_FDNAMES": names}, Reactor())
print(json.dumps({
    "sockets": [astuple(one)[:3] for one in told.sockets],
    "addresses": [one.address for one in told.sockets],
    "same": told.sockets == again.sockets,
    "unused": [told.unused([]), told.unused(["systemd:domain=INET:index=0"]), told.unused(["systemd:domain=INET:name=web"])],
}))
"""


def listener(kinds: str, names: str, path: Path) -> dict:
    import json

    found = subprocess.run(
        [sys.executable, "-c", LISTENER, str(ROOT), kinds, names, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_sockets_are_told_by_place_name_and_address(folder: Path) -> None:
    told = listener("tcp,unix", "web:local", folder / "x")
    assert told["sockets"] == [[0, "web", "INET"], [1, "local", "UNIX"]]
    assert told["addresses"][0].startswith("127.0.0.1:")
    assert told["addresses"][1] == str(folder / "x")
    # Twisted takes the other two variables away when it is imported.
    assert told["same"]


def test_what_is_no_listening_socket_is_left_out_and_counts_as_a_place(folder: Path) -> None:
    told = listener("datagram,file,tcp", "a:b:c", folder / "x")
    assert told["sockets"] == [[2, "c", "INET"]]


def test_sockets_that_no_endpoint_takes_are_told(folder: Path) -> None:
    told = listener("tcp,unix", "web:web", folder / "x")
    everything, second, neither = told["unused"]
    assert everything.startswith("systemd handed over 127.0.0.1:")
    assert everything.endswith(
        'which listen does not use; accepted: listen: ["systemd:domain=INET:index=0", "systemd:domain=UNIX:index=1"]'
    )
    assert "index 0" not in second
    assert neither is None


def test_more_names_than_descriptors_do_no_harm(folder: Path) -> None:
    # Its own descriptors may stand further up.
    assert listener("tcp", ":".join("x" * 2000), folder / "x")["sockets"][0] == [0, "x", "INET"]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"LISTEN_FDNAMES": ""},
        {"LISTEN_FDNAMES": "a", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "3", "LISTEN_PID": str(PID)},
    ],
)
def test_what_is_not_for_us_is_not_looked_at(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "_listening", lambda names: pytest.fail("looked at") if names else ())
    assert handed_over(variables, PID) == ()


def test_looking_at_a_socket_closes_nothing() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(systemd, "FIRST", one.fileno())
            for _ in range(3):
                assert [found.domain for found in handed_over({"LISTEN_FDNAMES": "a"}, PID)] == ["INET"]
        assert one.getsockname()[1]
