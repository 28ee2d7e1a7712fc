"""The gateway proxy package's own ``api_providers.yaml`` and variables: each one changed, and seen at work."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import raw
from flaky import DONE, HELLO, Request, Step, flaky, stream, wait
from gatewaydaemon import Providers, Team, providers, started, until

sys.path.insert(0, str(Path(__file__).parents[1]))
from redisserver import RedisServer

PRINTED = """\
default_api: openai
apis:
  openai:
    base_url: https://api.openai.com
    allowed_endpoints:
      - /v1/chat/completions
      - /v1/embeddings
    allowed_methods:
      - GET
      - POST
    timeouts:
      request: 120s
      response_header: 30s
    connection:
      max_idle_conns: 100
      max_idle_conns_per_host: 20
"""

CHANGES = {
    "allowed_endpoints": "allowed_endpoints: [/v1/embeddings]",
    "allowed_methods": "allowed_methods: [GET]",
    "request": "timeouts: {request: 400ms}",
    "response_header": "timeouts: {request: 120s, response_header: 400ms}",
    "idle_connection": "timeouts: {request: 120s, idle_connection: 200ms}",
    "flush_interval": "timeouts: {request: 120s, flush_interval: 600ms}",
    "max_idle_conns": "connection: {max_idle_conns: 1, max_idle_conns_per_host: 20}",
    "max_idle_conns_per_host": "connection: {max_idle_conns: 100, max_idle_conns_per_host: 1}",
    "param_whitelist": "param_whitelist: {model: [gpt-4o, gpt-4o-*]}",
    "allowed_origins": "allowed_origins: ['https://chat.example.com']",
    "required_headers": "required_headers: [X-Team]",
}
"""An API for each key, as printed but for that one."""

PATH = "/v1/chat/completions"


class Slow(Providers):
    """Answers late, or bit by bit, as the model is called; notes connections.

    :ivar peers: the other end of the connection of each request.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.peers: list[int] = []

    def take(self, request: Request) -> list[Step]:
        steps = super().take(request)
        model = request.json.get("model") if request.body else None
        if model == "late":
            steps = [wait(0.6), *steps]
        elif model == "drip":
            steps = [one for step in stream(*[HELLO] * 6, DONE) for one in (step, wait(0.04))]
        elif model == "halting":
            steps = stream(HELLO, DONE)
            steps.insert(2, wait(0.7))
        return [lambda connection: self.peers.append(connection.getpeername()[1]), *steps]


def variants(url: str) -> str:
    """The printed file with an API more for each of :data:`CHANGES`."""
    text = PRINTED.replace("https://api.openai.com", url)
    body = text.partition("  openai:\n")[2]
    for name, change in CHANGES.items():
        key = change.partition(":")[0]
        # Its own block, with what is indented below it.
        kept = re.sub(rf"(?m)^    {key}:\n(?:      .*\n)+", "", body)
        text += f"  {name}:\n{kept}    {change}\n"
    return text


@pytest.fixture(scope="module")
def upstream() -> Iterator[Slow]:
    with flaky(kind=Slow) as made:
        yield made


@contextmanager
def gateway(settings: str, env: Mapping[str, str] | None = None) -> Iterator[tuple[Team, str]]:
    """A daemon with the file *settings*, and a token that may use all its APIs."""
    team = started(settings, "api_providers.yaml", env=env)
    try:
        names = team.api.call("GET", "config")["upstreams"]
        keys = {name: f"sk-of-{name}" for name in names}
        team.api.call("POST", "projects", body={"name": "all", "credentials": keys})
        yield team, team.token("all")
    finally:
        team.close()


@pytest.fixture(scope="module")
def changed(upstream: Slow) -> Iterator[tuple[Team, str]]:
    with gateway(variants(upstream.url), {"LLMPROXYD_OPERATOR__FAULTS": "true"}) as made:
        yield made


class Client:
    """Asks one API of the daemon."""

    def __init__(self, changed: tuple[Team, str], api: str = "openai") -> None:
        self.team, self.token = changed
        self.path = f"/to/{api}{PATH}"

    def fields(self, **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", **more}

    def ask(self, model: str = "gpt-4o", **more: str) -> raw.Answer:
        return raw.ask(self.team.url, self.path, self.fields(**more), {**raw.CHAT, "model": model})

    def code(self, model: str = "gpt-4o", **more: str) -> Any:
        """The status, or the code of an error."""
        got = self.ask(model, **more)
        return got.status if got.status == 200 else got.error["code"]


def test_the_file_as_it_is_printed_lets_in_what_it_lists(upstream: Slow) -> None:
    with gateway(PRINTED.replace("https://api.openai.com", upstream.url)) as (team, token):
        fields = {"Authorization": f"Bearer {token}"}
        assert raw.ask(team.url, PATH, fields, raw.CHAT).json["choices"]
        assert upstream.last.headers["authorization"] == "Bearer sk-of-openai"
        assert raw.ask(team.url, "/v1/embeddings", fields, raw.CHAT).status == 200
        for path in (
            "/v1/models",
            "/v1/chat/completionsx",
            "/v1/embeddings/../models",
            "/v1//embeddings",
            "/",
        ):
            got = raw.ask(team.url, path, fields)
            assert (got.status, got.error["code"]) == (403, "endpoint_not_allowed"), path
        refused = raw.ask(team.url, PATH, fields, method="DELETE")
        assert (refused.status, refused.error["code"]) == (405, "method_not_allowed")
        assert set(refused.headers["allow"].split(", ")) >= {"GET", "POST"}
        nobody = raw.ask(team.url, PATH, {"Authorization": "Bearer sk-a-key-of-openais"}, raw.CHAT)
        assert (nobody.status, nobody.error["code"]) == (401, "token_not_found")
        assert "x-cache-status" not in raw.ask(team.url, PATH, fields).headers


def test_a_change_of_default_api_and_base_url_sends_requests_elsewhere(upstream: Slow) -> None:
    with providers() as other:
        text = PRINTED.replace("https://api.openai.com", upstream.url)
        body = text.partition("  openai:\n")[2].replace(upstream.url, other.url)
        text = text.replace("default_api: openai", "default_api: second") + "  second:\n" + body
        with gateway(text) as (team, token):
            fields = {"Authorization": f"Bearer {token}"}
            assert raw.ask(team.url, "/v1/embeddings", fields).status == 200
            assert other.last.headers["authorization"] == "Bearer sk-of-second"
            before = len(other.requests)
            assert raw.ask(team.url, "/to/openai/v1/embeddings", fields).status == 200
            assert len(other.requests) == before
            assert upstream.last.headers["authorization"] == "Bearer sk-of-openai"


@pytest.mark.parametrize(
    ("key", "code", "more"),
    [
        ("allowed_endpoints", "endpoint_not_allowed", {}),
        ("allowed_methods", "method_not_allowed", {}),
        ("param_whitelist", "model_not_allowed", {"model": "gpt-3"}),
        ("allowed_origins", "origin_not_allowed", {"Origin": "https://evil.example.com"}),
        ("required_headers", "required_header_missing", {}),
    ],
)
def test_what_is_not_on_the_list_is_refused(
    key: str, code: str, more: dict[str, str], changed: tuple[Team, str], upstream: Slow
) -> None:
    assert Client(changed).code(**more) == 200
    before = len(upstream.requests)
    assert Client(changed, key).code(**more) == code
    assert len(upstream.requests) == before


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("param_whitelist", {"model": "gpt-4o-mini"}),
        ("allowed_origins", {"Origin": "https://chat.example.com"}),
        ("required_headers", {"X-Team": "any"}),
    ],
)
def test_what_is_on_the_list_passes(key: str, more: dict[str, str], changed: tuple[Team, str]) -> None:
    assert Client(changed, key).code(**more) == 200


@pytest.mark.parametrize("key", ["request", "response_header"])
def test_an_answer_that_is_late_is_given_up(key: str, changed: tuple[Team, str]) -> None:
    assert Client(changed).code("late") == 200
    assert Client(changed, key).code("late") == "headers_timeout"


def test_request_counts_between_two_pieces_of_a_stream_and_not_for_the_whole(
    changed: tuple[Team, str],
) -> None:
    assert b"[DONE]" in Client(changed).ask("halting").body
    assert b"[DONE]" in Client(changed, "response_header").ask("halting").body
    with pytest.raises(Exception, match=r"IncompleteRead|idle"):
        Client(changed, "request").ask("halting")
    assert b"[DONE]" in Client(changed, "request").ask("drip").body


def test_idle_connections_are_closed_after_their_time(changed: tuple[Team, str], upstream: Slow) -> None:
    for key, reused in (("openai", True), ("idle_connection", False)):
        client = Client(changed, key)
        client.ask()
        time.sleep(0.7)
        client.ask()
        first, second = upstream.peers[-2:]
        assert (first == second) is reused, key


@pytest.mark.parametrize("key", ["openai", "max_idle_conns", "max_idle_conns_per_host"])
def test_so_many_idle_connections_are_kept(key: str, changed: tuple[Team, str], upstream: Slow) -> None:
    client, start = Client(changed, key), len(upstream.peers)
    together(client, 4)
    together(client, 4)
    first, second = upstream.peers[start:][:4], upstream.peers[start:][4:]
    kept = len(set(first) & set(second))
    assert kept == (4 if key == "openai" else 1)


def together(client: Client, number: int) -> None:
    """As many requests at a time, which the upstream answers late."""
    threads = [threading.Thread(target=client.ask, args=("late",)) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(0.1)


def pieces(client: Client, model: str = "drip", **more: str) -> list[tuple[float, bytes]]:
    """What came of a stream, and when, as the socket gave it."""
    parts = urlsplit(client.team.url)
    body = json.dumps({**raw.CHAT, "model": model}).encode()
    fields = client.fields(**more)
    lines = [f"POST {client.path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    found: list[tuple[float, bytes]] = []
    with closing(socket.create_connection((parts.hostname, parts.port), 10)) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        while data := connection.recv(65536):
            found.append((time.monotonic(), data))
    return found


def test_a_flush_interval_gathers_what_comes_in_it(changed: tuple[Team, str]) -> None:
    at_once = pieces(Client(changed))
    assert b"".join(data for _, data in at_once).count(b"Hello.") == 6
    assert len(at_once) >= 5
    gathered = pieces(Client(changed, "flush_interval"))
    assert b"".join(data for _, data in gathered).count(b"Hello.") == 6
    assert len(gathered) <= 4


@pytest.mark.parametrize("way", ["accept", "member"])
def test_a_request_for_a_stream_is_treated_as_one(way: str, changed: tuple[Team, str]) -> None:
    """A fault for streams alone hits it, and nobody else."""
    client = Client(changed)
    said = client.team.ctl("fault", "r", "1", "stream=yes")
    assert said.status == 0, said
    assert client.code() == 200
    body: dict[str, object] = {**raw.CHAT, "stream": True} if way == "member" else dict(raw.CHAT)
    fields = client.fields(Accept="text/event-stream") if way == "accept" else client.fields()
    got = raw.ask(client.team.url, client.path, fields, body)
    assert (got.status, got.injected) == (429, True)
    got = raw.ask(client.team.url, client.path, fields, body)
    assert got.status == 200


def test_a_stream_comes_as_it_is_made(changed: tuple[Team, str]) -> None:
    found = pieces(Client(changed), Accept="text/event-stream")
    times = [at for at, data in found if b"Hello." in data]
    assert len(times) >= 5
    assert times[-1] - times[0] > 0.15


def cached(team: Team, token: str) -> list[str]:
    """What the cache says of two equal requests."""
    fields = {"Authorization": f"Bearer {token}"}
    found = [raw.ask(team.url, "/v1/embeddings", fields) for _ in range(2)]
    assert [one.status for one in found] == [200, 200]
    return [one.headers.get("x-cache-status", "") for one in found]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


def printed(upstream: Slow) -> str:
    upstream.fields = {"Cache-Control": "public, max-age=60"}
    return PRINTED.replace("https://api.openai.com", upstream.url)


def test_variables_switch_the_cache_on_in_memory_and_the_log_to_text(
    upstream: Slow, redis: RedisServer
) -> None:
    env = {
        "HTTP_CACHE_ENABLED": "true",
        "HTTP_CACHE_BACKEND": "in-memory",
        "REDIS_CACHE_URL": redis.url.reveal(),
        "LOG_LEVEL": "info",
        "LOG_FORMAT": "console",
    }
    with gateway(printed(upstream), env) as (team, token):
        assert cached(team, token) == ["miss", "hit"]
        assert redis.keys() == 0
        team.daemon.wait_for("/v1/embeddings")
        assert not any(line.startswith("{") for line in team.daemon.output.splitlines())


@pytest.mark.parametrize("prefix", ["", "ours:"])
def test_variables_put_the_cache_into_redis_and_the_log_into_json(
    prefix: str, upstream: Slow, redis: RedisServer
) -> None:
    redis.ask("FLUSHALL")
    env = {
        "HTTP_CACHE_ENABLED": "TRUE",
        "HTTP_CACHE_BACKEND": "redis",
        "REDIS_CACHE_URL": redis.url.reveal(),
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": "json",
    }
    if prefix:
        env["REDIS_CACHE_KEY_PREFIX"] = prefix
    with gateway(printed(upstream), env) as (team, token):
        fields = {"Authorization": f"Bearer {token}"}
        assert raw.ask(team.url, "/v1/embeddings", fields).headers["x-cache-status"] == "miss"
        until(lambda: redis.keys() > 0)
        assert "hit" in cached(team, token)
        names = redis.ask("KEYS", "*")
        wanted = (prefix or "llmproxyd:cache:").encode()
        assert names.count(b"\r\n" + wanted) == redis.keys(), names
        team.daemon.wait_for("/v1/embeddings")
        lines = [line for line in team.daemon.output.splitlines() if "/v1/embeddings" in line]
        assert all(isinstance(json.loads(line), dict) for line in lines)


def test_without_variables_there_is_no_cache_and_with_error_hardly_a_log(upstream: Slow) -> None:
    with gateway(printed(upstream), {"LOG_LEVEL": "error"}) as (team, token):
        assert cached(team, token) == ["", ""]
        team.daemon.stop()
        assert "/v1/embeddings" not in team.daemon.output
