"""``llmproxyctl top`` on a terminal: what it shows, what keys do, and how it leaves the terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pyte
import pytest
import raw
from daemon import PATIENCE, Daemon, environment

CTL = (sys.executable, "-m", "llmproxyd.admin.ctl")
CHAT = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}).encode()


class Screen:
    """A terminal with ``top`` in it, as somebody before it sees it."""

    def __init__(
        self, folder: Path, socket: Path, *arguments: str, columns: int = 100, lines: int = 30
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        env = environment(folder, {"TERM": "xterm-256color"})
        command = [*CTL[1:], "--socket", str(socket), "top", "--interval", "200ms", *arguments]
        self.child = pexpect.spawn(CTL[0], command, env=env, dimensions=(lines, columns), timeout=PATIENCE)
        self.before = termios.tcgetattr(self.child.child_fd)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def read(self) -> None:
        try:
            data = self.child.read_nonblocking(65536, timeout=0.05)
        except pexpect.TIMEOUT:
            return
        except pexpect.EOF:
            return
        self.raw += data
        self._stream.feed(data)

    def until(self, look: Callable[[str], object]) -> str:
        ends = time.monotonic() + PATIENCE
        while not look(self.text):
            assert time.monotonic() < ends, self.text
            self.read()
        return self.text

    def shows(self, pattern: str) -> str:
        return self.until(re.compile(pattern, re.MULTILINE).search)

    def ended(self) -> int:
        """Its exit status (negative for a signal), once all that it wrote is read."""
        ends = time.monotonic() + PATIENCE
        while self.child.isalive() or self.child.flag_eof is False:
            assert time.monotonic() < ends, self.text
            try:
                data = self.child.read_nonblocking(65536, timeout=0.2)
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                break
            self.raw += data
            self._stream.feed(data)
        self.child.wait() if self.child.isalive() else None
        if self.child.exitstatus is not None:
            return int(self.child.exitstatus)
        return -int(self.child.signalstatus)

    def gave_back(self) -> bool:
        """Whether the terminal is as it was: the first screen, a cursor."""
        return (
            self.raw.count(b"\x1b[?1049h") == self.raw.count(b"\x1b[?1049l")
            and self.raw.count(b"\x1b[?25l") == self.raw.count(b"\x1b[?25h")
            and self.raw.rindex(b"\x1b[?1049l") > self.raw.rindex(b"\x1b[?1049h")
        )

    def close(self) -> None:
        self.child.close(force=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Path]]:
    folder = tmp_path_factory.mktemp("top")
    socket = folder / "admin.sock"
    settings = folder / "llmproxyd.yaml"
    settings.write_text(
        f'admin: {{listen: "unix:{socket}:mode=600"}}\n'
        "sandbox: {enabled: true, tokens_per_second: 1}\n"
        "cache: {enabled: true}\n"
        "resilience: {default: {breaker: {enabled: true}}}\n"
    )
    settings.chmod(0o600)
    with Daemon("--config", str(settings), stdin="null") as daemon:
        yield daemon, socket


@pytest.fixture
def daemon(served: tuple[Daemon, Path]) -> Daemon:
    return served[0]


@pytest.fixture
def top(served: tuple[Daemon, Path], tmp_path: Path) -> Iterator[Screen]:
    one = Screen(tmp_path, served[1])
    yield one
    one.close()


def chat(daemon: Daemon, *, stream: bool = False) -> raw.Connection:
    body = json.dumps({**json.loads(CHAT), "stream": stream}).encode()
    connection = raw.Connection(daemon.port)
    connection.send_request("POST", "/v1/chat/completions", body)
    return connection


def test_it_shows_requests_upstreams_and_the_mode(daemon: Daemon, top: Screen) -> None:
    top.shows(r"^llmproxyd .* up ")
    for _ in range(5):
        with chat(daemon) as one:
            one.answer()
    top.shows(r"^  openai +enabled +0 +[1-9.]+ +0.0 % +closed +ok")
    text = top.shows(r"^mode +No error")
    assert re.search(r"^REQUESTS/S +P50 +P95 +ERRORS +UNDER WAY +STREAMS +CONNECTIONS +CACHE HITS", text, re.M)
    assert re.search(r"POST +/v1/chat/completions +openai", text)
    assert text.splitlines()[-1].startswith("n c r u mode")
