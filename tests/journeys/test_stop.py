"""A graceful stop: what runs is finished, nothing new begins."""

from __future__ import annotations

import json
import signal
import socket
import time
from http.client import HTTPResponse

import pytest
import raw
from daemon import Daemon

SLOW = {"LLMPROXYD_SANDBOX__TOKENS_PER_SECOND": "20"}
WORDS = " ".join(f"word{number}" for number in range(25))


def begin_stream(url: str) -> HTTPResponse:
    """A chat whose stream has begun and will last more than a second."""
    connection = raw.connect(url)
    body = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": WORDS}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.readline().startswith(b"data: ")
    return answer


def text_of(stream: bytes) -> str:
    assert stream.endswith(b"data: [DONE]\n\n")
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: {")]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events)


@pytest.mark.parametrize("way", ["SIGTERM", "q"])
def test_a_running_stream_is_finished(way: str) -> None:
    with Daemon("--sandbox", env=SLOW) as daemon:
        begun = time.monotonic()
        answer = begin_stream(daemon.url)
        if way == "q":
            daemon.type("q")
        else:
            daemon.process.send_signal(signal.Signals[way])
        daemon.wait_for("Finishing 1 running request")
        with pytest.raises(ConnectionRefusedError):
            raw.ask(daemon.url, "/health")
        assert text_of(answer.read()) == f"You said: {WORDS}"
        assert time.monotonic() - begun > 1
        assert daemon.ended() == 0
        assert "200 in" in daemon.output
        assert "cut" not in daemon.output.rpartition("Finishing")[2].partition("\n")[2]


def test_a_second_signal_cuts_it_visibly() -> None:
    with Daemon("--sandbox", env={"LLMPROXYD_SANDBOX__TOKENS_PER_SECOND": "2"}) as daemon:
        answer = begin_stream(daemon.url)
        begun = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("Finishing 1 running request")
        assert daemon.stop() == 0
        assert time.monotonic() - begun < 10
        with pytest.raises(Exception, match=r"IncompleteRead|reset"):
            answer.read()
        assert "shutting_down" in daemon.output


def test_the_time_for_finishing_is_bounded() -> None:
    env = {"LLMPROXYD_SANDBOX__TOKENS_PER_SECOND": "1", "LLMPROXYD_SERVER__DRAIN_TIMEOUT": "500ms"}
    with Daemon("--sandbox", env=env) as daemon:
        answer = begin_stream(daemon.url)
        begun = time.monotonic()
        assert daemon.stop() == 0
        assert 0.5 <= time.monotonic() - begun < 10
        with pytest.raises(Exception, match=r"IncompleteRead|reset"):
            answer.read()


def test_an_idle_connection_does_not_hold_it_up() -> None:
    with Daemon("--sandbox") as daemon:
        connection = raw.connect(daemon.url)
        assert raw.send(connection, "POST", "/v1/chat/completions", {}, raw.CHAT).status == 200
        with socket.create_connection(("127.0.0.1", daemon.port)):
            begun = time.monotonic()
            assert daemon.stop() == 0
            assert time.monotonic() - begun < 5
        connection.close()
