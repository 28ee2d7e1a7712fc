"""SIGHUP reads the file again: all of it holds, or nothing changes.  No stream is broken by it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon import PATIENCE, Daemon

BODY = json.dumps(
    {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello " * 30}], "stream": True}
)
HEADERS = {"content-type": "application/json", "authorization": "Bearer sk-nobody"}


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def hang_up(daemon: Daemon, said: str) -> None:
    """Reload, and wait for what the log says of it."""
    start = len(daemon.output)
    os.kill(daemon.process.pid, signal.SIGHUP)
    until(lambda: said in daemon.output[start:])


def stream(port: int) -> bytes:
    """All of one streamed answer; what it is cut short by is raised."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("POST", "/v1/chat/completions", BODY, HEADERS)
    return connection.getresponse().read()


class Streams:
    """*number* streams under way at once."""

    def __init__(self, port: int, number: int) -> None:
        self.ended: list[bytes | Exception] = []
        self._threads = [threading.Thread(target=self._one, args=(port,)) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def _one(self, port: int) -> None:
        try:
            self.ended.append(stream(port))
        except Exception as error:
            self.ended.append(error)

    def results(self) -> list[bytes | Exception]:
        for thread in self._threads:
            thread.join(PATIENCE)
        return self.ended


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "llmproxyd.yaml"
    path.write_text(SLOW)
    return path


SLOW = "sandbox: {enabled: true, tokens_per_second: 20}\n"


@pytest.fixture
def daemon(file: Path) -> Iterator[Daemon]:
    with Daemon("--config", str(file), stdin="null") as found:
        yield found


def active(daemon: Daemon) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE)
    connection.request("GET", "/health/detailed")
    found = json.loads(connection.getresponse().read())["active"]
    assert isinstance(found, int)
    return found


def test_streams_run_on_while_the_configuration_is_replaced(daemon: Daemon, file: Path) -> None:
    streams = Streams(daemon.port, 64)
    until(lambda: active(daemon) == 64)
    file.write_text(SLOW + "default_upstream: anthropic\nresilience: {default: {retry: {max_retries: 2}}}\n")
    hang_up(daemon, "Reloaded: default_upstream, ")
    ended = streams.results()
    assert [one for one in ended if not isinstance(one, bytes) or not one.endswith(b"data: [DONE]\n\n")] == []
    assert len(ended) == 64


def test_a_file_with_a_mistake_changes_nothing_and_every_mistake_is_told(daemon: Daemon, file: Path) -> None:
    file.write_text(SLOW + "default_upstream: nobody\nserver: {max_body: no}\nlistne: []\n")
    hang_up(daemon, f"{file}:4: listne")
    assert f"{file}:2: default_upstream" in daemon.output
    assert f"{file}:3: server.max_body" in daemon.output
    assert stream(daemon.port).endswith(b"data: [DONE]\n\n")
    file.write_text(SLOW)
    hang_up(daemon, "Reloaded: nothing changed")


def test_what_needs_a_restart_is_said(daemon: Daemon, file: Path) -> None:
    file.write_text("sandbox: {enabled: false}\nmetrics: {genai: true}\n")
    hang_up(daemon, "Only a restart changes: sandbox, metrics")
    assert stream(daemon.port).endswith(b"data: [DONE]\n\n")


def test_listeners_are_opened_and_closed_as_asked_for(tmp_path: Path) -> None:
    first, second = tmp_path / "first.sock", tmp_path / "second.sock"
    file = tmp_path / "llmproxyd.yaml"
    text = "sandbox: {{enabled: true}}\nlisten: ['tcp:0:interface=127.0.0.1', 'unix:{}:mode=600']\n"
    file.write_text(text.format(first))
    with Daemon("--config", str(file), stdin="null", listen=()) as daemon:
        assert first.exists()
        port = daemon.port
        file.write_text(text.format(second))
        hang_up(daemon, "Reloaded: listen")
        until(lambda: second.exists() and not first.exists())
        assert daemon.port == port
        assert stream(port).endswith(b"data: [DONE]\n\n")
        file.write_text(text.format("/nonexistent/folder/x.sock"))
        hang_up(daemon, "Not reloaded")
        assert second.exists()


def test_streams_under_way_come_to_their_end_when_the_daemon_stops(daemon: Daemon) -> None:
    streams = Streams(daemon.port, 20)
    until(lambda: active(daemon) == 20)
    os.kill(daemon.process.pid, signal.SIGTERM)
    ended = streams.results()
    assert len([one for one in ended if isinstance(one, bytes) and one.endswith(b"data: [DONE]\n\n")]) == 20
    assert daemon.process.wait(PATIENCE) == 0


def test_a_load_balancer_is_told_before_listening_ends(tmp_path: Path) -> None:
    file = tmp_path / "llmproxyd.yaml"
    file.write_text("sandbox: {enabled: true}\nserver: {drain_delay: 2s}\n")
    with Daemon("--config", str(file), stdin="null") as daemon:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE)
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b'{"status": "ready"}\n')
        os.kill(daemon.process.pid, signal.SIGTERM)
        until(lambda: "Not ready any more" in daemon.output)
        for path, status in (("/health/ready", 503), ("/health", 200), ("/v1/models", 200)):
            fresh = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE)
            fresh.request("GET", path, headers=HEADERS)
            assert fresh.getresponse().status == status
        assert daemon.process.wait(PATIENCE) == 0


def test_an_upstream_that_came_with_a_reload_can_be_named_at_once(daemon: Daemon, file: Path) -> None:
    file.write_text(SLOW + "upstreams: {spare: {provider: openai, base_url: 'http://127.0.0.1:9'}}\n")
    hang_up(daemon, "Reloaded: ")
    assert stream(daemon.port).endswith(b"data: [DONE]\n\n")
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE)
    connection.request("POST", "/to/spare/v1/chat/completions", BODY, HEADERS)
    assert connection.getresponse().read().endswith(b"data: [DONE]\n\n")


def test_a_fault_can_be_for_an_upstream_that_came_with_a_reload(file: Path) -> None:
    with Daemon("--config", str(file)) as daemon:
        assert "there is no upstream" in daemon.command("r upstream=spare")
        file.write_text(SLOW + "upstreams: {spare: {provider: openai, base_url: 'http://127.0.0.1:9'}}\n")
        hang_up(daemon, "Reloaded: ")
        assert "Rate limit exceeded" in daemon.command("r upstream=spare")
