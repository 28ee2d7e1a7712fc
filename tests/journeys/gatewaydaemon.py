"""The daemon as a team runs it: project tokens, llmproxyctl, and an upstream that speaks three APIs."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import flaky
from daemon import PATIENCE, Daemon, environment
from flaky import (
    BLOCK_START,
    CHAT,
    DONE,
    HELLO,
    MESSAGE_END,
    MESSAGE_START,
    ROLE,
    STOP,
    TEXT,
    Flaky,
    Request,
    Step,
    answer,
    stream,
)

from llmproxyd.admin.client import Client, Place

Found = TypeVar("Found")

CTL = [sys.executable, "-m", "llmproxyd.admin.ctl"]


@dataclass(frozen=True)
class Said:
    """What llmproxyctl came to."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Team:
    """A daemon with folders of its own, which outlive it: it can be killed and started again.

    :ivar told: everything that llmproxyctl and the admin API answered.
    """

    folder: Path
    settings: Path
    daemon: Daemon
    told: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.daemon.url

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "admin.sock"

    def ctl(self, *arguments: str, stdin: str = "") -> Said:
        """Run llmproxyctl in a folder with the daemon's files, which it finds by itself."""
        done = subprocess.run(
            [*CTL, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.folder,
            env=environment(self.folder, folders(self.folder)),
        )
        assert "Traceback" not in done.stderr, done.stderr
        self.told.append(done.stderr)
        if arguments[:2] not in (("token", "create"), ("token", "rotate")):
            self.told.append(done.stdout)  # the others tell a token, this once
        return Said(done.returncode, done.stdout, done.stderr)

    @property
    def api(self) -> Client:
        """The same without a process for each call."""
        return Client(Place(sockets=[self.socket]))

    def project(self, name: str, **more: object) -> Any:
        """A new project whose every upstream has a key."""
        keys = {one: f"sk-{one}-of-{name}" for one in ("openai", "anthropic", "google")}
        return self.api.call("POST", "projects", body={"name": name, "credentials": keys, **more})

    def token(self, project: str, **more: object) -> str:
        made = self.api.call("POST", "tokens", body={"project": project, **more})
        return str(made["token"])

    def status(self) -> Any:
        return self.api.call("GET", "status")

    def start(self) -> None:
        """Start it again."""
        self.outputs.append(self.daemon.output)
        self.daemon = daemon(self.folder, self.settings)
        self.daemon.__enter__()

    def close(self) -> None:
        try:
            if self.daemon.process.returncode is None:
                self.daemon.stop()
        finally:
            self.daemon._clean()
            shutil.rmtree(self.folder, ignore_errors=True)


def folders(folder: Path) -> dict[str, str]:
    return {"STATE_DIRECTORY": str(folder / "state"), "RUNTIME_DIRECTORY": str(folder / "run")}


def daemon(folder: Path, settings: Path, *, port: int = 0, env: Mapping[str, str] | None = None) -> Daemon:
    variables = {**folders(folder), **(env or {})}
    listen = ("--port", str(port), "--interface", "127.0.0.1")
    return Daemon("--config", str(settings), stdin="null", env=variables, listen=listen)


def started(
    settings: str, name: str = "llmproxyd.yaml", *, port: int = 0, env: Mapping[str, str] | None = None
) -> Team:
    """A daemon with *settings* (YAML), once clients can be let in."""
    folder = Path(tempfile.mkdtemp(prefix="team-"))
    (folder / "state").mkdir()
    (folder / "run").mkdir()
    file = folder / name
    file.write_text(settings)
    file.chmod(0o600)
    made = daemon(folder, file, port=port, env=env)
    try:
        made.__enter__()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Team(folder, file, made)


def until(look: Callable[[], Found], seconds: float = PATIENCE, every: float = 0.02) -> Found:
    """What *look* gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"still {found!r} after {seconds} s"
        time.sleep(every)
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def lines(file: Path) -> list[Any]:
    """The lines of JSON in *file*, all of them whole."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


# An upstream that speaks as OpenAI, Anthropic and Google do.

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [{"type": "text", "text": "Hello."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 10, "output_tokens": 5},
}
CONTENT = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "Hello."}]}, "finishReason": "STOP", "index": 0}
    ],
    "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15},
    "modelVersion": "gemini-x",
}
MODELS = {"object": "list", "data": [{"id": "gpt-4o", "object": "model", "created": 1, "owned_by": "x"}]}
USED = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "gpt-4o",
    "choices": [],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
}


class Providers(Flaky):
    """Answers each API in its form, and notes every request.

    :ivar fields: of answers to ``GET``.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.fields: dict[str, str] = {}

    def take(self, request: Request) -> list[Step]:
        with self.lock:
            self.requests.append(request)
        path = request.path.partition("?")[0]
        streaming = b'"stream":true' in request.body.replace(b" ", b"")
        if request.line.startswith(("GET", "HEAD")):
            return answer(MODELS, **self.fields)
        if path.endswith(":streamGenerateContent"):
            return stream(b"data: " + json.dumps(CONTENT).encode() + b"\r\n\r\n")
        if path.endswith(":generateContent"):
            return answer(CONTENT)
        if path.endswith("/messages"):
            return stream(MESSAGE_START, BLOCK_START, TEXT, MESSAGE_END) if streaming else answer(MESSAGE)
        if streaming:
            used = b"data: " + json.dumps(USED).encode() + b"\n\n"
            return stream(ROLE, HELLO, STOP, used, DONE)
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        return answer({**CHAT, "usage": usage}, **self.fields)

    @property
    def last(self) -> Request:
        return self.requests[-1]


def providers() -> Any:
    """Such an upstream on a free port, within a ``with`` block."""
    return flaky.flaky(kind=Providers)
