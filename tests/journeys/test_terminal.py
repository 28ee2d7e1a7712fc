"""The operator at a real terminal, as in the example session of the error proxy's users."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pyte
import pytest

TWISTD = str(Path(sys.executable).with_name("twistd"))
PROMPT = "Enter command: "


class Session:
    """A daemon on a pseudo-terminal of its own."""

    def __init__(self, folder: Path, *arguments: str, shell: bool = False, columns: int = 120) -> None:
        self.ready = folder / "ready"
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("LLMPROXYD_")
        } | {"TERM": "xterm", "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8", "PS1": "$ "}
        command = ["-n", "llmproxy", "--sandbox", "--port", "0", "--ready-file", str(self.ready), *arguments]
        self.command = " ".join([TWISTD, *command])
        program, words = ("/bin/sh", ["-i"]) if shell else (TWISTD, command)
        self.child = pexpect.spawn(
            program,
            words,
            env=environment,
            encoding="utf-8",
            timeout=20,
            dimensions=(50, columns),
            cwd=folder,
        )
        self.screen = pyte.Screen(columns, 50)
        self.child.logfile_read = self
        self._stream = pyte.Stream(self.screen)

    def write(self, text: str) -> None:
        self._stream.feed(text)

    def flush(self) -> None:
        """Everything is written at once."""

    @property
    def url(self) -> str:
        deadline = time.monotonic() + 20
        while not self.ready.exists():
            assert time.monotonic() < deadline, "never ready"
            time.sleep(0.02)
        return self.ready.read_text().strip()

    def ask(self, path: str = "/v1/chat/completions", key: str = "") -> tuple[int, dict[str, object]]:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "tell me a joke"}]}
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json", "authorization": f"Bearer {key}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def type(self, text: str) -> None:
        self.child.send(text + "\r")

    def shown(self) -> str:
        """The last line of the screen that is not empty."""
        return [line.rstrip() for line in self.screen.display if line.strip()][-1]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    found = Session(tmp_path)
    yield found
    found.child.close(force=True)


def test_the_whole_example_session(session: Session) -> None:
    child = session.child
    child.expect("llmproxyd ")
    child.expect(r"Listening on (http://127\.0\.0\.1:\d+)")
    for name in ("OPENAI_HOST", "ANTHROPIC_HOST", "GOOGLE_HOST", "OPENROUTER_HOST"):
        child.expect(f"export {name}=http://127.0.0.1:")
    child.expect("Current mode: ✅ No error")
    child.expect("Requests handled: 0")
    child.expect(PROMPT)
    session.type("r")
    child.expect(r"Current mode: .*Rate limit exceeded \(next 1 request, for 8h more\)")
    child.expect("Requests handled: 0")
    child.expect("Clients retry this error by themselves")
    child.expect(PROMPT)
    status, body = session.ask(key="sk-canary-7f")
    assert status == 429
    assert body["error"]["code"] == "rate_limit_exceeded"  # type: ignore[index]
    child.expect(r"#1 POST /v1/chat/completions -> openai")
    child.expect(r"429 .*injected rate_limit")
    session.type("n")
    child.expect("Current mode: ✅ No error")
    child.expect("Requests handled: 1")
    assert session.ask(key="sk-canary-7f")[0] == 200
    child.expect(r"#2 POST /v1/chat/completions -> openai")
    child.expect(r"#2 .* 200 in \d+ ms")
    session.type("q")
    child.expect("Stopping")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "sk-canary-7f" not in child.before
    assert "joke" not in child.before


def test_log_lines_leave_a_half_typed_command_whole(session: Session) -> None:
    session.child.expect(PROMPT)
    session.child.send("c 1")
    session.child.expect("c 1")
    assert session.ask()[0] == 200
    session.child.expect(r"#1 .* 200 in")
    session.child.expect("c 1")
    assert session.shown() == f"{PROMPT}c 1"
    session.child.send("2\r")
    session.child.expect("next 12 requests")


def test_a_command_longer_than_a_row_stays_whole_below_the_log(tmp_path: Path) -> None:
    session = Session(tmp_path, columns=60)
    child = session.child
    child.expect(PROMPT)
    session.type("c * model=none")
    child.expect(re.escape("[Context length exceeded: every request] " + PROMPT))
    child.send("r 7 retry_after=2 path=/v1/chat/* upstream=openai for=10m")
    child.send("\x01\x1b[C\x1b[C\x7f\x7f\x1b[C\x05")
    child.send("\x01r \x05")
    time.sleep(0.3)
    assert session.ask()[0] == 200
    child.expect(r"#1 .* 200 in")
    time.sleep(0.3)
    child.expect(pexpect.TIMEOUT, timeout=0.2)
    screen = [line.rstrip() for line in session.screen.display]
    typed = "[Context length exceeded: every request] Enter command: r 7 retry_after=2 path=/v1/chat/* "
    typed += "upstream=openai for=10m"
    rows = [typed[start : start + 60].rstrip() for start in range(0, len(typed), 60)]
    last = max(number for number, line in enumerate(screen) if line)
    assert screen[last - len(rows) + 1 : last + 1] == rows
    assert sum("Enter command: r 7" in line for line in screen) == 1
    child.send("\r")
    child.expect("next 7 requests")
    child.expect("only upstream openai")
    child.close(force=True)


def test_an_active_fault_stands_in_the_prompt(session: Session) -> None:
    session.child.expect(PROMPT)
    session.type("u *")
    session.child.expect(re.escape("[Unknown server error: every request] Enter command: "))


def test_a_mistake_says_what_is_accepted_and_changes_nothing(session: Session) -> None:
    session.child.expect(PROMPT)
    session.type("c 2")
    session.child.expect("next 2 requests")
    for wrong, said in (("n 3", "takes nothing"), ("c 1.5", "0.0 to 1.0"), ("x", "accepted: n, c, r, u")):
        session.type(wrong)
        session.child.expect(said)
        session.child.expect("Nothing has changed")
    session.type("status")
    session.child.expect("next 2 requests")


def test_lines_can_be_edited_and_brought_back(session: Session) -> None:
    session.child.expect(PROMPT)
    session.type("c 3")
    session.child.expect("next 3 requests")
    session.child.send("\x1b[A\x7f7\r")
    session.child.expect("next 7 requests")
    session.child.send("xyz\x15r 2\x1b[D\x1b[D\x01\x05\r")
    session.child.expect("next 2 requests")


def test_end_of_input_ends_the_session(session: Session) -> None:
    session.child.expect(PROMPT)
    session.child.sendcontrol("d")
    session.child.expect(pexpect.EOF)
    session.child.close()
    assert session.child.exitstatus == 0


def test_an_unfinished_count_is_told_at_the_end(session: Session) -> None:
    session.child.expect(PROMPT)
    session.type("c 3")
    session.child.expect("next 3 requests")
    assert [session.ask()[0] for _ in range(2)] == [400, 400]
    session.type("q")
    session.child.expect("injected 2 of 3; 1 never reached")
    session.child.expect(pexpect.EOF)


def test_control_c_stops_it_and_gives_the_terminal_back(tmp_path: Path) -> None:
    session = Session(tmp_path, shell=True)
    child = session.child
    child.expect(r"\$ ")
    child.sendline("stty -a | grep -c ' -echo '; " + session.command)
    child.expect("0\r\n")
    child.expect(PROMPT)
    child.sendcontrol("c")
    child.expect(r"\$ ")
    child.sendline("stty -a | tr ' ' '\\n' | grep -c -e '^-echo$' -e '^-icanon$'")
    child.expect("0\r\n")
    child.close(force=True)


def test_it_lets_go_of_the_terminal_in_the_background_and_takes_it_up_again(tmp_path: Path) -> None:
    session = Session(tmp_path, shell=True)
    child = session.child
    child.expect(r"\$ ")
    child.sendline("set -m; " + session.command)
    child.expect(PROMPT)
    child.sendcontrol("z")
    child.expect(r"[Ss]topped")
    child.sendline("bg")
    child.expect("llmproxy")
    child.sendline("echo shell-$((40+2))")
    child.expect("shell-42")
    assert session.ask()[0] == 200
    child.sendline("fg")
    child.expect(PROMPT)
    session.type("c 4")
    child.expect("next 4 requests")
    session.type("q")
    child.expect("never reached")
    child.close(force=True)


def test_started_in_the_background_it_leaves_the_terminal_alone(tmp_path: Path) -> None:
    session = Session(tmp_path, shell=True)
    child = session.child
    child.expect(r"\$ ")
    child.sendline(f"set -m; {session.command} > out.log 2>&1 & echo started")
    child.expect("started")
    assert session.ask()[0] == 200
    child.sendline("echo shell-$((40+2))")
    child.expect("shell-42")
    child.sendline("kill %1; wait; echo over-$((1+1))")
    child.expect("over-2")
    assert PROMPT not in (tmp_path / "out.log").read_text()
    child.close(force=True)


def test_a_hung_up_terminal_stops_it(session: Session) -> None:
    session.child.expect(PROMPT)
    pid = session.child.pid
    session.child.close(force=False)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("it went on without its terminal")
