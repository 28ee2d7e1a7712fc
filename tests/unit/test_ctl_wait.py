"""``llmproxyctl wait-ready``: it waits until clients are let in, and says why not."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llmproxyd.admin.client import Failed, Place
from llmproxyd.admin.ctl import main
from llmproxyd.admin.waiting import admin_look, public_look, wait

READY = (200, b'{"status": "ready"}')
STOPS = (503, b'{"status": "not ready", "reason": "it stops"}')


class Answers(ThreadingHTTPServer):
    """Answers each path, the last answer again and again."""

    def __init__(self, answers: Sequence[tuple[int, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = list(answers)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answers = self.server.answers
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[Answers]:
    with Answers(request.param) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


answering = pytest.mark.parametrize


@answering("served", [[STOPS, (502, b"bad gateway"), READY]], indirect=True)
def test_it_waits_until_it_is_ready(served: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wait-ready", "--url", served.url, "--timeout", "20s"]) == 0
    assert capsys.readouterr().out.startswith("Ready after ")
    assert served.asked == ["/health/ready"] * 3


@answering("served", [[STOPS]], indirect=True)
def test_after_the_timeout_the_last_reason_is_told(
    served: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert main(["wait-ready", "--url", served.url, "--timeout", "500ms", "--json"]) == 3
    assert 0.5 <= time.monotonic() - began < 10
    told = capsys.readouterr()
    assert "not ready within 500ms" in told.err
    assert "it stops" in told.err
    assert json.loads(told.out)["ready"] is False
    assert len(served.asked) > 1


@answering(
    "served",
    [[(status, body)] for status in (200, 404) for body in (b"<html>", b"[]", b'{"a": 1}', b"\xff", b"null")],
    indirect=True,
)
def test_other_server_is_not_ready(served: Answers) -> None:
    assert "no llmproxyd" in str(public_look(served.url))


@answering("served", [[(200, b'{"status": "healthy"}')]], indirect=True)
def test_only_ready_is_ready(served: Answers) -> None:
    assert public_look(served.url) is not None


@answering("served", [[(200, b'{"version": "1", "serving": {"ready": false, "reason": "the store"}}')]], indirect=True)  # fmt: skip
def test_status_of_the_admin_api_tells_it(served: Answers) -> None:
    look = admin_look(Place(url=served.url))
    assert look() == "the store"
    served.answers = [(200, b'{"serving": {"ready": true}}')]
    assert look() is None
    served.answers = [(503, b'{"error": {"code": "busy", "message": "Busy."}}')]
    assert look() == "Busy. (busy)"


@answering("served", [[(401, b'{"error": {"code": "token_missing", "message": "No."}}')]], indirect=True)
def test_refusal_that_no_waiting_mends_is_told_at_once(
    served: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Failed):
        admin_look(Place(url=served.url))()
    assert main(["--url", served.url, "wait-ready"]) == 1
    assert "token_missing" in capsys.readouterr().err
    assert len(served.asked) == 2


def test_nobody_listens_yet(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    assert main(["wait-ready", "--url", f"http://127.0.0.1:{port}", "--timeout", "0"]) == 3
    assert "nobody listens" in capsys.readouterr().err
    assert main(["--socket", "/nowhere/admin.sock", "wait-ready", "--timeout", "0"]) == 3
    assert "/nowhere/admin.sock: missing" in capsys.readouterr().err


def test_progress_is_told_and_taken_away() -> None:
    reasons = iter(["not yet", None])
    told: list[tuple[bool, str]] = []
    assert wait(lambda: next(reasons), 10, lambda seconds, why: told.append((seconds >= 0, why))) is None
    assert told == [(True, "not yet"), (True, "")]


@pytest.mark.parametrize("text", ["soon", "-1s", ""])
def test_timeout_that_is_none_is_a_usage_mistake(text: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["wait-ready", f"--timeout={text}"])
    assert ended.value.code == 2
