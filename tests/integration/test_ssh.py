"""The console over SSH, with OpenSSH's client."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
import pytest_twisted
from consolebench import Desk
from twisted.conch.ssh.keys import Key
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import deferToThread
from wireclient import pause

from llmproxyd.control.answers import Answer
from llmproxyd.operator import hostkey, remote, ssh

if shutil.which("ssh") is None and not os.environ.get("CI"):
    pytest.skip("OpenSSH's client is missing", allow_module_level=True)


@pytest.fixture
def desk(tmp_path: Path, _nothing_left: None) -> Iterator[Desk]:
    for name in ("mine", "theirs"):
        hostkey.host_key(tmp_path / name)
    public = (
        Key.fromString((tmp_path / "mine").read_bytes()).public().toString("OPENSSH", comment=b"alice@laptop")
    )
    (tmp_path / "keys").write_bytes(b"# operators\n\nnonsense\n" + public + b"\n")
    made = Desk(tmp_path)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


def command(desk: Desk, port: int, *arguments: str, key: str = "mine") -> list[str]:
    options = (
        f"-p{port} -F none -i {desk.folder / key} -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o BatchMode=yes "
        f"-o UserKnownHostsFile={desk.folder / 'known'} -o LogLevel=ERROR -o IdentityAgent=none"
    )
    return ["ssh", *options.split(), *arguments[:-1], "op@127.0.0.1", *arguments[-1:]]


def run(
    desk: Desk, port: int, *arguments: str, key: str = "mine", given: str = ""
) -> Deferred[subprocess.CompletedProcess[str]]:
    return deferToThread(
        subprocess.run,
        command(desk, port, *arguments, key=key),
        input=given,
        capture_output=True,
        text=True,
        timeout=30,
    )


# One command.


@pytest_twisted.ensureDeferred
async def test_one_command_is_answered_with_an_exit_status(desk: Desk) -> None:
    port = desk.ssh()
    done = await run(desk, port, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Requests handled: 0" in done.stdout
    assert "\x1b" not in done.stdout
    refused = await run(desk, port, "c 1.5")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "0.0 to 1.0" in refused.stderr
    assert (await run(desk, port, "c 3")).returncode == 0
    assert [(change.who, change.address) for change in desk.changes][-1:] == [
        ("ssh alice@laptop", "127.0.0.1")
    ]


@pytest_twisted.ensureDeferred
async def test_json_of_one_command(desk: Desk) -> None:
    import json

    done = await run(desk, desk.ssh(), "breaker show --json")
    assert done.returncode == 0
    json.loads(done.stdout)


@pytest_twisted.ensureDeferred
async def test_a_command_that_takes_its_time_and_one_whose_client_is_gone(desk: Desk) -> None:
    port = desk.ssh()
    waiting = run(desk, port, "slow 1")
    while "slow 1" not in desk.slow:
        await pause(0.01)
    desk.slow["slow 1"].callback(Answer("late\n" * 100_000))
    assert (await waiting).stdout == "late\n" * 100_000
    process = await deferToThread(
        subprocess.Popen, command(desk, port, "slow 2"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while "slow 2" not in desk.slow:
        await pause(0.01)
    process.kill()
    await deferToThread(process.wait)
    while desk.ssh_factory.connections:
        await pause(0.01)
    desk.slow["slow 2"].callback(Answer("nobody hears it\n"))


@pytest_twisted.ensureDeferred
async def test_commands_that_are_none(desk: Desk) -> None:
    port = desk.ssh()
    for line in ("x" * 10_000, "  ", "nonsense"):
        assert (await run(desk, port, line)).returncode == 1


@pytest_twisted.ensureDeferred
async def test_following_is_refused_where_there_is_no_console(desk: Desk) -> None:
    done = await run(desk, desk.ssh(), "requests tail")
    assert done.returncode == 1


# Who is let in.


@pytest_twisted.ensureDeferred
async def test_only_keys_of_the_file_are_let_in_and_it_is_read_at_each_login(desk: Desk) -> None:
    port = desk.ssh()
    assert (await run(desk, port, "status", key="theirs")).returncode == 255
    public = Key.fromString((desk.folder / "theirs").read_bytes()).public().toString("OPENSSH")
    (desk.folder / "keys").write_bytes(public)
    assert (await run(desk, port, "c", key="theirs")).returncode == 0
    assert desk.changes[-1].who.startswith("ssh key …")
    assert (await run(desk, port, "status")).returncode == 255
    # Options would not be obeyed, so that such a line lets nobody in.
    (desk.folder / "keys").write_bytes(b'from="10.0.0.1" ' + public)
    assert (await run(desk, port, "status", key="theirs")).returncode == 255
    (desk.folder / "keys").unlink()
    assert (await run(desk, port, "status", key="theirs")).returncode == 255


@pytest_twisted.ensureDeferred
async def test_a_client_that_holds_the_public_key_alone_is_refused(desk: Desk) -> None:
    """The checker itself: a known key with the signature of another one."""
    from twisted.cred.credentials import SSHPrivateKey
    from twisted.cred.error import UnauthorizedLogin

    checker = ssh.Keys(desk.folder / "keys", deferToThread)
    mine, theirs = (Key.fromString((desk.folder / name).read_bytes()) for name in ("mine", "theirs"))
    for signature, message in (
        (theirs.sign(b"data"), b"data"),
        (mine.sign(b"data"), b"other"),
        (b"x", b"data"),
    ):
        credentials = SSHPrivateKey(b"op", b"ssh-ed25519", mine.public().blob(), message, signature)
        with pytest.raises(Exception) as caught:
            await checker.requestAvatarId(credentials)
        assert not isinstance(caught.value, KeyError)
        assert isinstance(caught.value, UnauthorizedLogin) or signature == b"x"
    good = SSHPrivateKey(b"op", b"ssh-ed25519", mine.public().blob(), b"data", mine.sign(b"data"))
    assert await checker.requestAvatarId(good) == "alice@laptop"


@pytest_twisted.ensureDeferred
async def test_passwords_are_not_offered(desk: Desk) -> None:
    done = await run(desk, desk.ssh(), "-v", "-oLogLevel=DEBUG", "status", key="theirs")
    assert "Authentications that can continue: publickey\n" in done.stderr.replace("\r", "")


# What else SSH could do.


@pytest_twisted.ensureDeferred
async def test_no_forwarding_and_no_subsystems(desk: Desk) -> None:
    port = desk.ssh()
    forwarded = await run(desk, port, "-oExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "status")
    assert forwarded.returncode == 255
    direct = await run(desk, port, "-W", f"127.0.0.1:{port}", "-T", key="mine")
    assert direct.returncode == 255
    files = await run(desk, port, "-s", "sftp")
    assert files.returncode not in (0,)


@pytest_twisted.ensureDeferred
async def test_agent_is_not_taken(desk: Desk) -> None:
    done = await run(desk, desk.ssh(), "-A", "status")
    assert done.returncode == 0


# The host key.


@pytest_twisted.ensureDeferred
async def test_host_key_is_made_once_for_its_owner_alone(desk: Desk) -> None:
    first = desk.ssh()
    path = desk.folder / "state" / hostkey.NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    assert (await run(desk, first, "status")).returncode == 0
    second = desk.ssh()
    assert path.read_bytes() == before
    assert (await run(desk, second, "-oStrictHostKeyChecking=no", "status")).returncode == 0
    assert [one.name for one in path.parent.iterdir()] == [hostkey.NAME]


# The console.


def terminal(desk: Desk, port: int, *arguments: str, columns: int = 100) -> Any:
    program, *rest = command(desk, port, "-tt", *arguments, "")
    return pexpect.spawn(
        program,
        rest[:-1],
        encoding="utf-8",
        timeout=20,
        dimensions=(40, columns),
        env={**os.environ, "TERM": "xterm"},
    )


@pytest_twisted.ensureDeferred
async def test_a_shell_is_the_console_with_editing_and_completion(desk: Desk) -> None:
    port = desk.ssh()

    def session() -> None:
        child = terminal(desk, port)
        child.expect("Enter command: ")
        child.send("stat\t\r")
        child.expect("Requests handled: 0")
        child.send("c 4\x7f3\r")
        child.expect("next 3 requests")
        child.send("\x1b[A\x1b[A\r")
        child.expect("next 3 requests")
        child.expect("Enter command: ")
        child.setwinsize(40, 60)
        child.send("x" * 70 + "\x15r\r")
        child.expect("next 1 request")
        child.sendcontrol("d")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0

    await deferToThread(session)
    assert not desk.stopped


@pytest_twisted.ensureDeferred
async def test_window_changes_arrive(desk: Desk) -> None:
    port = desk.ssh()

    def resize() -> Any:
        child = terminal(desk, port)
        child.expect("Enter command: ")
        child.setwinsize(40, 61)
        return child

    child = await deferToThread(resize)
    (connection,) = desk.ssh_factory.connections
    (channel,) = connection.service.channels.values()
    for _ in range(200):
        if channel._console._columns == 61:
            break
        await pause(0.01)
    assert channel._console._columns == 61
    await deferToThread(child.close, force=True)


@pytest_twisted.ensureDeferred
async def test_lines_of_a_script_are_answered_and_nothing_else_is_said(desk: Desk) -> None:
    waiting = run(desk, desk.ssh(), "-T", "", given="c 2\nslow 1\nbreaker")
    while "slow 1" not in desk.slow:
        await pause(0.01)
    await pause(0.2)
    desk.slow["slow 1"].callback(Answer("That took long.\n"))
    done = await waiting
    assert done.returncode == 0
    assert done.stdout.startswith("=====")
    assert "next 2 requests" in done.stdout
    assert "That took long.\nNo breaker yet" in done.stdout
    assert "Enter command" not in done.stdout
    assert "\r" not in done.stdout


@pytest_twisted.ensureDeferred
async def test_python_over_ssh(desk: Desk) -> None:
    port = desk.ssh(python=True)

    def session() -> None:
        child = terminal(desk, port)
        child.expect("Enter command: ")
        child.send("python\r")
        child.expect(">>> ")
        child.send("config['a'] + 41\r")
        child.expect("42")
        child.sendcontrol("d")
        child.expect("Enter command: ")
        child.send("quit\r")
        child.expect(pexpect.EOF)
        child.close()

    await deferToThread(session)
    assert desk.actions == ["python.open", "python.close"]
    assert (await run(desk, port, "python")).returncode == 1


@pytest_twisted.ensureDeferred
async def test_idle_console_is_closed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LOOK", 0.05)
    monkeypatch.setattr(remote, "IDLE", 0.5)
    port = desk.ssh()

    def session() -> None:
        child = terminal(desk, port)
        child.expect("Nothing was typed")
        child.expect(pexpect.EOF)
        child.close()

    await deferToThread(session)


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_there_for_nothing_is_closed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "ALIVE", 0.2)
    done = await run(desk, desk.ssh(), "-N", "-T")
    assert done.returncode == 255


@pytest_twisted.ensureDeferred
async def test_who_does_not_log_in_is_sent_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "LOGIN_TIME", 0.2)
    client = await desk.client(desk.ssh())
    await client.ended()


@pytest_twisted.ensureDeferred
async def test_client_that_answers_no_more_is_taken_to_be_gone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    monkeypatch.setattr(ssh, "ALIVE", 0.2)
    port = desk.ssh()

    def begin() -> Any:
        child = terminal(desk, port)
        child.expect("Enter command: ")
        os.kill(child.pid, signal.SIGSTOP)
        return child

    child = await deferToThread(begin)
    for _ in range(500):
        if not desk.ssh_factory.connections:
            break
        await pause(0.01)
    assert not desk.ssh_factory.connections
    os.kill(child.pid, signal.SIGCONT)
    await deferToThread(child.close, force=True)


@pytest_twisted.ensureDeferred
async def test_noise_instead_of_ssh_ends_the_connection_alone(desk: Desk) -> None:
    port = desk.ssh()
    noises = [
        b"GET / HTTP/1.1\r\n\r\n" * 1000,
        b"\0" * 10_000,
        b"SSH-2.0-x\r\n" + bytes(range(256)) * 100,
        b"SSH-2.0-x\r\n\0\0\0\x0c\x0a\x14" + b"\0" * 20,
        b"SSH-2.0-x\r\n" + b"\xff" * 40,
    ]
    for noise in noises:
        client = await desk.client(port)
        client.send(noise)
        client.transport.loseWriteConnection()
        await client.ended()
    assert (await run(desk, port, "status")).returncode == 0
    assert reactor.seconds()
