"""Requests without an SDK, byte for byte as goose and others send them; an upstream that records."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

GOOSE = {"HTTP-Referer": "https://goose-docs.ai", "X-Title": "goose"}
MESSAGES = [{"role": "user", "content": "tell me a joke"}]
CHAT = {"model": "gpt-4o", "messages": MESSAGES}


@dataclass(frozen=True)
class Answer:
    """An answer, with the names of its fields in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """``error`` of the body."""
        return self.json["error"]

    @property
    def injected(self) -> bool:
        return self.headers.get("x-llmproxyd-error") == "injected"


def connect(url: str) -> HTTPConnection:
    return HTTPConnection(urlsplit(url).netloc, timeout=30)


def send(
    connection: HTTPConnection,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: object = None,
) -> Answer:
    """One request on *connection*; *body* goes as JSON, bytes as they are."""
    fields = dict(headers or {})
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    if data is not None:
        fields.setdefault("Content-Type", "application/json")
    connection.request(method, path, data, fields)
    answer = connection.getresponse()
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def ask(
    url: str, path: str, headers: Mapping[str, str] | None = None, body: object = None, method: str = ""
) -> Answer:
    """One request on a connection of its own: a POST when it has a body."""
    connection = connect(url)
    try:
        return send(connection, method or ("GET" if body is None else "POST"), path, headers, body)
    finally:
        connection.close()


def openai(url: str, *, model: str = "gpt-4o", path: str = "/v1/chat/completions", **more: object) -> Answer:
    body = {"model": model, "messages": MESSAGES, **more}
    return ask(url, path, {"Authorization": "Bearer sk-x"}, body)


def anthropic(url: str, *, model: str = "claude-sonnet-4-5", **more: object) -> Answer:
    body = {"model": model, "max_tokens": 64, "messages": MESSAGES, **more}
    return ask(url, "/v1/messages", {"x-api-key": "sk-ant-x", "anthropic-version": "2023-06-01"}, body)


def google(
    url: str, *, model: str = "gemini-2.5-flash", method: str = "generateContent", query: str = ""
) -> Answer:
    body = {"contents": [{"role": "user", "parts": [{"text": "tell me a joke"}]}]}
    return ask(url, f"/v1beta/models/{model}:{method}{query}", {"x-goog-api-key": "AIzaX"}, body)


@dataclass
class Recorder:
    """An upstream that takes everything and remembers it.

    :param status: what it answers.
    """

    url: str = ""
    status: int = 200
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    """Method, target, fields (names in lower case) and body."""

    @property
    def paths(self) -> list[str]:
        return [f"{method} {target}" for method, target, _, _ in self.requests]


@contextmanager
def recording() -> Iterator[Recorder]:
    """An upstream on a free port of 127.0.0.1."""
    found = Recorder()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            fields = {name.lower(): value for name, value in self.headers.items()}
            # Not self.path, in which slashes at the start have become one.
            target = self.requestline.split(" ")[1]
            found.requests.append((self.command, target, fields, body))
            text = b'{"upstream": "really"}'
            self.send_response(found.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
