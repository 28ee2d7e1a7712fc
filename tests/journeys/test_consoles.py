"""Operators at the daemon's consoles: the same session over telnet and SSH, with access on, side by side."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pexpect.fdpexpect
import pytest
from daemon import Daemon
from gatewaydaemon import until

from llmproxyd.control.passwords import password_line
from llmproxyd.operator.hostkey import host_key

PROMPT = "Enter command: "
AGREE = b"\xff\xfd\x01\xff\xfd\x03\xff\xfb\x1f\xff\xfa\x1f\x00\x78\x00\x28\xff\xf0"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Place:
    """A daemon with both consoles, and how to get there."""

    def __init__(self, folder: Path, settings: str = "") -> None:
        self.folder = folder
        self.telnet_port, self.ssh_port = free_port(), free_port()
        lines = [password_line(user, f"{user}'s word", b"0123456789abcdef") for user in ("alice", "bob")]
        self.write("passwords", "\n".join(lines) + "\n")
        host_key(folder / "id")
        from twisted.conch.ssh.keys import Key

        public = Key.fromString((folder / "id").read_bytes()).public()
        self.write("authorized_keys", public.toString("OPENSSH", comment=b"alice").decode() + "\n")
        self.write(
            "llmproxyd.yaml",
            f"""\
sandbox: {{enabled: true}}
operator:
  telnet: {{listen: "tcp:{self.telnet_port}:interface=127.0.0.1", passwords: passwords}}
  ssh: {{listen: "tcp:{self.ssh_port}:interface=127.0.0.1", authorized_keys: authorized_keys, host_key: host}}
  python: true
audit: {{file: audit.jsonl}}
{settings}
""",
        )
        self._open: list[Any] = []

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)

    def daemon(self, **options: Any) -> Daemon:
        return Daemon("--config", str(self.folder / "llmproxyd.yaml"), **options)

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]

    def connect(self) -> Any:
        """A telnet client that has agreed to our offers."""
        raw = socket.create_connection(("127.0.0.1", self.telnet_port), timeout=20)
        child = pexpect.fdpexpect.fdspawn(raw, encoding="latin-1", timeout=20)
        child.raw = raw
        self._open.append(raw)
        child.expect("Login: ")
        raw.sendall(AGREE)
        return child

    def telnet(self, user: str = "alice") -> Any:
        """An operator who has logged in."""
        child = self.connect()
        child.send(f"{user}\r\0")
        child.expect("Password: ")
        child.send(f"{user}'s word\r\0")
        child.expect(PROMPT)
        assert f"{user}'s word" not in child.before
        return child

    def ssh_command(self, *arguments: str) -> list[str]:
        options = (
            f"-p{self.ssh_port} -F none -i {self.folder / 'id'} -o IdentitiesOnly=yes -o BatchMode=yes "
            f"-o StrictHostKeyChecking=no -o UserKnownHostsFile={self.folder / 'known'} -o LogLevel=ERROR "
            "-o IdentityAgent=none"
        )
        return ["ssh", *options.split(), "op@127.0.0.1", *arguments]

    def ssh(self) -> Any:
        program, *rest = self.ssh_command()
        child = pexpect.spawn(
            program, ["-tt", *rest], encoding="utf-8", timeout=20, env={**os.environ, "TERM": "xterm"}
        )
        self._open.append(child)
        child.expect(PROMPT)
        return child

    def ssh_run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.ssh_command(*arguments), capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
        )

    def close(self) -> None:
        for one in self._open:
            one.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if shutil.which("ssh") is None and not os.environ.get("CI"):
        pytest.skip("OpenSSH's client is missing")
    made = Place(tmp_path)
    yield made
    made.close()


def ask(daemon: Daemon) -> int:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "a joke"}]}
    request = urllib.request.Request(
        daemon.url + "/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json", "authorization": "Bearer sk-x"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def the_session(child: Any, daemon: Daemon, enter: str) -> None:
    """The session of the error proxy's users, as far as it can be had from elsewhere."""
    child.send("r" + enter)
    child.expect(r"Rate limit exceeded \(next 1 request, for 8h more\)")
    child.expect("Requests handled: ")
    child.expect(PROMPT)
    assert ask(daemon) == 429
    assert ask(daemon) == 200
    child.send("c 1.5" + enter)
    child.expect("0.0 to 1.0")
    child.send("u *" + enter)
    child.expect(r"\[Unknown server error: every request\] Enter command: ")
    child.send("n" + enter)
    child.expect("No error")
    child.send("stat\t" + enter)
    child.expect("Requests handled: ")
    child.expect(PROMPT)
    # Arrow up brings the last command back.
    child.send("\x1b[A" + enter)
    child.expect("Requests handled: ")
    child.expect(PROMPT)


def test_the_session_over_telnet_and_ssh(place: Place) -> None:
    with place.daemon() as daemon:
        telnet, ssh = place.telnet(), place.ssh()
        the_session(telnet, daemon, "\r\0")
        the_session(ssh, daemon, "\r")
        assert ask(daemon) == 200
        changed = [(one["who"], one["action"]) for one in place.audit()]
        assert ("telnet alice", "fault.set") in changed
        assert ("ssh alice", "fault.clear") in changed


def test_control_d_leaves_the_console_and_the_daemon_goes_on(place: Place) -> None:
    with place.daemon() as daemon:
        for child in (place.telnet(), place.ssh()):
            child.sendcontrol("d") if hasattr(child, "sendcontrol") else child.send("\x04")
            child.expect(pexpect.EOF)
        for line in ("quit", "q"):
            child = place.telnet()
            child.send(line + "\r\0")
            child.expect(pexpect.EOF)
        assert ask(daemon) == 200
        child = place.telnet()
        child.send("shutdown\r\0")
        child.expect(r"\(yes/no\) ")
        child.send("yes\r\0")
        child.expect(pexpect.EOF)
        assert daemon.ended() == 0
        assert place.audit()[-1]["action"] == "daemon.stop"


def test_two_operators_at_once(place: Place) -> None:
    with place.daemon() as daemon:
        alice, bob = place.telnet("alice"), place.telnet("bob")
        alice.send("c *\r\0")
        bob.expect(r"\[Context length exceeded: every request\] Enter command: ")
        bob.send("n\r\0")
        bob.expect("No error")
        assert ask(daemon) == 200
        assert {one["who"] for one in place.audit()} >= {"telnet alice", "telnet bob"}


def test_wrong_password_five_times(place: Place) -> None:
    with place.daemon() as daemon:
        taken = []
        for count in (3, 2):
            child = place.connect()
            for _ in range(count):
                child.send("alice\r\0")
                child.expect("Password: ")
                start = time.monotonic()
                child.send("guess\r\0")
                child.expect("Login incorrect")
                taken.append(time.monotonic() - start)
            child.expect("Too many attempts" if count == 3 else "Login: ")
        assert taken[-1] > 3 * taken[0]
        assert "guess" not in daemon.output
        assert len(daemon.output.split("a wrong user or password from 127.0.0.1")) == 6
        place.telnet()


def test_single_commands_over_ssh(place: Place) -> None:
    with place.daemon():
        done = place.ssh_run("status")
        assert (done.returncode, done.stderr) == (0, "")
        refused = place.ssh_run("nonsense")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "is no command" in refused.stderr or "is no verb" in refused.stderr
        assert json.loads(place.ssh_run("status", "--json").stdout)


def test_with_access_on_faults_are_refused(tmp_path: Path) -> None:
    place = Place(tmp_path, "access: {enabled: true, store: 'sqlite:x.db'}")
    with place.daemon():
        child = place.telnet()
        child.send("c\r\0")
        child.expect("operator.faults: true")
        child.send("status\r\0")
        child.expect("No error")
        place.close()


def test_python_in_the_daemon(place: Place) -> None:
    with place.daemon() as daemon:
        for child, enter in ((place.telnet(), "\r\0"), (place.ssh(), "\r")):
            child.send("python" + enter)
            child.expect(">>> ")
            child.send("service.works.config.operator.python" + enter)
            child.expect("True")
            child.send("exit()" + enter)
            child.expect(PROMPT)
        # The prompt is there before what it ends is on record.
        until(lambda: len(place.audit()) >= 4)
        assert [one["action"] for one in place.audit()] == ["python.open", "python.close"] * 2
        assert "operators can run any code" in daemon.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("passwords: passwords", "insecure: false"), "operator.telnet.passwords"),
        (
            ('interface=127.0.0.1", passwords', 'interface=0.0.0.0", passwords'),
            "operator.telnet.insecure: true",
        ),
    ],
)
def test_it_does_not_start_where_passwords_are_missing_or_cross_a_network(
    place: Place, change: tuple[str, str], said: str
) -> None:
    file = place.folder / "llmproxyd.yaml"
    place.write("llmproxyd.yaml", file.read_text().replace(*change))
    with pytest.raises(AssertionError) as caught, place.daemon():
        pass
    assert said in str(caught.value)
    assert "llmproxyd.yaml:3" in str(caught.value)


def test_an_empty_file_of_passwords_ends_the_start_in_one_line(place: Place) -> None:
    place.write("passwords", "\n")
    with pytest.raises(AssertionError, match="lets nobody in"), place.daemon():
        pass
