"""An upstream that fails as its script says, in threads of its own."""

from __future__ import annotations

import gzip
import json
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

Step = Callable[[socket.socket], None]


@dataclass
class Request:
    """One request as it came.

    :ivar at: monotonic seconds.
    """

    line: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]


class Flaky:
    """Plays one script a request; the last one is repeated.

    :ivar scripts: each a list of steps.
    :ivar down: connections are closed at once.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.scripts: list[list[Step]] = []
        self.requests: list[Request] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def play(self, *scripts: list[Step]) -> None:
        """From now on answer by *scripts*."""
        with self.lock:
            self.scripts = list(scripts)
            self.requests = []

    def take(self, request: Request) -> list[Step]:
        with self.lock:
            self.requests.append(request)
            return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]


Made = TypeVar("Made", bound=Flaky)


@contextmanager
def flaky(port: int = 0, kind: Callable[[int], Made] = Flaky) -> Iterator[Made]:  # type: ignore[assignment]
    """Such an upstream on *port*, as long as the block lasts.

    :param kind: makes one that answers in another way.
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline().decode("latin-1").strip():
                headers = {}
                while entry := self.rfile.readline().decode("latin-1").strip():
                    name, _, value = entry.partition(":")
                    headers[name.lower()] = value.strip()
                body = self.rfile.read(int(headers.get("content-length", "0")))
                for step in upstream.take(Request(line, headers, body)):
                    try:
                        step(self.connection)
                    except (OSError, Gone):
                        return

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", port), Handler) as server:
        upstream = kind(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield upstream
        finally:
            server.shutdown()
            thread.join()


class Gone(Exception):
    """The connection was closed by the script."""


def send(data: bytes) -> Step:
    return lambda connection: connection.sendall(data)


def wait(seconds: float) -> Step:
    return lambda _: time.sleep(seconds)


def close(connection: socket.socket) -> None:
    """End the connection here."""
    connection.shutdown(socket.SHUT_RDWR)
    raise Gone


def reset(connection: socket.socket) -> None:
    """Reset the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise Gone


def answer(value: object, status: str = "200 OK", **fields: str) -> list[Step]:
    """A whole JSON answer; underscores in names of *fields* are hyphens."""
    body = json.dumps(value).encode()
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return [send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)]


def stream(*events: bytes, cut: bool = False, coded: bool = False) -> list[Step]:
    """A chunked stream, cut off after its last event or ended as it should be."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    packer = gzip.zlib.compressobj(wbits=31)  # type: ignore[attr-defined]
    steps = [send(head + (b"Content-Encoding: gzip\r\n" if coded else b"") + b"\r\n")]
    for one in events:
        data = packer.compress(one) + packer.flush(2) if coded else one
        steps += [send(b"%x\r\n%s\r\n" % (len(data), data)), wait(0.01)]
    last = packer.flush() if coded else b""
    ending = (b"%x\r\n%s\r\n" % (len(last), last) if last else b"") + b"0\r\n\r\n"
    return [*steps, close if cut else send(ending)]


# What OpenAI's and Anthropic's APIs say.

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


def chat_event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    value = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }
    return b"data: " + json.dumps(value).encode() + b"\n\n"


ROLE = chat_event({"role": "assistant", "content": ""})
HELLO = chat_event({"content": "Hello."})
STOP = chat_event({}, "stop")
DONE = b"data: [DONE]\n\n"


def openai_error(status: str, message: str, **fields: str) -> list[Step]:
    error = {"message": message, "type": "server_error", "param": None, "code": None}
    return answer({"error": error}, status, **fields)


def anthropic_event(name: str, **members: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **members})}\n\n".encode()


MESSAGE_START = anthropic_event(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
)
PING = anthropic_event("ping")
BLOCK_START = anthropic_event("content_block_start", index=0, content_block={"type": "text", "text": ""})
TEXT = anthropic_event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello."})
MESSAGE_END = (
    anthropic_event("content_block_stop", index=0)
    + anthropic_event(
        "message_delta",
        delta={"stop_reason": "end_turn", "stop_sequence": None},
        usage={"output_tokens": 2},
    )
    + anthropic_event("message_stop")
)
OVERLOADED = anthropic_event("error", error={"type": "overloaded_error", "message": "Overloaded"})
