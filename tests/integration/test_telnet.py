"""The telnet manhole over sockets: options, login, editing, several operators, and nobody in the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyte
import pytest
import pytest_twisted
from consolebench import AGREE, DO, ECHO, IAC, SECRET, SGA, WILL, Client, Desk, window
from twisted.internet.defer import Deferred, ensureDeferred
from wireclient import pause

from llmproxyd.control.answers import Answer
from llmproxyd.control.passwords import password_line
from llmproxyd.operator import login, remote, telnet


@pytest.fixture
def desk(tmp_path: Path, _nothing_left: None) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


def screen(client: Client, columns: int = 100) -> list[str]:
    """What a terminal shows of all that came."""
    shown = pyte.Screen(columns, 40)
    stream = pyte.ByteStream(shown)
    data = client.bytes
    for command in (IAC + WILL + ECHO, IAC + WILL + SGA, IAC + DO + b"\x1f"):
        data = data.replace(command, b"")
    stream.feed(data)
    return [line.rstrip() for line in shown.display if line.strip()]


# Login.


@pytest_twisted.ensureDeferred
async def test_password_lets_in_and_is_never_echoed(desk: Desk) -> None:
    client = await desk.operator(desk.telnet())
    assert SECRET not in client.text
    assert "Login: alice\r\nPassword: \r\n" in client.text
    assert (IAC + WILL + ECHO) in client.bytes


@pytest_twisted.ensureDeferred
async def test_a_whole_session_in_one_piece_of_bytes_is_understood(desk: Desk) -> None:
    client = await desk.client(desk.telnet())
    client.send(AGREE + b"alice\r\0" + SECRET.encode() + b"\r\0c 3\r\0")
    await client.until("next 3 requests")
    assert SECRET not in client.text


@pytest_twisted.ensureDeferred
async def test_negotiation_may_be_split_anywhere(desk: Desk) -> None:
    client = await desk.client(desk.telnet())
    for code in AGREE + b"ali\xff\xf1ce\r\0" + SECRET.encode() + b"\r\0" + window(60) + b"status\r\0":
        client.send(bytes([code]))
        await pause(0)
    await client.until("Requests handled: 0")
    conversation = next(iter(desk.telnet_factory.connections))
    assert conversation._console._columns == 60


@pytest_twisted.ensureDeferred
async def test_five_wrong_passwords_end_two_connections_each_later_than_the_last(desk: Desk) -> None:
    port = desk.telnet()
    times = []
    for count in (3, 2):
        client = await desk.client(port)
        client.send(AGREE)
        for _ in range(count):
            await client.until("Login: ")
            client.type("alice")
            await client.until("Password: ")
            client.type("wrong")
            start = client.transport.reactor.seconds()
            await client.until("Login incorrect.")
            times.append(client.transport.reactor.seconds() - start)
        if count == 3:
            await client.until("Too many attempts.")
            await client.ended()
    assert times == sorted(times)
    assert times[-1] >= login.FIRST_DELAY * 16
    # Whoever knows it is let in at once all the same, and starts anew.
    await desk.operator(port)
    assert desk.telnet_factory.patience.tried("127.0.0.1") == login.FIRST_DELAY


@pytest_twisted.ensureDeferred
async def test_unknown_users_and_empty_passwords_are_refused_alike(desk: Desk) -> None:
    client = await desk.client(desk.telnet())
    client.send(AGREE)
    for user, password in (("bob", SECRET), ("alice", "")):
        await client.until("Login: ")
        client.type(user)
        await client.until("Password: ")
        client.type(password)
        await client.until("Login incorrect.")


@pytest_twisted.ensureDeferred
async def test_a_new_line_in_the_file_counts_at_the_next_login(desk: Desk) -> None:
    port = desk.telnet()
    desk.passwords.write_text(password_line("alice", "another one", b"0123456789abcdef"))
    client = await desk.client(port)
    client.send(AGREE)
    client.type("alice")
    client.type(SECRET)
    await client.until("Login incorrect.")
    await client.until("Login: ")
    client.type("alice")
    client.type("another one")
    await client.until("Enter command: ")


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_gone_lets_nobody_in_and_says_so(desk: Desk) -> None:
    client = await desk.client(desk.telnet())
    desk.passwords.unlink()
    client.send(AGREE)
    client.type("alice")
    client.type(SECRET)
    await client.until("Passwords cannot be checked")
    await client.ended()


@pytest_twisted.ensureDeferred
async def test_who_does_not_log_in_is_sent_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telnet, "LOGIN_TIME", 0.2)
    client = await desk.client(desk.telnet())
    await client.until("Too late.")
    await client.ended()


@pytest_twisted.ensureDeferred
async def test_gone_while_the_password_is_checked(desk: Desk) -> None:
    client = await desk.client(desk.telnet())
    client.send(AGREE + b"alice\r\0" + SECRET.encode() + b"\r\0")
    await client.until("Password: ")
    client.transport.abortConnection()
    await client.ended()
    await pause(0.3)
    assert not desk.telnet_factory.connections


@pytest_twisted.ensureDeferred
async def test_there_is_an_end_to_connections_and_to_unknown_ones_first(desk: Desk) -> None:
    port = desk.telnet()
    operator = await desk.operator(port)
    waiting = [await desk.client(port) for _ in range(telnet.MOST_UNKNOWN)]
    await waiting[-1].until("Login: ")
    late = await desk.client(port)
    await late.until("Too many operators")
    await late.ended()
    operator.type("status")
    await operator.until("Requests handled")


# Plain lines.


@pytest_twisted.ensureDeferred
async def test_client_without_negotiation_sends_lines_and_is_echoed_nothing(desk: Desk) -> None:
    client = await desk.operator(desk.telnet(), plain=True)
    client.send(b"c 2\n")
    said = await client.until("Enter command: ")
    assert "c 2" not in said
    assert "next 2 requests" in said
    assert "\x1b" not in client.text
    client.send(b"status\r\nn\r\n")
    await client.until("next 2 requests")
    await client.until("No error")
    client.send(b"quit\n")
    await client.ended()
    assert not desk.stopped


# The console.


@pytest_twisted.ensureDeferred
async def test_lines_are_edited_with_the_usual_keys(desk: Desk) -> None:
    client = await desk.operator(desk.telnet())
    # Home, delete, End, left, backspace, word and both kills.
    client.send(b"xc 17\x01\x1b[3~\x05\x1b[D\x7f\x1b[C\r\0")
    await client.until("next 7 requests")
    client.send(b"junk words\x17\x17r 5 tail\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x0b\r\0")
    await client.until("next 5 requests")
    client.send(b"nonsense\x15c 6\r\0")
    await client.until("next 6 requests")
    client.send("c 8 größer€\x17\r\0".encode())
    await client.until("next 8 requests")


@pytest_twisted.ensureDeferred
async def test_arrow_up_brings_lines_back_and_down_what_was_being_typed(desk: Desk) -> None:
    client = await desk.operator(desk.telnet())
    for count in (2, 3):
        client.type(f"c {count}")
        await client.until(f"next {count} requests")
    client.send(b"c 9\x1b[A\x1b[A\x1b[B\x1b[B\r\0")
    await client.until("next 9 requests")
    client.send(b"\x1b[A\x1b[A\x1b[A\r\0")
    await client.until("next 2 requests")


@pytest_twisted.ensureDeferred
async def test_tab_completes_one_word_and_shows_several(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def complete(text: str) -> list[str]:
        if " " not in text:
            return [word for word in ("status", "breaker", "requests", "reload") if word.startswith(text)]
        return ["trip", "reset", "show"]

    monkeypatch.setattr(desk.control, "complete", complete)
    client = await desk.operator(desk.telnet())
    client.send(b"sta\t\r\0")
    await client.until("Requests handled: 0")
    client.send(b"re\t")
    await client.until("reload")
    await client.until("requests")
    await client.until("Enter command: re")
    client.send(b"\x15br\ts\t\x1b[D")
    await client.until("reaker ")
    await client.until("how ")
    assert screen(client)[-1] == "Enter command: breaker show"


@pytest_twisted.ensureDeferred
async def test_real_completion_of_the_language(desk: Desk) -> None:
    client = await desk.operator(desk.telnet())
    client.send(b"stat\t\r\0")
    await client.until("Requests handled: 0")


@pytest_twisted.ensureDeferred
async def test_control_c_forgets_the_line_and_control_l_clears(desk: Desk) -> None:
    client = await desk.operator(desk.telnet())
    client.send(b"c 100\x03")
    await client.until("^C")
    client.send(b"status\x0c\r\0")
    await client.until("No error")
    # Interrupt Process is the same key, for clients in line mode.
    client.send(b"c 100\xff\xf4n\r\0")
    await client.until("No error")


@pytest_twisted.ensureDeferred
async def test_control_d_and_quit_and_q_leave_the_console_and_not_the_daemon(desk: Desk) -> None:
    port = desk.telnet()
    for ending in (b"\x04", b"quit\r\0", b"q\r\0", b"\xff\xec"):
        client = await desk.operator(port)
        client.send(ending)
        await client.ended()
    assert not desk.stopped
    assert (await desk.operator(port)).text


@pytest_twisted.ensureDeferred
async def test_two_operators_see_each_others_faults_in_the_prompt(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "LOOK", 0.05)
    port = desk.telnet()
    one, other = await desk.operator(port), await desk.operator(port)
    other.send("half a comm")
    one.type("u *")
    await one.until("[Unknown server error: every request] Enter command: ")
    await other.until("[Unknown server error: every request] Enter command: half a comm")
    assert screen(other)[-1] == "[Unknown server error: every request] Enter command: half a comm"
    other.send(b"\x15n\r\0")
    await other.until("No error")
    await one.until("Enter command: ")
    await pause(0.2)
    assert screen(one)[-1] == "Enter command:"
    assert {change.who for change in desk.changes} == {"telnet alice"}
    assert {change.address for change in desk.changes} == {"127.0.0.1"}


@pytest_twisted.ensureDeferred
async def test_what_comes_by_itself_stands_above_a_half_typed_line(desk: Desk) -> None:
    client = await desk.operator(desk.telnet())
    client.type("follow")
    await client.until("an empty line ends it")
    client.send("c 1")
    await client.until("c 1")
    assert desk.follower is not None
    desk.follower("#1 POST /v1/chat/completions 200\n")
    await client.until("#1 POST")
    await client.until("Enter command: c 1")
    assert screen(client)[-2:] == ["#1 POST /v1/chat/completions 200", "Enter command: c 1"]
    client.send(b"2\r\0")
    await client.until("next 12 requests")
    assert desk.follower is not None
    client.send(b"\r\0")
    await client.until("No longer following.")
    assert desk.follower is None


@pytest_twisted.ensureDeferred
async def test_disconnected_while_following_it_follows_no_more(desk: Desk) -> None:
    client = await desk.operator(desk.telnet())
    client.type("follow")
    await client.until("an empty line ends it")
    assert desk.follower is not None
    client.transport.abortConnection()
    await client.ended()
    await pause(0.05)
    assert desk.follower is None


@pytest_twisted.ensureDeferred
async def test_commands_wait_for_the_one_under_way(desk: Desk) -> None:
    client = await desk.operator(desk.telnet())
    client.type("slow 1")
    client.type("c 4")
    await pause(0.1)
    assert "next 4" not in client.text
    desk.slow["slow 1"].callback(Answer("That took long.\n"))
    said = await client.until("next 4 requests")
    assert "That took long." in said


@pytest_twisted.ensureDeferred
async def test_disconnected_in_the_middle_of_a_command(desk: Desk) -> None:
    client = await desk.operator(desk.telnet())
    client.type("slow 1")
    await client.until("slow 1")
    await pause(0.05)
    client.transport.abortConnection()
    await client.ended()
    await pause(0.05)
    desk.slow["slow 1"].callback(Answer("nobody hears it\n", python=True, leaves=True))
    assert not desk.telnet_factory.connections


@pytest_twisted.ensureDeferred
async def test_a_question_is_asked_and_only_yes_does_it(desk: Desk) -> None:
    client = await desk.operator(desk.telnet())
    for answer, said in (("no", "Nothing has changed."), ("", "Nothing has changed."), ("yes", "Done it.")):
        client.type("sure")
        await client.until("Really?")
        client.type(answer)
        await client.until(said)


@pytest_twisted.ensureDeferred
async def test_nothing_typed_for_long_ends_the_console(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LOOK", 0.05)
    monkeypatch.setattr(remote, "IDLE", 0.3)
    client = await desk.operator(desk.telnet())
    await client.until("Nothing was typed")
    await client.ended()


@pytest_twisted.ensureDeferred
async def test_a_line_of_ten_thousand_characters_is_cut_and_refused(desk: Desk) -> None:
    for plain in (False, True):
        client = await desk.operator(desk.telnet(), plain=plain)
        client.send(b"x" * 10_000 + b"\r\n")
        await client.until("is no command")
        client.send(b"status\r\n")
        await client.until("Requests handled")


@pytest_twisted.ensureDeferred
async def test_whoever_does_not_read_is_not_heard_either_and_cut_at_last(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "LOOK", 0.05)
    monkeypatch.setattr(remote, "STUCK", 0.5)
    client = await desk.operator(desk.telnet())
    client.transport.pauseProducing()
    conversation: Any = next(iter(desk.telnet_factory.connections))
    for _ in range(300):
        client.send(b"help\r\0" * 500)
        await pause(0.01)
        if not desk.telnet_factory.connections:
            break
        pending = sum(map(len, conversation.transport._tempDataBuffer)) + len(
            conversation.transport.dataBuffer
        )
        assert pending < 4 * 1024 * 1024
    for _ in range(200):
        if not desk.telnet_factory.connections:
            break
        await pause(0.01)
    assert not desk.telnet_factory.connections


# Python.


@pytest_twisted.ensureDeferred
async def test_python_runs_in_the_daemon_and_is_on_record(desk: Desk) -> None:
    client = await desk.operator(desk.telnet(python=True))
    client.type("python")
    await client.until("Here are service, control, config, breakers.")
    await client.until(">>> ")
    client.type("config['a'] + 41")
    await client.until("42")
    client.type("control.prompt()")
    await client.until("'Enter command: '")
    client.type("1/0")
    await client.until("ZeroDivisionError")
    client.send(b"\x1b[15~\x1b[A\x1b[A\x1b[A\r\0")
    await client.until("42")
    client.send(b"\x04")
    await client.until("Enter command: ")
    client.type("c 3")
    await client.until("next 3 requests")
    assert desk.actions == ["python.open", "python.close", "fault.set"]
    assert {change.who for change in desk.changes} == {"telnet alice"}


@pytest_twisted.ensureDeferred
async def test_exit_goes_back_to_the_console_and_leaves_the_daemons_stdin_open(desk: Desk) -> None:
    client = await desk.operator(desk.telnet(python=True))
    for way in ("exit()", "quit()", "raise SystemExit", "import sys; sys.exit(3)"):
        client.type("python")
        await client.until(">>> ")
        client.type(way)
        await client.until("Enter command: ")
    client.type("status")
    await client.until("Requests handled")
    assert desk.actions == ["python.open", "python.close"] * 4


@pytest_twisted.ensureDeferred
async def test_disconnected_in_python_its_end_is_on_record(desk: Desk) -> None:
    client = await desk.operator(desk.telnet(python=True))
    client.type("python")
    await client.until(">>> ")
    client.type("from twisted.internet.defer import Deferred; d = Deferred(); service.kept = d; d")
    await client.until("<Deferred #0>")
    client.transport.abortConnection()
    await client.ended()
    await pause(0.05)
    kept: Deferred[str] = desk.kept  # type: ignore[attr-defined]
    kept.callback("too late")
    assert desk.actions == ["python.open", "python.close"]


@pytest_twisted.ensureDeferred
async def test_python_that_cannot_be_recorded_is_refused(desk: Desk) -> None:
    client = await desk.operator(desk.telnet(python=True))
    desk.audit_fails = OSError("disk full")
    client.type("python")
    await client.until("cannot be recorded")
    desk.audit_fails = None
    client.type("status")
    await client.until("Requests handled")


@pytest_twisted.ensureDeferred
async def test_python_is_refused_where_it_is_off_and_on_plain_lines(desk: Desk) -> None:
    client = await desk.operator(desk.telnet())
    client.type("python")
    await client.until("No interpreter is opened here")
    plain = await desk.operator(desk.telnet(python=True), plain=True)
    plain.send(b"python\n")
    await plain.until("No interpreter is opened here")
