"""``llmproxyctl top`` on a terminal: what it shows, what keys do, and how it leaves the terminal."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pyte
import pytest
import raw
from daemon import PATIENCE, Daemon, environment

from llmproxyd.admin.client import Client, Place

CTL = (sys.executable, "-m", "llmproxyd.admin.ctl")


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
        while self.child.isalive():
            assert time.monotonic() < ends, self.text
            self.read()
        for _ in range(3):
            self.read()
        status, number = self.child.exitstatus, self.child.signalstatus
        return int(status) if status is not None else -int(number)

    def gave_back(self) -> bool:
        """Whether the terminal is as it was: its first screen, a cursor, lines and echo."""
        return (
            self.raw.count(b"\x1b[?1049h") == self.raw.count(b"\x1b[?1049l") > 0
            and self.raw.count(b"\x1b[?25l") == self.raw.count(b"\x1b[?25h")
            and termios.tcgetattr(self.child.child_fd)[:4] == self.before[:4]
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


@pytest.fixture(autouse=True)
def _passing(daemon: Daemon, served: tuple[Daemon, Path]) -> None:
    """Everything passes at first, and no upstream is drained."""
    client = Client(Place(sockets=[served[1]]))
    for line in ("n", "upstream enable openai"):
        client.call("POST", "faults", body={"command": line})


def test_it_shows_requests_upstreams_and_the_mode(daemon: Daemon, top: Screen) -> None:
    top.shows(r"^llmproxyd .* up ")
    for _ in range(5):
        assert raw.openai(daemon.url).status == 200
    top.shows(r"^  openai +enabled +0 +[0-9.]+ +0.0 % +closed +ok")
    text = top.shows(r"^mode +No error")
    heads = r"^ *REQUESTS/S +P50 +P95 +ERRORS +UNDER WAY +STREAMS +CONNECTIONS +CACHE HITS"
    assert re.search(heads, text, re.MULTILINE)
    assert re.search(r"^ +[0-9.]+ +[0-9]+ ms +[0-9]+ ms +0.0 %", text, re.MULTILINE)
    assert re.search(r"POST +/v1/chat/completions +openai", text)
    assert text.splitlines()[-1].startswith("n c r u mode")


def test_streams_that_are_open_are_counted(daemon: Daemon, top: Screen) -> None:
    connection = raw.connect(daemon.url)
    body = json.dumps({**raw.CHAT, "stream": True}).encode()
    fields = {"Authorization": "Bearer sk-x", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", body, fields)
    answer = connection.getresponse()
    assert answer.read(6) == b"data: "
    top.shows(r"^ +[0-9.]+ .* 1 +1 +[0-9]+ +(-|[0-9.]+ %)$")
    connection.close()
    top.shows(r"^ +[0-9.]+ .* 0 +0 +[0-9]+ +(-|[0-9.]+ %)$")


def test_keys_set_the_mode(daemon: Daemon, top: Screen) -> None:
    top.shows("^mode +No error")
    top.child.send("r")
    top.shows("^mode +Rate limit.*next 1 request")
    assert raw.openai(daemon.url).status == 429
    top.shows("^mode +No error")
    for key, words in (("c", "Context length"), ("u", "[Ss]erver error"), ("n", "No error")):
        top.child.send(key)
        top.shows(f"^mode +.*{words}")


def test_an_upstream_is_selected_drained_and_enabled(daemon: Daemon, top: Screen) -> None:
    assert raw.openai(daemon.url).status == 200
    top.shows("^  openai +enabled")
    top.child.send("d")
    top.shows("^Select an upstream to drain")
    top.child.send("\x1b[B")
    top.shows("^> openai +enabled")
    top.child.send("d")
    top.shows("^> openai +drained")
    assert raw.openai(daemon.url).status == 503
    top.child.send("e")
    top.shows("^> openai +enabled")
    top.child.send("\x1b[B")
    top.shows("^  openai")
    top.child.send("\x1b[A")
    top.shows("^> openai")


def test_it_goes_by_the_size_of_the_terminal(top: Screen) -> None:
    top.shows("^llmproxyd")
    top.screen.resize(12, 40)
    top.child.setwinsize(12, 40)
    top.shows("^  and [0-9]+ more")
    top.until(lambda text: text.splitlines()[-1].startswith("n c r u mode"))
    for _ in range(25):
        top.child.send("j")
    top.shows("^> xai")
    top.screen.resize(40, 120)
    top.child.setwinsize(40, 120)
    top.until(lambda text: re.search("^> xai", text, re.M) and "more" not in text)
    top.child.send("q")
    assert top.ended() == 0


@pytest.mark.parametrize(
    ("leave", "status"),
    [
        (lambda child: child.send("q"), 0),
        (lambda child: child.send("\x03"), 130),
        (lambda child: child.kill(signal.SIGTERM), 128 + signal.SIGTERM),
        (lambda child: child.kill(signal.SIGHUP), 128 + signal.SIGHUP),
    ],
    ids=["q", "Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_the_terminal_is_given_back(top: Screen, leave: Callable[[Any], object], status: int) -> None:
    top.shows("^llmproxyd")
    assert not top.gave_back()
    leave(top.child)
    assert top.ended() == status
    assert top.gave_back()
    assert b"Traceback" not in top.raw


def test_a_daemon_that_ends_is_told_on_the_terminal_as_it_was(tmp_path: Path) -> None:
    socket, settings = tmp_path / "admin.sock", tmp_path / "llmproxyd.yaml"
    settings.write_text(f'admin: {{listen: "unix:{socket}:mode=600"}}\n')
    with Daemon("--config", str(settings), stdin="null") as daemon:
        top = Screen(tmp_path, socket)
        try:
            top.shows("^llmproxyd")
            assert daemon.stop() == 0
            assert top.ended() == 3
            assert top.gave_back()
            assert "no daemon answers" in top.text
        finally:
            top.close()


def test_it_is_suspended_and_goes_on(served: tuple[Daemon, Path], tmp_path: Path) -> None:
    top = Screen.__new__(Screen)
    top.screen = pyte.Screen(100, 30)
    top._stream = pyte.ByteStream(top.screen)
    top.raw = b""
    env = environment(tmp_path, {"TERM": "xterm-256color", "PS1": "$ "})
    top.child = pexpect.spawn("/bin/bash", ["--norc", "-i"], env=env, dimensions=(30, 100), timeout=PATIENCE)
    try:
        top.child.sendline(f"{' '.join(CTL)} --socket {served[1]} top --interval 200ms")
        top.shows("^llmproxyd")
        top.child.send("\x1a")
        top.shows("Stopped")
        top.child.sendline("echo back to the $((1 + 1))nd")
        top.shows("back to the 2nd")
        top.child.sendline("fg")
        top.shows("^llmproxyd")
        top.child.send("q")
        top.until(lambda text: top.raw.count(b"\x1b[?1049l") == 2)
        top.child.sendline("echo and a $((1 + 2))rd")
        top.shows("and a 3rd")
        assert top.raw.count(b"\x1b[?1049h") == top.raw.count(b"\x1b[?1049l") == 2
    finally:
        top.close()


def ctl(served: tuple[Daemon, Path], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CTL, "--socket", str(served[1]), "top", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(folder),
    )


def test_one_screen_needs_no_terminal(served: tuple[Daemon, Path], tmp_path: Path) -> None:
    done = ctl(served, tmp_path, "--once", "--interval", "100ms")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("llmproxyd ")
    assert "\x1b" not in done.stdout
    assert re.search("^  xai +enabled", done.stdout, re.MULTILINE)
    told = json.loads(ctl(served, tmp_path, "--once", "--interval", "100ms", "--json").stdout)
    assert told["mode"].startswith("No error")
    assert "openai" in [row["name"] for row in told["upstreams"]]
    assert isinstance(told["rate"], float)


def test_without_a_terminal_it_says_what_to_do(served: tuple[Daemon, Path], tmp_path: Path) -> None:
    for words, hint in (((), "--once"), (("--json",), "--once"), (("--interval", "1ms"), "100ms")):
        done = ctl(served, tmp_path, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert hint in done.stderr
