"""Two daemons on one PostgreSQL and one Redis, which then die and come back."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import raw
from gatewaydaemon import Providers, Team, free_port, providers, started, until

sys.path.insert(0, str(Path(__file__).parents[1]))
from pgserver import PostgresUnderTest, postgres_under_test
from redisserver import RedisServer

SETTINGS = """\
upstreams:
  openai: {{base_url: "{url}"}}
access: {{enabled: true, store: "{store}", secret_key: "{key}", limits: redis}}
cache: {{enabled: true, backend: redis, redis_url: "{redis}"}}
"""
CHAT = raw.CHAT
SEEN_ELSEWHERE = 1.0
"""Seconds within which a change on one host holds on the other."""

SLACK = 1.5
"""Seconds that a machine with other things to do may take on top."""


@dataclass
class Hosts:
    one: Team
    other: Team
    upstream: Providers
    redis: RedisServer
    postgres: PostgresUnderTest
    number: int = 0

    def new_token(self, **more: object) -> str:
        """A token of a new project, made on the first host."""
        self.number += 1
        self.one.project(f"p{self.number}")
        return self.one.token(f"p{self.number}", **more)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresUnderTest]:
    yield from postgres_under_test()


@pytest.fixture(scope="module")
def hosts(postgres: PostgresUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    redis = RedisServer(tmp_path_factory.mktemp("redis"))
    teams: list[Team] = []
    try:
        with providers() as upstream:
            settings = SETTINGS.format(
                url=upstream.url, store=postgres.database("team"), key="5e" * 32, redis=redis.url.reveal()
            )
            upstream.fields = {"Cache-Control": "public, max-age=600"}
            teams += [started(settings)]
            teams += [started(settings)]
            yield Hosts(teams[0], teams[1], upstream, redis, postgres)
    finally:
        for team in teams:
            team.close()
        redis.kill()


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **more}


def chat(host: Team, token: str) -> raw.Answer:
    return raw.ask(host.url, "/v1/chat/completions", bearer(token), CHAT)


def models(host: Team, token: str, query: str = "") -> str:
    """What the cache did for a list of models."""
    got = raw.ask(host.url, f"/v1/models{query}", bearer(token))
    assert got.status == 200, got
    return got.headers["x-cache-status"]


def ready(host: Team) -> int:
    return raw.ask(host.url, "/health/ready").status


def ready_is(host: Team, status: int) -> bool:
    return ready(host) == status


def redis_up(host: Team) -> bool:
    return bool(host.status()["gateway"]["redis"]["up"])


def refused_after(connection: HTTPConnection, token: str) -> float:
    """Seconds until a token is refused."""
    began = time.monotonic()
    while raw.send(connection, "POST", "/v1/chat/completions", bearer(token), CHAT).status == 200:
        assert time.monotonic() < began + 20
        time.sleep(0.02)
    return time.monotonic() - began


def test_a_token_that_was_made_on_one_works_on_the_other(hosts: Hosts) -> None:
    token = hosts.new_token()
    assert chat(hosts.one, token).status == 200
    assert chat(hosts.other, token).status == 200
    assert hosts.upstream.last.headers["authorization"] == "Bearer sk-openai-of-p1"
    assert token not in repr(hosts.upstream.requests)


def test_a_token_that_was_unknown_works_once_it_is_made(hosts: Hosts) -> None:
    hosts.one.project("later")
    assert chat(hosts.other, "sk-" + "x" * 22).status == 401
    assert chat(hosts.other, hosts.one.token("later")).status == 200


def test_a_revoked_token_is_refused_on_the_other_within_a_second(hosts: Hosts) -> None:
    token = hosts.new_token()
    connection = raw.connect(hosts.other.url)
    for host in (hosts.one, hosts.other):
        assert chat(host, token).status == 200
    assert raw.send(connection, "POST", "/v1/chat/completions", bearer(token), CHAT).status == 200
    hosts.one.api.call("POST", "tokens", hosts.one.api.call("GET", "tokens")["tokens"][0]["id"], "revoke")
    assert chat(hosts.one, token).status == 401
    assert refused_after(connection, token) < SEEN_ELSEWHERE + SLACK
    connection.close()


def test_a_rotated_credential_is_used_by_the_other_within_a_second(hosts: Hosts) -> None:
    token = hosts.new_token()
    assert chat(hosts.other, token).status == 200
    keys = {"openai": "sk-the-new-one"}
    hosts.one.api.call("POST", "projects", f"p{hosts.number}", "rotate", body={"credentials": keys})

    def seen() -> bool:
        assert chat(hosts.other, token).status == 200
        return hosts.upstream.last.headers["authorization"] == "Bearer sk-the-new-one"

    until(seen, SEEN_ELSEWHERE + SLACK)


def test_what_one_has_stored_is_a_hit_on_the_other(hosts: Hosts) -> None:
    token, stranger = hosts.new_token(), hosts.new_token()
    assert models(hosts.one, token) == "miss"
    until(lambda: hosts.redis.keys() > 0)
    before = len(hosts.upstream.requests)
    assert models(hosts.other, token) == "hit"
    assert len(hosts.upstream.requests) == before
    assert models(hosts.other, stranger) == "miss", "another project's"
    hosts.other.api.call("POST", "cache", "purge", body={"all": True})
    assert models(hosts.one, token) == "miss"


def test_a_limit_holds_for_both_together(hosts: Hosts) -> None:
    token = hosts.new_token(limits={"rpm": 20})
    began, passed = time.monotonic(), 0
    for number in range(60):
        got = chat(hosts.one if number % 2 else hosts.other, token)
        passed += got.status == 200
        if got.status == 429:
            assert got.error["code"] == "rate_limit_exceeded"
    assert 20 <= passed <= 20 + (time.monotonic() - began) / 3 + 1


def test_requests_of_both_are_counted_together(hosts: Hosts) -> None:
    token = hosts.new_token(name="both", max_requests=1000)
    for host in (hosts.one, hosts.other, hosts.other):
        assert chat(host, token).status == 200
    until(lambda: hosts.one.api.call("GET", "tokens", "both")["requests"] == 3, 10)


def test_without_redis_both_serve_on_and_say_so(hosts: Hosts) -> None:
    both = (hosts.one, hosts.other)
    token, limited = hosts.new_token(), hosts.new_token(limits={"rpm": 20})
    assert [models(host, token) for host in both] == ["miss", "hit"]
    hosts.redis.kill()
    try:
        for host in both:
            began = time.monotonic()
            assert [models(host, token) for _ in range(5)] == ["miss"] * 5
            assert time.monotonic() - began < 5
            assert not redis_up(host)
            statuses = [chat(host, limited).status for _ in range(40)]
            assert 20 <= statuses.count(200) <= 25, "each host counts for itself"
            assert statuses[-1] == 429
            host.daemon.wait_for("each host counts for itself")
            assert host.status()["gateway"]["limits"]["shared"] is False
            assert b"llmproxyd_redis_up 0.0" in raw.ask(host.url, "/metrics").body
            assert ready(host) == 200
    finally:
        hosts.redis.start()
    for host in both:
        until(partial(redis_up, host))
    until(lambda: models(hosts.one, token, "?again") == "hit")
    assert models(hosts.other, token, "?again") == "hit"
    fresh = hosts.new_token(limits={"rpm": 20})
    passed = [chat(both[number % 2], fresh).status for number in range(50)].count(200)
    assert 20 <= passed <= 25, "counted together again"
    assert hosts.one.status()["gateway"]["limits"]["shared"] is True


def test_a_redis_that_hangs_holds_nobody_up(hosts: Hosts) -> None:
    token = hosts.new_token(limits={"rpm": 1000})
    assert models(hosts.one, token) == "miss"
    hosts.redis.pause()
    try:
        began = time.monotonic()
        for _ in range(10):
            assert models(hosts.one, token) == "miss"
            assert chat(hosts.one, token).status == 200
        # Each may ask twice, 100 ms at most each time, until it is known.
        assert time.monotonic() - began < 3
    finally:
        hosts.redis.resume()
    until(lambda: models(hosts.one, token) == "hit")


def test_without_postgresql_who_is_known_is_served_and_nobody_else(hosts: Hosts) -> None:
    both = (hosts.one, hosts.other)
    known, stranger = hosts.new_token(name="known"), hosts.new_token()
    for host in both:
        assert chat(host, known).status == 200
    # What has just changed is asked for once more by whoever sees that it has.
    time.sleep(SEEN_ELSEWHERE + 0.2)
    for host in both:
        assert chat(host, known).status == 200
        assert ready(host) == 200
    hosts.postgres.kill()
    try:
        for host in both:
            until(partial(ready_is, host, 503))
            assert raw.ask(host.url, "/health/ready").json["status"] == "not ready"
            assert raw.ask(host.url, "/health").status == 200
            assert [chat(host, known).status for _ in range(3)] == [200] * 3
            began = time.monotonic()
            got = chat(host, stranger)
            assert (got.status, got.error["code"]) == (503, "store_unavailable")
            assert "retry-after" in got.headers
            assert time.monotonic() - began < 5
            assert b"llmproxyd_store_up 0.0" in raw.ask(host.url, "/metrics").body
        refused: Any = raw.ask(hosts.one.url, "/v1/models", bearer(stranger))
        assert refused.status == 503
        said = hosts.one.ctl("project", "create", "too-late")
        assert said.status == 1
        assert "store_unavailable" in said.err
    finally:
        hosts.postgres.start()
    for host in both:
        until(partial(ready_is, host, 200))
        assert chat(host, stranger).status == 200
        assert chat(host, known).status == 200
    assert hosts.one.ctl("project", "create", "in-time").status == 0
    assert chat(hosts.other, hosts.new_token()).status == 200
    # What was counted meanwhile is not lost: six requests of each host.
    until(lambda: hosts.one.api.call("GET", "tokens", "known")["requests"] == 12, 10)


def test_a_host_that_is_started_while_neither_answers_waits_for_them(hosts: Hosts) -> None:
    token = hosts.new_token()
    port, settings = free_port(), hosts.one.settings.read_text()
    url = f"http://127.0.0.1:{port}"
    hosts.redis.kill()
    hosts.postgres.kill()
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(started, settings, port=port)
        try:
            until(partial(answers, port))
            assert raw.ask(url, "/health").status == 200
            assert raw.ask(url, "/health/ready").status == 503
            got = raw.ask(url, "/v1/chat/completions", bearer(token), CHAT)
            assert (got.status, got.error["code"]) == (503, "store_unavailable")
            assert not starting.done(), "it is not announced yet"
        finally:
            hosts.postgres.start()
            third = starting.result()
    try:
        assert ready(third) == 200
        assert [models(third, token), models(third, token)] == ["miss", "miss"]
        hosts.redis.start()
        until(lambda: models(third, token) == "hit")
        assert third.daemon.output.count("The store does not answer") == 1
    finally:
        third.close()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
