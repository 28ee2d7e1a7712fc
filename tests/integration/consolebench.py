"""A control that is reached over telnet and SSH, and telnet clients that are bytes on a socket."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from wireclient import pause

from llmproxyd import consoles
from llmproxyd.config.operators import SSH, Telnet
from llmproxyd.control.answers import Answer
from llmproxyd.control.passwords import password_line
from llmproxyd.control.verbs import Control
from llmproxyd.faults.choose import Engine
from llmproxyd.listen import Listening
from llmproxyd.model import Change
from llmproxyd.resilience.breakers import Breakers

PATIENCE = 20.0
SECRET = "correct horse"
LINE = password_line("alice", SECRET, b"0123456789abcdef")

IAC, DONT, DO, WONT, WILL, SB, SE = (bytes([code]) for code in (255, 254, 253, 252, 251, 250, 240))
ECHO, SGA, NAWS = b"\x01", b"\x03", b"\x1f"


def window(columns: int) -> bytes:
    """The size of a window of *columns* (RFC 1073), which holds no byte of 255."""
    return IAC + SB + NAWS + columns.to_bytes(2, "big") + b"\x00\x18" + IAC + SE


AGREE = IAC + DO + ECHO + IAC + DO + SGA + IAC + WILL + NAWS + window(100)
"""What a telnet client answers to our offers."""


class Desk:
    """A control, all that it does on record, and its listeners."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changes: list[Change] = []
        self.audit_fails: Exception | None = None
        self.stopped = 0
        self.slow: dict[str, Deferred[Answer]] = {}
        self.follower: Callable[[str], None] | None = None
        self.breakers = Breakers(lambda event: None)
        self.engine = Engine(reactor.seconds, Random(1), ())
        self.control = Scripted(
            self.engine,
            breakers=self.breakers,
            emit=lambda event: None,
            monotonic=reactor.seconds,
            upstreams=["openai", "anthropic"],
            handled=lambda: 0,
            quit=self._stop,
            draw_seed=lambda: 7,
            record=self._record,
        )
        self.control.desk = self
        self._open: list[tuple[Listening, Any]] = []
        self._clients: list[Client] = []
        self.passwords = folder / "passwords"
        self.passwords.write_text(LINE + "\n")
        self.passwords.chmod(0o600)
        self.telnet_factory: Any = None
        self.ssh_factory: Any = None

    def _stop(self) -> None:
        self.stopped += 1

    def audit(self, change: Change) -> Deferred[None]:
        return maybeDeferred(self._record, change)

    def _record(self, change: Change) -> None:
        if self.audit_fails is not None:
            raise self.audit_fails
        self.changes.append(change)

    @property
    def actions(self) -> list[str]:
        return [change.action for change in self.changes]

    def namespace(self) -> Mapping[str, object]:
        return {"service": self, "control": self.control, "config": {"a": 1}, "breakers": self.breakers}

    def telnet(self, *, python: bool = False) -> int:
        """The port of a telnet manhole."""
        settings = Telnet(listen="tcp:0:interface=127.0.0.1", passwords=self.passwords)
        namespace = self.namespace if python else None
        opened = consoles.listen_telnet(
            reactor, settings, self.control, audit=self.audit, namespace=namespace
        )
        self.telnet_factory = opened.ports[0].factory
        self._open.append((opened, self.telnet_factory))
        return opened.addresses[0][1]

    def ssh(self, *, python: bool = False, keys: Path | None = None) -> int:
        """The port of a console over SSH."""
        settings = SSH(listen="tcp:0:interface=127.0.0.1", authorized_keys=keys or self.folder / "keys")
        opened = consoles.listen_ssh(
            reactor,
            settings,
            self.control,
            audit=self.audit,
            namespace=self.namespace if python else None,
            state_folder=self.folder / "state",
        )
        self.ssh_factory = opened.ports[0].factory
        self._open.append((opened, self.ssh_factory))
        return opened.addresses[0][1]

    async def client(self, port: int) -> Client:
        made = Client()
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), made)
        self._clients.append(made)
        return made

    async def operator(self, port: int, *, plain: bool = False) -> Client:
        """Somebody who has logged in."""
        client = await self.client(port)
        await client.until("Login: ")
        if not plain:
            client.send(AGREE)
        client.send(b"alice\r\n")
        await client.until("Password: ")
        client.send(SECRET.encode() + b"\r\n")
        await client.until("Enter command: ")
        return client

    async def close(self) -> None:
        for client in self._clients:
            client.transport.abortConnection()
        for opened, factory in self._open:
            for port in opened.ports:
                await port.stopListening()
            factory.stop()
        for _ in range(200):
            if not any(factory.connections for _, factory in self._open):
                break
            await pause(0.01)


class Scripted(Control):
    """A control with verbs that wait (``slow``), follow (``follow``) and ask (``sure``)."""

    desk: Desk

    def run(self, line: str, *arguments: Any, console: Any, **named: Any) -> Any:
        word = line.partition(" ")[0]
        if word == "slow":
            return self.desk.slow.setdefault(line, Deferred())
        if word == "follow":
            return Answer("Begun.\n", follow=self._follow)
        if word == "sure":
            return Answer("", asks="Really?", confirm=lambda: Answer("Done it.\n"))
        return super().run(line, *arguments, console=console, **named)

    def _follow(self, emit: Callable[[str], None]) -> Callable[[], None]:
        self.desk.follower = emit

        def stop() -> None:
            self.desk.follower = None

        return stop


class Client(Protocol):
    """A connection whose bytes are text."""

    transport: Any

    def __init__(self) -> None:
        self.bytes = b""
        self.lost = False
        self._seen = 0

    def dataReceived(self, data: bytes) -> None:
        self.bytes += data

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True

    @property
    def text(self) -> str:
        return self.bytes.decode("utf-8", "replace")

    def send(self, data: bytes | str) -> None:
        self.transport.write(data if isinstance(data, bytes) else data.encode())

    def type(self, text: str) -> None:
        """*text* and the return key, as telnet sends it."""
        self.send(text.encode() + b"\r\0")

    async def until(self, pattern: str, *, regex: bool = False) -> str:
        """What came since the last call, up to *pattern*, once it is there."""
        compiled = re.compile(pattern if regex else re.escape(pattern))
        for _ in range(int(PATIENCE / 0.01)):
            found = compiled.search(self.text, self._seen)
            if found:
                before, self._seen = self.text[self._seen : found.end()], found.end()
                return before
            if self.lost:
                break
            await pause(0.01)
        raise AssertionError(f"never came: {pattern!r}\n{self.text[-2000:]!r}")

    async def ended(self) -> None:
        for _ in range(int(PATIENCE / 0.01)):
            if self.lost:
                return
            await pause(0.01)
        raise AssertionError(f"never ended: {self.text[-500:]!r}")


def memory() -> int:
    """Bytes of this process."""
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
