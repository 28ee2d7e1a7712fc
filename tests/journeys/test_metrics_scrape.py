"""``/metrics`` as Prometheus finds it: who may read it, and that what it says moves with the traffic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import openai
import pytest
import raw
from flaky import flaky
from gatewaydaemon import Providers, Team, free_port, started, until
from prometheus_client.parser import text_string_to_metric_families

ADMIN = "an-admin-token-of-some-length"
SETTINGS = """\
upstreams:
  openai: {{base_url: "{url}"}}
  dead: {{provider: openai, base_url: "http://127.0.0.1:{dead}"}}
access: {{enabled: true}}
cache: {{enabled: true}}
admin: {{token: "{admin}"}}
metrics: {{listen: "tcp:{port}:interface=127.0.0.1", genai: true}}
events:
  usage: true
  prices: {{"gpt-4o": {{input: 1000000, output: 2000000}}}}
"""
FORWARDED = {"X-Forwarded-For": "203.0.113.9"}
CHAT = "/v1/chat/completions"

Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass
class Scene:
    team: Team
    upstream: Providers
    token: str
    alone: str
    """URL of the listener that metrics have for themselves."""

    def fields(self, **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", **more}

    def scrape(self) -> dict[Key, float]:
        page = raw.ask(self.alone, "/metrics").body.decode()
        families = text_string_to_metric_families(page)
        return {
            (one.name, tuple(sorted(one.labels.items()))): one.value
            for family in families
            for one in family.samples
        }


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with flaky(kind=Providers) as upstream:
        upstream.fields = {"Cache-Control": "public, max-age=60"}
        port = free_port()
        team = started(SETTINGS.format(url=upstream.url, dead=free_port(), admin=ADMIN, port=port))
        try:
            keys = {"openai": "sk-o", "dead": "sk-d"}
            team.api.call("POST", "projects", body={"name": "all", "credentials": keys})
            yield Scene(team, upstream, team.token("all"), f"http://127.0.0.1:{port}")
        finally:
            team.close()


def test_this_machine_reads_them_on_the_public_port(scene: Scene) -> None:
    got = raw.ask(scene.team.url, "/metrics")
    assert got.status == 200
    assert got.headers["content-type"].startswith("text/plain; version=")
    assert b"\nllmproxyd_build_info{" in got.body


def test_behind_a_proxy_they_are_refused_unless_the_admin_token_opens_them(scene: Scene) -> None:
    for fields in (FORWARDED, {"Forwarded": "for=203.0.113.9"}, {"Host": "gateway.example.com"}):
        got = raw.ask(scene.team.url, "/metrics", fields)
        assert (got.status, got.error["code"]) == (403, "local_only")
        assert (
            raw.ask(scene.team.url, "/metrics", {**fields, "Authorization": f"Bearer {ADMIN}"}).status == 200
        )
        for wrong in (scene.token, ADMIN + "x", ""):
            assert (
                raw.ask(scene.team.url, "/metrics", {**fields, "Authorization": f"Bearer {wrong}"}).status
                == 403
            )


def test_a_listener_of_their_own_shows_nothing_else(scene: Scene) -> None:
    assert raw.ask(scene.alone, "/metrics", FORWARDED).status == 200
    assert raw.ask(scene.alone, "/metrics?name=x").status == 200
    before = len(scene.upstream.requests)
    for path in ("/", "/health", CHAT, "/metrics/", "/metrics/x", "/admin/v1/status", "/to/openai/v1/models"):
        assert raw.ask(scene.alone, path, scene.fields()).status == 404, path
    assert len(scene.upstream.requests) == before


def test_openmetrics_is_given_to_who_asks_for_it(scene: Scene) -> None:
    got = raw.ask(scene.alone, "/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"})
    assert got.headers["content-type"].startswith("application/openmetrics-text")
    assert got.body.endswith(b"# EOF\n")


def test_they_move_with_the_traffic(scene: Scene) -> None:
    before = scene.scrape()
    client = openai.OpenAI(base_url=f"{scene.team.url}/v1", api_key=scene.token, max_retries=0)
    ask = {"model": "gpt-4o", "messages": raw.MESSAGES}
    client.chat.completions.create(**ask)  # type: ignore[call-overload]
    list(client.chat.completions.create(**ask, stream=True))  # type: ignore[call-overload]
    for _ in range(3):
        client.models.list()
    assert raw.ask(scene.team.url, f"/to/dead{CHAT}", scene.fields(), raw.CHAT).status == 502
    assert raw.ask(scene.team.url, CHAT, {"Authorization": "Bearer sk-nobody"}, raw.CHAT).status == 401

    def moved(name: str, **labels: str) -> float:
        after = scene.scrape()
        return sum(
            value - before.get((found, told), 0)
            for (found, told), value in after.items()
            if found == name and labels.items() <= dict(told).items()
        )

    until(lambda: moved("llmproxyd_requests_total") == 7)
    answered = {"upstream": "openai", "provider": "openai", "status": "200"}
    assert moved("llmproxyd_requests_total", **answered, operation="chat", origin="upstream") == 2
    assert moved("llmproxyd_requests_total", **answered, origin="upstream") == 3
    assert moved("llmproxyd_requests_total", **answered, origin="cache") == 2
    assert moved("llmproxyd_requests_total", upstream="dead", status="502") == 1
    assert moved("llmproxyd_requests_total", status="401", origin="proxy") == 1
    assert moved("llmproxyd_upstream_failures_total", upstream="dead") == 1
    assert moved("llmproxyd_streams_total", upstream="openai", end="complete") == 1
    assert moved("llmproxyd_cache_requests_total", result="hit") == 2
    assert moved("llmproxyd_cache_requests_total", result="miss") == 1
    assert moved("llmproxyd_denied_total", code="token_not_found") == 1
    assert moved("llmproxyd_tokens_total", model="gpt-4o", kind="input") == 20
    assert moved("llmproxyd_tokens_total", model="gpt-4o", kind="output") == 10
    assert moved("llmproxyd_cost_total", model="gpt-4o") == pytest.approx(2 * (10 + 2 * 5))
    timed = {"upstream": "openai", "operation": "chat", "origin": "upstream"}
    assert moved("llmproxyd_request_duration_seconds_count", **timed) == 2
    assert moved("gen_ai_client_token_usage_count", gen_ai_token_type="input") == 2
    now = scene.scrape()
    assert now["llmproxyd_store_up", ()] == 1
    assert now["llmproxyd_cache_entries", ()] == 1
    assert now["llmproxyd_cache_bytes", ()] > 0
    assert now["llmproxyd_active_requests", ()] == 0
    assert now["llmproxyd_connections_open", ()] >= 1


def test_no_label_holds_an_id_or_a_secret(scene: Scene) -> None:
    api = scene.team.api
    (project,) = api.call("GET", "projects")["projects"]
    (token,) = api.call("GET", "tokens")["tokens"]
    page = raw.ask(scene.alone, "/metrics").body.decode()
    for secret in (scene.token, token["id"], project["id"], ADMIN, "sk-"):
        assert secret not in page
