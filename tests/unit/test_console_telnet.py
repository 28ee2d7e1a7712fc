"""A telnet conversation byte by byte: whatever comes, nothing raises, and what is kept has an end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from llmproxyd.control.answers import Answer
from llmproxyd.operator.remote import IDLE, STUCK, Desk
from llmproxyd.operator.telnet import LOGIN_TIME, TelnetFactory

IAC = b"\xff"
ECHO_ON = IAC + b"\xfd\x01"
PASSWORD = "secret"


class Control:
    """One that answers at once, and says what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fault = ""

    def run(self, line: str, caller: object, *, console: object) -> Answer:
        self.lines.append(line)
        return Answer("done\n", leaves=line == "quit")

    def prompt(self) -> str:
        return self.fault + "> "

    def complete(self, text: str) -> list[str]:
        return ["status", "start"]

    def holds_secret(self, line: str) -> bool:
        return False


class Transport(StringTransport):
    def setTcpKeepAlive(self, on: object) -> None: ...

    def setTcpNoDelay(self, on: object) -> None: ...

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()

    aborted = False


class Talk:
    def __init__(self, address: str = "127.0.0.1", checked: Deferred[bool] | None = None) -> None:
        self.clock = Clock()
        self.control = Control()
        control: Any = self.control
        desk = Desk(self.clock, control, lambda change: succeed(None), None)
        self.factory = TelnetFactory(desk, lambda user, password: checked or succeed(password == PASSWORD))
        peer = IPv4Address("TCP", address, 1)
        self.protocol: Any = self.factory.buildProtocol(peer)
        self.transport = Transport(peerAddress=peer)
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> bytes:
        self.transport.clear()
        self.protocol.dataReceived(data)
        return self.transport.value()

    def enter(self, *, echo: bool = True) -> None:
        self.send((ECHO_ON if echo else b"") + b"alice\r\0" + PASSWORD.encode() + b"\r\0")
        assert self.protocol.known

    def end(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))
        assert self.clock.getDelayedCalls() == []


PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"alice\r\n",
            PASSWORD.encode() + b"\r\n",
            IAC,
            IAC + b"\xfa",
            IAC + b"\xf0",
            IAC + b"\xfa\x1f\x00\x50\x00\x18" + IAC + b"\xf0",
            IAC + b"\xfa\x1f\xff\xff\xff\xff\xff\xff" + IAC + b"\xf0",
            IAC + b"\xf6",
            ECHO_ON,
            IAC + b"\xfe\x01",
            IAC + b"\xfb\x1f",
            IAC + b"\xfc\x1f",
            b"\r",
            b"\x1b[A",
            b"\t",
            b"\x03",
            b"\x04",
            b"quit\r\n",
        ]
    ),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(PIECES, max_size=20), st.booleans(), st.booleans())
def test_any_bytes_at_login_and_in_the_console(pieces: list[bytes], logged_in: bool, echo: bool):
    talk = Talk()
    if logged_in:
        talk.enter(echo=echo)
    for piece in pieces:
        talk.protocol.dataReceived(piece)
        talk.clock.advance(0.5)
    talk.end()


@settings(deadline=None, max_examples=30)
@given(st.binary(min_size=1, max_size=3), st.booleans())
def test_endless_bytes_are_not_kept(piece: bytes, logged_in: bool):
    talk = Talk(checked=None if logged_in else Deferred())
    if logged_in:
        talk.enter()
    else:
        talk.send(b"alice\r\0x\r\0")
    for _ in range(20):
        talk.protocol.dataReceived(piece * 3000)
        talk.transport.clear()
    login, console = talk.protocol._login, talk.protocol._console
    kept = len(login._ahead) + len(login._typed) + len(talk.protocol._sub)
    if console is not None:
        line = console._editor.line
        kept += len(line.text) + len(console._lines._rest) + sum(map(len, line._history))
    assert kept < 2_000_000
    assert len(talk.protocol.options) <= 256
    talk.end()


@given(st.data())
@settings(deadline=None, max_examples=50)
def test_bytes_mean_the_same_however_they_are_cut(data: Any):
    whole = ECHO_ON + b"alice\r\0" + PASSWORD.encode() + b"\r\nsta\xff\xf1tus\r\0c 3\r\nx\x7fr\r"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    talk = Talk()
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        talk.protocol.dataReceived(whole[start:end])
    assert talk.control.lines == ["status", "c 3", "r"]
    assert PASSWORD.encode() not in talk.transport.value()
    talk.end()


def test_a_byte_of_255_is_sent_twice():
    talk = Talk()
    talk.send(ECHO_ON)
    talk.transport.clear()
    talk.protocol.write(b"a\xffb")
    assert talk.transport.value() == b"a\xff\xffb"
    talk.end()


def test_are_you_there():
    talk = Talk()
    assert b"[yes]" in talk.send(IAC + b"\xf6")
    talk.end()


def test_a_carriage_return_alone_is_enough():
    talk = Talk()
    assert talk.send(b"alice\r").endswith(b"Password: ")
    talk.end()


def test_a_client_that_refuses_the_echo_has_plain_lines():
    talk = Talk()
    talk.send(IAC + b"\xfe\x01")
    talk.enter(echo=False)
    said = talk.send(b"status\r\n")
    assert said == b"done\r\n> "
    talk.end()


def test_too_late_to_log_in():
    talk = Talk()
    talk.clock.advance(LOGIN_TIME)
    assert talk.transport.disconnecting
    talk.end()


def test_wrong_passwords_are_told_later_and_later_and_the_third_ends_it():
    talk = Talk()
    for delay in (0.25, 0.5, 1.0):
        talk.send(b"alice\r\nwrong\r\n")
        talk.transport.clear()
        talk.clock.advance(delay - 0.01)
        assert b"incorrect" not in talk.transport.value()
        talk.clock.advance(0.01)
        assert b"incorrect" in talk.transport.value()
    assert talk.transport.disconnecting
    talk.end()


def test_typed_ahead_while_a_password_is_checked_comes_after_it():
    checked: Deferred[bool] = Deferred()
    talk = Talk(checked=checked)
    talk.send(ECHO_ON + b"alice\r\0" + PASSWORD.encode() + b"\r\0stat")
    talk.send(b"us\r\0")
    checked.callback(True)
    assert talk.control.lines == ["status"]
    talk.end()


def test_an_answer_to_a_password_that_comes_when_nobody_is_there():
    checked: Deferred[bool] = Deferred()
    talk = Talk(checked=checked)
    talk.send(b"alice\r\nx\r\n")
    talk.end()


def test_the_prompt_is_drawn_again_when_it_changes():
    talk = Talk()
    talk.enter()
    talk.send(b"half")
    talk.control.fault = "[fault] "
    talk.transport.clear()
    talk.clock.advance(1)
    assert b"[fault] > half" in talk.transport.value()
    talk.transport.clear()
    talk.clock.advance(1)
    assert talk.transport.value() == b""
    talk.end()


def test_idle_and_stuck_consoles_end():
    talk = Talk()
    talk.enter()
    talk.clock.pump([1] * int(IDLE + 2))
    assert b"Nothing was typed for 30 minutes." in talk.transport.value()
    assert talk.transport.disconnecting
    talk.end()
    talk = Talk()
    talk.enter()
    talk.transport.producer.pauseProducing()
    assert talk.transport.producerState == "paused"
    talk.clock.pump([1] * int(STUCK + 2))
    assert talk.transport.aborted
    talk.end()


def test_whoever_lingers_after_the_end_is_cut():
    talk = Talk()
    talk.enter()
    talk.send(b"quit\r\0")
    assert talk.transport.disconnecting
    assert not talk.transport.aborted
    talk.clock.pump([1] * 11)
    assert talk.transport.aborted
    talk.end()


@pytest.mark.parametrize(("address", "here"), [("127.0.0.1", True), ("192.0.2.1", False)])
def test_interpreters_are_for_this_machine(address: str, here: bool):
    asked: list[Any] = []
    talk = Talk(address)
    talk.factory.desk = Desk(talk.clock, talk.factory.desk.control, lambda change: succeed(None), dict)
    talk.control.run = lambda line, caller, *, console: asked.append(console) or Answer("")  # type: ignore[method-assign]
    talk.enter()
    talk.send(b"python\r\0")
    assert [console.python for console in asked] == [here]
    talk.end()


def test_the_two_bytes_of_a_return_key_do_not_answer_the_question_that_they_ask():
    talk = Talk()
    talk.enter()
    talk.control.run = lambda line, caller, *, console: Answer(
        "", asks="Sure?", confirm=lambda: Answer("sure\n")
    )  # type: ignore[method-assign]
    for ending in (b"\r\n", b"\r\0", b"\r", b"\n"):
        assert b"Sure?" in talk.send(b"shutdown" + ending)
        assert b"sure\r\n" in talk.send(b"yes" + ending)
    talk.end()
