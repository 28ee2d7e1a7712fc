"""What leaves the house: one event a request, in a file and at a webhook, whatever becomes of the daemon."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
import raw
from flaky import Flaky, Request, Step, answer, flaky
from gatewaydaemon import Providers, Team, lines, started, until

SETTINGS = """\
upstreams:
  openai: {{base_url: "{url}"}}
  anthropic: {{base_url: "{url}"}}
access: {{enabled: true}}
cache: {{enabled: true}}
events:
  prices:
    "gpt-4o*": {{input: 1000000, output: 2000000}}
  dispatch:
    - {{to: file, path: events.jsonl, every: 50ms}}
    - {{to: webhook, url: "{hook}/in", headers: {{x-secret: "{secret}"}}, every: 50ms, batch: 5}}
"""
SECRET = "what-the-collector-knows-us-by"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CHAT = "/v1/chat/completions"


class Collector(Flaky):
    """Takes batches.

    :ivar down: answer 503 as long as it holds.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.down = False

    def take(self, request: Request) -> list[Step]:
        if self.down:
            return answer({}, "503 Service Unavailable")
        with self.lock:
            self.requests.append(request)
        return answer({})

    @property
    def events(self) -> list[Any]:
        with self.lock:
            return [event for request in self.requests for event in request.json]


@dataclass
class Scene:
    team: Team
    upstream: Providers
    collector: Collector
    token: str
    project_id: str
    token_id: str

    def fields(self, **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", **more}

    @property
    def written(self) -> list[Any]:
        return lines(self.team.folder / "state" / "events.jsonl")

    def of(self, act: Callable[[], object], number: int = 1) -> list[Any]:
        """The events of what *act* does, which are the same in both places."""
        before = len(self.written)
        act()
        until(lambda: len(self.written) >= before + number)
        new = self.written[before:]
        assert len(new) == number
        ids = [one["id"] for one in new]
        until(lambda: {one["id"] for one in self.collector.events} >= set(ids))
        assert [one for one in self.collector.events if one["id"] in ids] == new
        return new


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with flaky(kind=Providers) as upstream, flaky(kind=Collector) as collector:
        upstream.fields = {"Cache-Control": "public, max-age=60"}
        team = started(SETTINGS.format(url=upstream.url, hook=collector.url, secret=SECRET))
        try:
            project = team.project("crew")
            token = team.token("crew")
            (known,) = team.api.call("GET", "tokens")["tokens"]
            yield Scene(team, upstream, collector, token, project["id"], known["id"])
        finally:
            team.close()


def test_an_event_tells_whose_request_it_was_what_it_used_and_what_it_cost(scene: Scene) -> None:
    fields = scene.fields(traceparent=TRACE)
    (event,) = scene.of(lambda: raw.ask(scene.team.url, CHAT, fields, raw.CHAT))
    told = {
        "event": "request",
        "project": scene.project_id,
        "token": scene.token_id,
        "traceparent": TRACE,
        "method": "POST",
        "path": CHAT,
        "upstream": "openai",
        "provider": "openai",
        "operation": "chat",
        "kind": "inference",
        "model": "gpt-4o",
        "response_model": "gpt-4o",
        "status": 200,
        "end": "complete",
        "stream": False,
        "attempts": 1,
        "fault": None,
        "code": None,
        "upstream_failed": False,
        "request_bytes": len(json.dumps(raw.CHAT)),
        "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
        "cost": 20.0,
        "finish_reason": "stop",
    }
    assert {name: event[name] for name in told} == told
    assert 0 < event["first_byte_ms"] <= event["duration_ms"] < 30_000
    (sent,) = [one for one in scene.collector.requests if event["id"].encode() in one.body]
    assert sent.headers["x-secret"] == SECRET
    assert sent.headers["content-type"] == "application/json"


def test_a_stream_tells_its_first_token_and_its_usage(scene: Scene) -> None:
    client = openai.OpenAI(base_url=f"{scene.team.url}/v1", api_key=scene.token, max_retries=0)
    ask: Any = {"model": "gpt-4o", "messages": raw.MESSAGES, "stream": True}
    (event,) = scene.of(lambda: list(client.chat.completions.create(**ask)))
    assert (event["stream"], event["end"], event["usage"]["output_tokens"]) == (True, "complete", 5)
    assert event["cost"] == 20.0
    assert event["first_byte_ms"] <= event["first_token_ms"] <= event["duration_ms"]


def test_what_the_cache_did_stands_there(scene: Scene) -> None:
    def act() -> None:
        for _ in range(2):
            assert raw.ask(scene.team.url, "/v1/models", scene.fields()).status == 200
        bypass = scene.fields(**{"Cache-Control": "no-store"})
        assert raw.ask(scene.team.url, "/v1/models", bypass).status == 200

    events = scene.of(act, 3)
    assert [one["cache"] for one in events] == ["miss", "hit", "bypass"]
    assert [one["attempts"] for one in events] == [1, 0, 1]


def test_a_refused_request_has_an_event_too(scene: Scene) -> None:
    (event,) = scene.of(
        lambda: raw.ask(scene.team.url, CHAT, {"Authorization": "Bearer sk-nobody"}, raw.CHAT)
    )
    assert (event["status"], event["code"]) == (401, "token_not_found")
    assert (event["project"], event["token"], event["attempts"]) == (None, None, 0)
    assert event["usage"] is None


def test_another_provider_is_read_in_its_form(scene: Scene) -> None:
    body = {"model": "claude-x", "max_tokens": 9, "messages": raw.MESSAGES}
    fields = {"x-api-key": scene.token, "anthropic-version": "2023-06-01"}
    (event,) = scene.of(lambda: raw.ask(scene.team.url, "/v1/messages", fields, body))
    assert (event["provider"], event["response_model"], event["finish_reason"]) == (
        "anthropic",
        "claude-x",
        "end_turn",
    )
    assert event["usage"]["input_tokens"] == 10
    assert event["cost"] is None, "no price is known"


def test_a_collector_that_is_down_gets_everything_once_it_is_back(scene: Scene) -> None:
    def act() -> None:
        scene.collector.down = True
        for _ in range(12):
            assert raw.ask(scene.team.url, CHAT, scene.fields(), raw.CHAT).status == 200
        scene.collector.down = False

    scene.of(act, 12)


def test_killed_in_the_middle_it_leaves_lines_that_can_be_read(scene: Scene) -> None:
    team = scene.team
    connection, done = raw.connect(team.url), 0
    before = len(scene.written)
    while len(scene.written) < before + 40:
        assert raw.send(connection, "POST", CHAT, scene.fields(), raw.CHAT).status == 200
        done += 1
    team.daemon.stop(signal.SIGKILL)
    connection.close()
    kept = scene.written[before:]
    assert 40 <= len(kept) <= done
    assert len({one["id"] for one in kept}) == len(kept)
    file = team.folder / "state" / "events.jsonl"
    with file.open("a") as out:
        out.write('{"id": "torn by a power c')
    team.start()
    assert raw.ask(team.url, CHAT, scene.fields(), raw.CHAT).status == 200
    last = until(lambda: [line for line in file.read_text().splitlines()[-1:] if line.endswith("}")])[0]
    assert json.loads(last)["status"] == 200
    assert json.loads(last)["id"] not in {one["id"] for one in kept}
    assert sum(not line.endswith("}") for line in file.read_text().splitlines()) == 1
    assert oct(file.stat().st_mode & 0o777) == "0o600"


def test_what_waits_when_it_is_stopped_is_sent(scene: Scene) -> None:
    before = len(scene.collector.events)
    connection = raw.connect(scene.team.url)
    for _ in range(30):
        raw.send(connection, "POST", CHAT, scene.fields(), raw.CHAT)
    connection.close()
    assert scene.team.daemon.stop() == 0
    assert len(scene.collector.events) - before >= 30
    everything = repr(scene.collector.requests) + (scene.team.folder / "state" / "events.jsonl").read_text()
    assert scene.token not in everything
    assert "sk-openai-of-crew" not in everything
