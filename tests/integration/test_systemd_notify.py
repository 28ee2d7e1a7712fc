"""The daemon as a service: what it tells a service manager, and the sockets that it takes from one."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

TWISTD = Path(sys.executable).with_name("twistd")
PATIENCE = 30.0
FIRST = 3

WRAPPER = """\
import os, sys
numbers = [int(one) for one in sys.argv[1].split(",") if one]
spare = [os.dup2(number, 200 + at) for at, number in enumerate(numbers)]
for at, number in enumerate(spare):
    os.dup2(number, 3 + at)
    os.close(number)
os.environ["WATCHDOG_PID"] = os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What systemd does between fork and exec: the numbers of the descriptors, and whom they are for."""


class Manager:
    """A service manager with one service."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.bind(str(folder / "notify"))
        self.channel.settimeout(PATIENCE)
        self.heard: list[dict[str, str]] = []

    @contextmanager
    def service(
        self,
        text: str,
        sockets: Sequence[socket.socket] = (),
        *,
        watchdog: float = 0.0,
        arguments: Sequence[str] = (),
    ) -> Iterator[subprocess.Popen[bytes]]:
        """The daemon with the configuration *text*."""
        file = self.folder / "llmproxyd.yaml"
        file.write_text(text)
        log = (self.folder / "log").open("ab")
        kept = {name: os.environ[name] for name in ("PATH", "COVERAGE_PROCESS_START") if name in os.environ}
        environ = {**kept, "HOME": str(self.folder), "LC_ALL": "C.UTF-8", "STATE_DIRECTORY": str(self.folder)}
        environ |= {"NOTIFY_SOCKET": str(self.folder / "notify")}
        if watchdog:
            environ["WATCHDOG_USEC"] = str(int(watchdog * 1_000_000))
        if sockets:
            environ |= {
                "LISTEN_FDS": str(len(sockets)),
                "LISTEN_FDNAMES": ":".join(["llmproxyd.socket"] * len(sockets)),
            }
        numbers = ",".join(str(one.fileno()) for one in sockets)
        command = [sys.executable, "-c", WRAPPER, numbers, str(TWISTD), "-n", "llmproxy"]
        process = subprocess.Popen(
            [*command, "--no-stdin", "--sandbox", "--config", str(file), *arguments],
            env=environ,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[one.fileno() for one in sockets],
        )
        try:
            yield process
        finally:
            log.close()
            if process.poll() is None:
                process.kill()
            process.wait()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def hear(self, wanted: Callable[[Mapping[str, str]], object]) -> dict[str, str]:
        """The next message that is *wanted*; those before it are in :attr:`heard`."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                message = self.channel.recv(65536).decode()
            except TimeoutError:
                break
            found = dict(line.split("=", 1) for line in message.split("\n"))
            self.heard.append(found)
            if wanted(found):
                return found
        raise AssertionError(f"never heard; heard {self.heard}; the log:\n{self.log}")

    def silence(self) -> None:
        """Nothing is said for longer than signs of life are apart, once what was said is read."""
        self.channel.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.channel.recv(65536)
        self.channel.settimeout(0.6)
        with pytest.raises(TimeoutError):
            self.channel.recv(65536)


@pytest.fixture
def manager() -> Iterator[Manager]:
    with tempfile.TemporaryDirectory(prefix="sd-") as name:
        found = Manager(Path(name))
        yield found
        found.channel.close()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 0))
        one.listen(128)
        yield one


def get(port: int, path: str = "/health") -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        client.request("GET", path)
        return client.getresponse().status
    finally:
        client.close()


ANY_PORT = 'listen: ["tcp:0:interface=127.0.0.1"]\n'
ADOPTED = 'listen: ["systemd:domain=INET:index=0"]\n'


def test_it_says_that_it_is_ready_once_clients_are_let_in_and_that_it_stops(manager: Manager) -> None:
    with manager.service(ANY_PORT + "server: {drain_timeout: 7s}\n") as process:
        ready = manager.hear(lambda one: "READY" in one)
        assert "READY" not in str(manager.heard[:-1])
        place = ready["STATUS"].split("http://127.0.0.1:")[1]
        port = int("".join(one for one in place.split(";")[0] if one.isdigit()))
        assert get(port) == 200
        process.send_signal(signal.SIGTERM)
        stopping = manager.hear(lambda one: "STOPPING" in one)
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) >= 7_000_000
        assert process.wait(PATIENCE) == 0


def test_a_service_with_a_store_is_ready_when_the_store_is_migrated(manager: Manager) -> None:
    with manager.service(ANY_PORT + "access: {enabled: true}\nadmin: {token: 0123456789abcdef0123}\n"):
        manager.hear(lambda one: "READY" in one)
        assert (manager.folder / "llmproxyd.db").exists()
        import sqlite3

        with sqlite3.connect(manager.folder / "llmproxyd.db") as store:
            assert store.execute("select count(*) from sqlite_master").fetchone()[0] > 0


def test_signs_of_life_come_until_the_process_is_stopped_in_its_tracks(manager: Manager) -> None:
    with manager.service(ANY_PORT, watchdog=0.4) as process:
        manager.hear(lambda one: "READY" in one)
        began = time.monotonic()
        for _ in range(5):
            manager.hear(lambda one: "WATCHDOG" in one)
        assert 0.5 < time.monotonic() - began < 5
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        manager.silence()
        process.send_signal(signal.SIGCONT)
        manager.channel.settimeout(PATIENCE)
        manager.hear(lambda one: "WATCHDOG" in one)


def test_a_reload_is_told_from_its_beginning_to_its_end(manager: Manager) -> None:
    with manager.service(ANY_PORT) as process:
        manager.hear(lambda one: "READY" in one)
        for text in (ANY_PORT + "timeouts: {idle: 10s}\n", "nonsense: true\n"):
            (manager.folder / "llmproxyd.yaml").write_text(text)
            process.send_signal(signal.SIGHUP)
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            began = manager.hear(lambda one: "RELOADING" in one)
            assert abs(int(began["MONOTONIC_USEC"]) - before) < PATIENCE * 1_000_000
            manager.hear(lambda one: "READY" in one)
        assert process.poll() is None


def test_a_socket_that_is_handed_over_is_listened_on(manager: Manager, listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    with manager.service(ADOPTED, [listening]):
        manager.hear(lambda one: "READY" in one)
        assert get(port) == 200
    assert "which listen does not use" not in manager.log


def test_a_socket_that_nobody_listens_on_is_told(manager: Manager, listening: socket.socket) -> None:
    with manager.service(ANY_PORT, [listening]):
        manager.hear(lambda one: "READY" in one)
    assert (
        f"systemd handed over 127.0.0.1:{listening.getsockname()[1]} (index 0, llmproxyd.socket)"
        in manager.log
    )


def test_clients_that_connect_between_two_daemons_are_answered_by_the_second(
    manager: Manager, listening: socket.socket
) -> None:
    port = listening.getsockname()[1]
    with manager.service(ADOPTED, [listening]) as process:
        manager.hear(lambda one: "READY" in one)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.settimeout(PATIENCE)
        client.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        with manager.service(ADOPTED, [listening]):
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_daemon_that_cannot_start_never_says_that_it_is_ready(manager: Manager) -> None:
    with manager.service("listen: []\n") as process:
        assert process.wait(PATIENCE) == 1
    manager.channel.settimeout(0.1)
    with pytest.raises(AssertionError, match="never heard; heard \\[\\]"):
        manager.hear(lambda one: True)
