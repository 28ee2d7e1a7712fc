"""What becomes of a request when the proxy itself is at fault."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from llmproxyd.faults.choose import Engine
from llmproxyd.model import End, Event, Finished, Request, Response
from llmproxyd.pipeline.live import Live
from llmproxyd.pipeline.policy import Policy, Upstream
from llmproxyd.pipeline.route import Router
from llmproxyd.pipeline.run import Pipeline
from llmproxyd.providers.registry import registry
from llmproxyd.wire.wheel import Wheel

PROVIDERS = registry()
OPENAI = Upstream(name="openai", provider=PROVIDERS["openai"], base_url="http://127.0.0.1:1")


class Client:
    """A responder that remembers."""

    chunked = False

    def __init__(self) -> None:
        self.head: Response | None = None
        self.body = b""
        self.end = ""

    def start(self, response: Response) -> None:
        self.head = response

    def inform(self, response: Response) -> None:
        raise AssertionError("nothing comes before the answer")

    def write(self, data: bytes, *, last: bool = False) -> None:
        self.body += data

    def flush(self) -> None: ...

    def finish(self) -> None:
        self.end = "finished"

    def cut(self) -> None:
        self.end = "cut"

    def feed_from(self, producer: Any) -> None: ...

    def fed(self) -> None: ...


class Empty:
    """No body."""

    length = 0

    def excerpt(self, whole: int, end: int) -> Deferred[bytes]:
        raise AssertionError("nobody asks for it")

    def at_hand(self) -> Any:
        raise AssertionError("nobody asks for it")

    def keep(self) -> Deferred[Any]:
        raise AssertionError("nobody asks for it")

    def producer(self) -> None:
        return None


class Broken:
    """A sender with a fault."""

    def send(self, *arguments: object) -> Deferred[Any]:
        raise RuntimeError("a fault of our own")


@pytest.fixture
def logged() -> Any:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def run(**changed: Any) -> tuple[Pipeline, Client, list[Event]]:
    events: list[Event] = []
    router = Router({"openai": OPENAI}, PROVIDERS, default="openai")
    pipeline = Pipeline(
        policy=Policy(router=router, max_body=100),
        sender=changed.get("sender", Broken()),
        engine=Engine(lambda: 0.0, random.Random(1)),
        emit=events.append,
        wheel=Wheel(Clock()),
        wall=lambda: 0.0,
        prefix="t",
        live=Live(lambda: 0.0, events.append),
    )
    return pipeline, Client(), events


def test_a_fault_of_our_own_is_a_500_in_the_providers_shape_and_logged_whole(logged: list[LogEvent]) -> None:
    pipeline, client, events = run()
    pipeline.forward(Request(b"POST", b"/v1/chat/completions", []), Empty(), client)
    assert client.head is not None
    assert (client.head.status, client.end) == (500, "finished")
    assert json.loads(client.body)["error"]["code"] == "internal_error"
    assert b"fault of our own" not in client.body
    [finished] = [event for event in events if isinstance(event, Finished)]
    assert (finished.status, finished.code) == (500, "internal_error")
    assert [event["id"] for event in logged if event.get("log_failure")] == ["t-1"]
    assert not pipeline.active


def test_when_even_the_refusal_fails_the_client_is_cut_off(
    logged: list[LogEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, client, events = run()

    def fail(*_: object) -> None:
        raise RuntimeError("nor this")

    monkeypatch.setattr("llmproxyd.pipeline.answer.refuse", fail)
    pipeline.forward(Request(b"POST", b"/v1/chat/completions", []), Empty(), client)
    assert (client.head, client.end) == (None, "cut")
    [finished] = [event for event in events if isinstance(event, Finished)]
    assert finished.end is End.TRUNCATED
    assert not pipeline.active
    assert len([event for event in logged if event.get("log_failure")]) == 2


def test_waiting_for_idle_ends_with_the_last_request() -> None:
    class Waiting:
        def send(self, *arguments: object) -> Deferred[Any]:
            return Deferred()

    pipeline, client, _ = run(sender=Waiting())
    exchange = pipeline.forward(Request(b"GET", b"/v1/models", []), Empty(), client)
    idle = pipeline.when_idle()
    assert not idle.called
    pipeline.client_gone(exchange)
    assert idle.called
    assert pipeline.when_idle().called


def test_stopping_answers_those_who_wait_with_503() -> None:
    cancelled: list[object] = []

    class Waiting:
        def send(self, *arguments: object) -> Deferred[Any]:
            return Deferred(cancelled.append)

    pipeline, client, _ = run(sender=Waiting())
    pipeline.forward(Request(b"POST", b"/v1/chat/completions", []), Empty(), client)
    pipeline.cut_all()
    assert client.head is not None
    assert client.head.status == 503
    assert (b"retry-after", b"1") in client.head.headers
    assert len(cancelled) == 1
    assert not pipeline.active
