"""Behind a socket of systemd's a restart turns nobody away: no connection refused, no request lost, no stream cut."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from daemon import PATIENCE, TWISTD, environment

RESTARTS = 10
CLIENTS = 4
"""Of each kind."""
PAUSE = 0.05
"""Seconds between two requests of a client."""
WORDS = " ".join(f"word{number}" for number in range(20))

CONFIG = """\
listen: ["systemd:domain=INET:index=0"]
server: {drain_timeout: 30s}
sandbox: {enabled: true, tokens_per_second: 40}
"""

WRAPPER = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What systemd does between fork and exec: the number of the descriptor, and whom it is for."""


class Manager:
    """A service manager that holds the listening socket of one service.

    :ivar port: where clients connect, whoever runs.
    """

    def __init__(self, folder: Path, listening: socket.socket, channel: socket.socket) -> None:
        self._folder = folder
        self._listening = listening
        self._channel = channel
        self.port: int = listening.getsockname()[1]
        (folder / "llmproxyd.yaml").write_text(CONFIG)

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    async def start(self) -> asyncio.subprocess.Process:
        """Start the service; returns once it says that it is ready."""
        number = self._listening.fileno()
        daemon = [str(TWISTD), "-n", "llmproxy", "--no-stdin", "--config", "llmproxyd.yaml"]
        activated = {
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "llmproxyd.socket",
            "NOTIFY_SOCKET": str(self._folder / "notify"),
            "STATE_DIRECTORY": str(self._folder),
        }
        with (self._folder / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", WRAPPER, str(number), *daemon),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=environment(self._folder, activated),
                pass_fds=[number],
            )
        try:
            async with asyncio.timeout(PATIENCE):
                while b"READY=1" not in await asyncio.get_running_loop().sock_recv(self._channel, 65536):
                    assert process.returncode is None, self.log
        except BaseException:
            await end(process)
            raise
        return process

    async def stop(self, process: asyncio.subprocess.Process) -> None:
        """Stop the service as systemd does: a signal, and time to end."""
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0, self.log

    @asynccontextmanager
    async def service(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """The service, and what restarts it."""
        running = await self.start()

        async def restart() -> None:
            nonlocal running
            await self.stop(running)
            running = await self.start()

        try:
            yield restart
            await self.stop(running)
        finally:
            await end(running)


async def end(process: asyncio.subprocess.Process) -> None:
    """Let nothing be left of it."""
    if process.returncode is None:
        process.kill()
        await process.wait()


@contextmanager
def manager() -> Iterator[Manager]:
    # A short path: a socket's address takes about a hundred bytes.
    with (
        tempfile.TemporaryDirectory(prefix="sd-") as name,
        socket.socket() as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel,
    ):
        listening.bind(("127.0.0.1", 0))
        listening.listen(4096)
        channel.bind(f"{name}/notify")
        channel.setblocking(False)
        yield Manager(Path(name), listening, channel)


class Load:
    """Clients that ask without end, each one thing after the other.

    :ivar answered: requests, by kind.
    :ivar problems: what no client may see.
    :ivar streaming: streams that have begun and not ended.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = False
        self.answered = {"fresh": 0, "kept": 0, "stream": 0}
        self.problems: list[str] = []
        self.streaming = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask; what was asked when this ends is still answered."""
        kinds = (self._fresh, self._kept, self._stream)
        async with asyncio.TaskGroup() as clients:
            for kind in kinds:
                for _ in range(CLIENTS):
                    clients.create_task(self._go_on(kind))
            try:
                yield
            finally:
                self._over = True

    async def until(self, wanted: Callable[[], bool]) -> None:
        """Wait for it."""
        async with asyncio.timeout(PATIENCE):
            while not wanted():
                await asyncio.sleep(0.01)

    async def _go_on(self, kind: Callable[[], Awaitable[None]]) -> None:
        name = kind.__name__.strip("_")
        while not self._over:
            try:
                async with asyncio.timeout(PATIENCE):
                    await kind()
            except (OSError, EOFError, TimeoutError, AssertionError) as error:
                self.problems.append(f"{name}, after {self.answered}: {error!r}")
            await asyncio.sleep(PAUSE)

    async def _fresh(self) -> None:
        """One request, one connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(request("GET", "/v1/models", "Connection: close"))
            await answer(reader)
            assert not await reader.read()
            self.answered["fresh"] += 1
        finally:
            writer.close()

    async def _kept(self) -> None:
        """One request after the other on a connection, until the answer says that it ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            last = False
            while not (last or self._over):
                writer.write(request("POST", "/v1/chat/completions", body=chat("hi")))
                last = b"connection: close" in (await answer(reader)).lower()
                self.answered["kept"] += 1
                await asyncio.sleep(PAUSE)
        finally:
            writer.close()

    async def _stream(self) -> None:
        """A stream of half a second and more."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(request("POST", "/v1/chat/completions", body=chat(WORDS, stream=True)))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            self.streaming += 1
            try:
                data = await reader.readuntil(b"\r\n0\r\n\r\n")
            finally:
                self.streaming -= 1
            assert b"data: [DONE]" in data
            assert data.count(b'"word') + data.count(b'" word') == len(WORDS.split())
            self.answered["stream"] += 1
        finally:
            writer.close()


def request(method: str, path: str, *fields: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Authorization: Bearer sk-x", *fields]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chat(text: str, *, stream: bool = False) -> bytes:
    asked = {"model": "gpt-4o", "stream": stream, "messages": [{"role": "user", "content": text}]}
    return json.dumps(asked).encode()


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The head of one answer, whose body is read."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return head


def test_ten_restarts_refuse_no_connection_and_break_no_stream() -> None:
    async def journey(manager: Manager) -> Load:
        load = Load(manager.port)
        async with manager.service() as restart, load.running():
            for _ in range(RESTARTS):
                before = dict(load.answered)
                # Each kind was answered by this one, and streams are under way.
                await load.until(
                    lambda before=before: (  # type: ignore[misc]
                        load.streaming > 0 and all(load.answered[kind] > before[kind] for kind in before)
                    )
                )
                await restart()
        return load

    with manager() as made:
        load = asyncio.run(journey(made))
        assert load.problems == [], made.log
        assert "shutting_down" not in made.log
        assert "Traceback" not in made.log
    assert all(count > RESTARTS for count in load.answered.values()), load.answered
