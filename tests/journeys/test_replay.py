"""Sessions that were recorded, replayed with nobody behind the proxy."""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import flaky
import pytest
from anthropic import Anthropic
from daemon import Daemon
from flaky import Flaky
from openai import APIStatusError, OpenAI
from raw import MESSAGES, Answer, ask

from llmproxyd.cassettes.folder import load

KEY = "sk-proj-Zq947110815abcdefghijklmn"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "shell",
            "description": "Runs a command",
            "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
        },
    }
]


@pytest.fixture
def upstream() -> Iterator[Flaky]:
    with flaky.flaky() as made:
        yield made


@pytest.fixture
def tapes(tmp_path: Path) -> Path:
    return tmp_path / "tapes"


def recording(upstream: Flaky, tapes: Path, *more: str) -> Daemon:
    env = {f"LLMPROXYD_UPSTREAMS__{name}__BASE_URL": upstream.url for name in ("OPENAI", "ANTHROPIC")}
    return Daemon("--record", str(tapes), *more, env=env)


def replaying(tapes: Path, *more: str) -> Daemon:
    return Daemon("--replay", str(tapes), "--speed", "0", *more)


@contextmanager
def overheard(url: str) -> Iterator[tuple[str, list[bytearray]]]:
    """A way to *url*, and all the bytes that come back on it, of each connection its own."""
    came: list[bytearray] = []
    place = urlsplit(url)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((place.hostname, place.port)) as there:
                threading.Thread(target=carry, args=(self.request, there, None), daemon=True).start()
                heard = bytearray()
                came.append(heard)
                carry(there, self.request, heard)

    def carry(source: socket.socket, sink: socket.socket, heard: bytearray | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if heard is not None:
                    heard += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", came
        finally:
            server.shutdown()
            thread.join()


def by_openai(url: str) -> list[Any]:
    """What the SDK makes of four answers."""
    client = OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    chat: Any = {"model": "gpt-4o", "messages": MESSAGES}
    found: list[Any] = [client.chat.completions.create(**chat)]
    found += list(client.chat.completions.create(**chat, stream=True))
    found += list(client.chat.completions.create(**chat, stream=True, temperature=0.5))
    with pytest.raises(APIStatusError) as caught:
        client.chat.completions.create(**chat, temperature=1)
    found.append((caught.value.status_code, caught.value.body))
    return found


def by_anthropic(url: str) -> list[Any]:
    """The same of the other one."""
    client = Anthropic(base_url=url, api_key=KEY, max_retries=0)
    message: Any = {"model": "claude-x", "max_tokens": 64, "messages": MESSAGES}
    found: list[Any] = list(client.messages.create(**message, stream=True))
    with client.messages.stream(**{**message, "max_tokens": 7}) as events:
        found.append(events.get_final_message())
    return found


CHAT_STREAM = (flaky.ROLE, flaky.HELLO, flaky.STOP, flaky.DONE)
MESSAGE = (flaky.MESSAGE_START, flaky.PING, flaky.BLOCK_START, flaky.TEXT, flaky.MESSAGE_END)
SDKS = {
    "openai": (
        by_openai,
        [
            flaky.answer(flaky.CHAT, x_request_id="req_1"),
            flaky.stream(*CHAT_STREAM),
            flaky.stream(*CHAT_STREAM, coded=True),
            flaky.openai_error("503 Service Unavailable", "busy", retry_after="7"),
        ],
    ),
    "anthropic": (by_anthropic, [flaky.stream(*MESSAGE), flaky.stream(*MESSAGE, coded=True)]),
}


@pytest.mark.parametrize("sdk", SDKS)
def test_what_an_sdk_was_answered_is_answered_again_byte_for_byte(
    sdk: str, upstream: Flaky, tapes: Path
) -> None:
    use, scripts = SDKS[sdk]
    upstream.play(*scripts)
    with recording(upstream, tapes) as daemon, overheard(daemon.url) as (url, first):
        said = use(url)
        assert f"Recording to {tapes}." in daemon.output
    assert len(upstream.requests) == len(scripts)
    assert all(KEY not in file.read_text() for file in tapes.iterdir())
    with replaying(tapes) as daemon, overheard(daemon.url) as (url, again):
        assert use(url) == said
        assert f"Replaying {len(scripts)} recordings from {tapes}, without waits" in daemon.output
    # Heads, bodies, and the chunks in which they came.  Clients leave at the last word, and may miss what
    # tells nothing more: the check sum of a coded body, the chunk that ends it.
    assert len(first) == len(again)
    for one, other in zip(first, again, strict=True):
        shorter, longer = sorted((bytes(one), bytes(other)), key=len)
        assert longer.startswith(shorter)
        missed = longer[len(shorter) :]
        assert not missed or (missed.endswith(b"0\r\n\r\n") and len(missed) < 24)
    assert b"".join(map(bytes, first)).count(b"HTTP/1.1 ") == len(scripts)
    assert len(upstream.requests) == len(scripts)


# A session of an agent: it asks, is told to call tools, tells what they said, and is answered.


def call(index: int, number: str, arguments: str) -> list[bytes]:
    """The events of one call, its arguments in pieces."""
    begin = {"index": index, "id": number, "type": "function", "function": {"name": "shell", "arguments": ""}}
    pieces = [arguments[at : at + 5] for at in range(0, len(arguments), 5)]
    events = [flaky.chat_event({"tool_calls": [begin]})]
    return events + [
        flaky.chat_event({"tool_calls": [{"index": index, "function": {"arguments": one}}]}) for one in pieces
    ]


TURNS = [
    [
        flaky.ROLE,
        *call(0, "call_1", '{"command": "ls"}'),
        *call(1, "call_2", '{"command": "cat \\"notes ü.txt\\""}'),
        flaky.chat_event({}, "tool_calls"),
        flaky.DONE,
    ],
    [
        flaky.ROLE,
        flaky.chat_event({"content": "One more:"}),
        *call(0, "call_3", '{"command": "date"}'),
        flaky.chat_event({}, "tool_calls"),
        flaky.DONE,
    ],
    [flaky.ROLE, flaky.chat_event({"content": "All is well."}), flaky.STOP, flaky.DONE],
]


def session(url: str, number: str) -> tuple[list[Any], list[bytes]]:
    """One session as goose has it: all messages, and the bytes that were answered.

    What is asked next follows from what was answered before, down to ids and arguments.
    """
    messages: list[Any] = [
        {"role": "system", "content": "You are goose."},
        {"role": "user", "content": "look around"},
    ]
    came: list[bytes] = []
    for _ in range(9):
        answer = ask(
            url,
            "/v1/chat/completions",
            {"Authorization": f"Bearer {KEY}", "goose-session-id": number, "User-Agent": "goose"},
            {
                "model": "gpt-4o",
                "messages": messages,
                "tools": TOOLS,
                "stream": True,
                "stream_options": {"include_usage": True},
                "user": number,
            },
        )
        assert answer.status == 200, answer.body
        came.append(answer.body)
        message, calls = read(answer.body)
        messages.append(message)
        if not calls:
            return messages, came
        for one in calls:
            command = json.loads(one["function"]["arguments"])["command"]
            messages.append({"role": "tool", "tool_call_id": one["id"], "content": f"$ {command}\nfine"})
    raise AssertionError("it never ended")


def read(body: bytes) -> tuple[dict[str, Any], list[Any]]:
    """The message that a stream amounts to, and the calls in it."""
    text = ""
    calls: dict[int, Any] = {}
    for line in body.decode().split("\n"):
        if not line.startswith("data: {"):
            continue
        delta = json.loads(line[6:])["choices"][0]["delta"]
        text += delta.get("content") or ""
        for one in delta.get("tool_calls", ()):
            known = calls.setdefault(
                one["index"], {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            )
            known["id"] += one.get("id", "")
            for name, value in one["function"].items():
                known["function"][name] += value
    assert body.endswith(flaky.DONE)
    made = list(calls.values())
    return {"role": "assistant", "content": text, **({"tool_calls": made} if made else {})}, made


def test_a_session_with_tools_is_replayed_with_no_upstream(tapes: Path, tmp_path: Path) -> None:
    with flaky.flaky() as upstream:
        upstream.play(*[flaky.stream(*turn) for turn in TURNS])
        with recording(upstream, tapes) as daemon:
            messages, came = session(daemon.url, "20251121_1")
        assert [request.headers["goose-session-id"] for request in upstream.requests] == ["20251121_1"] * 3
    assert [message["role"] for message in messages] == [
        *("system", "user", "assistant", "tool", "tool", "assistant", "tool", "assistant")
    ]
    assert came == [b"".join(turn) for turn in TURNS]
    names = [f"{number:04}-openai-chat-200.yaml" for number in (1, 2, 3)]
    assert sorted(os.listdir(tapes)) == names
    assert "    - goose-session-id: 20251121_1" in (tapes / names[0]).read_text()
    config = tmp_path / "replay.yaml"
    config.write_text(f"replay: {{folder: {tapes}, speed: 0, ignore: [user]}}\n")
    # Another session, another day: nobody is there but the recordings.
    with Daemon("--config", str(config)) as daemon:
        assert session(daemon.url, "20251122_9") == (messages, came)
        assert session(daemon.url, "20251122_10") == (messages, came)


def test_two_clients_at_once_have_the_same_session(upstream: Flaky, tapes: Path) -> None:
    upstream.play(*[flaky.stream(*turn) for turn in TURNS])
    with recording(upstream, tapes) as daemon:
        first = session(daemon.url, "20251121_1")
    with Daemon("--replay", str(tapes), "--speed", "4") as daemon:
        found: list[Any] = []
        clients = [
            threading.Thread(target=lambda: found.append(session(daemon.url, "20251121_1"))) for _ in range(4)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join(30)
        assert found == [first] * 4


def question(url: str, **more: object) -> Answer:
    body = {"model": "gpt-4o", "messages": MESSAGES, **more}
    return ask(url, "/v1/chat/completions", {"Authorization": f"Bearer {KEY}"}, body)


def test_a_question_that_was_not_recorded_says_what_is_near(upstream: Flaky, tapes: Path) -> None:
    upstream.play(flaky.answer(flaky.CHAT))
    with recording(upstream, tapes) as daemon:
        assert question(daemon.url).status == 200
    with replaying(tapes) as daemon:
        start = len(daemon.output)
        answer = question(daemon.url, temperature=2)
        assert (answer.status, answer.error["code"]) == (404, "no_recording")
        said = "The nearest, 0001-openai-chat-200.yaml, differs in temperature (not recorded)."
        assert answer.error["message"].endswith(said)
        assert daemon.wait_for("-> openai: 404 .*no_recording", start)
        details = ask(daemon.url, "/health/detailed").json
        assert details["replaying"] == {"folder": str(tapes), "recordings": 1, "played": 0, "missed": 1}


def test_after_kill_9_there_are_whole_recordings_alone(upstream: Flaky, tapes: Path) -> None:
    upstream.play(flaky.answer({**flaky.CHAT, "filler": "x" * 200_000}))
    with recording(upstream, tapes) as daemon:
        stop = threading.Event()

        def go_on() -> None:
            while not stop.is_set():
                try:
                    question(daemon.url)
                except (OSError, HTTPException):
                    return

        clients = [threading.Thread(target=go_on) for _ in range(3)]
        for client in clients:
            client.start()
        deadline = time.monotonic() + 30
        while len(list(tapes.glob("*.yaml"))) < 8:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
        stop.set()
        for client in clients:
            client.join(30)
    found = load(tapes)
    assert len(found) >= 8
    assert all(len(one.exchange.answered.body) > 200_000 for one in found)
    # The next one goes on behind them, and what was begun is gone.
    with recording(upstream, tapes) as daemon:
        assert question(daemon.url).status == 200
    assert len(load(tapes)) == len(found) + 1
    assert all(name.endswith(".yaml") for name in os.listdir(tapes))


def test_all_mistakes_in_recordings_are_told_at_the_start(upstream: Flaky, tapes: Path) -> None:
    upstream.play(flaky.answer(flaky.CHAT))
    with recording(upstream, tapes) as daemon:
        for _ in range(2):
            question(daemon.url)
    for name, old, new in (("0001", "status: 200", "status: 2000"), ("0002", "whole: true", "wole: true")):
        (file,) = tapes.glob(f"{name}-*")
        file.write_text(file.read_text().replace(old, new))
    with pytest.raises(AssertionError) as caught, replaying(tapes):
        pass
    told = str(caught.value)
    assert "it ended at once with 1" in told
    assert "0001-openai-chat-200.yaml:" in told
    assert 'response.status: found "2000"' in told
    assert "0002-openai-chat-200.yaml:" in told
    assert 'did you mean "whole"?' in told
