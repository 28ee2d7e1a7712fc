"""The pages of the machine itself: who may read them, and that nothing else stands there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import flaky
import pytest
import raw
from daemon import Daemon
from flaky import Flaky, answer, close

TOKEN = "a-token-of-the-admin-0123456789"
PAGES = ("/health/detailed", "/logs/errors")
SETTINGS = """\
upstreams: {{openai: {{base_url: "{url}/v1base"}}}}
error_logging: {{enabled: true}}
admin: {{token: {token}}}
"""
HEALTH = {"upstream": "is well"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Flaky]:
    with flaky.flaky() as made:
        yield made


@pytest.fixture(scope="module")
def proxy(upstream: Flaky, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    file = tmp_path_factory.mktemp("pages") / "llmproxyd.yaml"
    file.write_text(SETTINGS.format(url=upstream.url, token=TOKEN))
    with Daemon("--config", str(file)) as daemon:
        yield daemon


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    "host", [None, "localhost:8888", "LOCALHOST", "127.0.0.1", "[::1]:80", "me.localhost"]
)
def test_a_caller_on_this_machine_may_read_them(page: str, host: str | None, proxy: Daemon) -> None:
    got = raw.ask(proxy.url, page, {} if host is None else {"Host": host})
    assert (got.status, got.headers["content-type"]) == (200, "application/json")
    assert got.headers["cache-control"] == "no-store"
    assert isinstance(got.json, dict)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    "fields",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"x-forwarded-host": "localhost"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8888"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost.evil.example"},
        {"Host": "192.0.2.1"},
        {"X-Forwarded-For": "127.0.0.1", "Authorization": "Bearer another-token"},
        {"X-Forwarded-For": "127.0.0.1", "Authorization": TOKEN},
        {"X-Forwarded-For": "127.0.0.1", "Authorization": "Bearer "},
        {"X-Forwarded-For": "127.0.0.1", "Authorization": f"Basic {TOKEN}"},
    ],
    ids=str,
)
def test_nobody_else_may_and_is_told_who_may(page: str, fields: dict[str, str], proxy: Daemon) -> None:
    got = raw.ask(proxy.url, page, fields)
    assert (got.status, got.error["code"]) == (403, "local_only")
    assert "admin token" in got.error["message"]
    assert got.headers["x-llmproxyd-error"] == "proxy"
    assert set(got.json) == {"error"}
    head = raw.ask(proxy.url, page, fields, method="HEAD")
    assert (head.status, head.body) == (403, b"")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_admins_token_opens_them(page: str, scheme: str, proxy: Daemon) -> None:
    fields = {"Authorization": f"{scheme} {TOKEN}", "X-Forwarded-For": "192.0.2.1", "Host": "proxy.example"}
    assert raw.ask(proxy.url, page, fields).status == 200


def test_without_a_token_none_opens_them(upstream: Flaky, tmp_path: Path) -> None:
    file = tmp_path / "llmproxyd.yaml"
    file.write_text(f"upstreams: {{openai: {{base_url: '{upstream.url}'}}}}\n")
    with Daemon("--config", str(file)) as proxy:
        for presented in ("", " ", "None", "null", "[redacted]"):
            fields = {"Authorization": f"Bearer {presented}", "X-Forwarded-For": "192.0.2.1"}
            assert {raw.ask(proxy.url, page, fields).status for page in PAGES} == {403}


@pytest.mark.parametrize("page", ["/health", *PAGES])
def test_head_says_the_same_without_a_body(page: str, proxy: Daemon) -> None:
    got = raw.ask(proxy.url, page, method="HEAD")
    assert (got.status, got.body, got.headers["content-type"]) == (200, b"", "application/json")


def test_health_is_for_everybody(proxy: Daemon) -> None:
    got = raw.ask(proxy.url, "/health", {"X-Forwarded-For": "192.0.2.1", "Host": "evil.example"})
    assert (got.status, got.json["status"]) == (200, "healthy")


@pytest.mark.parametrize("page", ["/health", *PAGES])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_go_upstream(page: str, method: str, proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(answer(HEALTH))
    assert raw.ask(proxy.url, page, {}, b"{}", method).json == HEALTH
    assert upstream.requests[0].line == f"{method} /v1base{page} HTTP/1.1"


@pytest.mark.parametrize("page", ["/health", *PAGES])
def test_an_upstreams_own_page_is_reached_by_its_name(page: str, proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(answer(HEALTH))
    fields = {"X-Forwarded-For": "192.0.2.1", "Host": "evil.example"}
    assert raw.ask(proxy.url, f"/to/openai{page}?a=b", fields).json == HEALTH
    assert upstream.requests[0].line == f"GET /v1base{page}?a=b HTTP/1.1"


@pytest.mark.parametrize(
    "path", ["/health/detailed/", "/health/x", "//logs/errors", "/logs/errors/x", "/logs"]
)
def test_what_only_looks_like_them_goes_upstream(path: str, proxy: Daemon, upstream: Flaky) -> None:
    upstream.play(answer(HEALTH))
    assert raw.ask(proxy.url, path).json == HEALTH
    assert len(upstream.requests) == 1


def test_they_are_neither_counted_nor_faulted_nor_on_record(upstream: Flaky, tmp_path: Path) -> None:
    file = tmp_path / "llmproxyd.yaml"
    text = SETTINGS.format(url=upstream.url, token=TOKEN)
    file.write_text(f"{text}logging: {{enabled: true}}\nserver: {{path_prefix: /only}}\n")
    with Daemon("--config", str(file)) as proxy:
        proxy.command("u *")
        for page in ("/health", *PAGES):
            assert raw.ask(proxy.url, page).status == 200
        raw.ask(proxy.url, PAGES[0], {"X-Forwarded-For": "1.2.3.4"})
        assert raw.ask(proxy.url, "/health").json["requests"] == 0
        proxy.stop()
    assert not (tmp_path / "logs").exists()


def test_health_in_detail_tells_what_is_under_way(upstream: Flaky, tmp_path: Path) -> None:
    file = tmp_path / "llmproxyd.yaml"
    resilience = "resilience: {default: {breaker: {enabled: true, failure_threshold: 2}}}\n"
    file.write_text(SETTINGS.format(url=upstream.url, token=TOKEN) + resilience)
    with Daemon("--config", str(file)) as proxy:
        upstream.play([close])
        for _ in range(3):
            raw.openai(proxy.url)
        told = raw.ask(proxy.url, PAGES[0]).json
        assert told["active"] == 0
        assert told["requests"] == 3
        assert told["upstreams"]["openai"]["target_status"] == "failing"
        (breaker,) = told["breakers"]
        assert (breaker["name"], breaker["state"], breaker["opened"]) == ("openai", "open", 1)
        assert set(told["records"]) == {"queued", "written", "dropped", "failed"}
        assert told["configuration"]["admin"] == {"listen": None, "token": "[redacted]"}
        assert "openai" in told["configuration"]["upstreams"]
