"""A team behind one daemon: a project, tokens, limits and their end, as its people would go through it."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
import raw
from gatewaydaemon import Providers, Said, Team, lines, providers, started, until
from google import genai
from test_secrets import leaks

SETTINGS = """\
upstreams:
  openai: {{base_url: "{url}"}}
  anthropic: {{base_url: "{url}"}}
  google: {{base_url: "{url}"}}
access: {{enabled: true}}
cache: {{enabled: true}}
events:
  capture: {{request: 64KiB, response: 64KiB}}
  prices: {{"gpt-*": {{input: 1000000, output: 2000000}}}}
  dispatch: [{{to: file, path: events.jsonl, every: 100ms}}]
metrics: {{genai: true}}
logging: {{enabled: true, level: debug}}
error_logging: {{enabled: true}}
"""

ASK: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
MESSAGE: Any = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@dataclass
class Scene:
    """A team's daemon, its upstream, and the secrets that nobody but their owners may see.

    :ivar keys: of the project ``crew``, by upstream.
    :ivar crew: what llmproxyctl said when it was made.
    """

    team: Team
    upstream: Providers
    keys: dict[str, str]
    secrets: dict[str, str]
    crew: Said

    def openai(self, token: str, retries: int = 0) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.team.url}/v1", api_key=token, max_retries=retries)

    def anthropic(self, token: str) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.team.url, api_key=token, max_retries=0)

    def google(self, token: str) -> genai.Client:
        return genai.Client(api_key=token, http_options={"base_url": self.team.url})

    def token(self, *options: str) -> str:
        """A token of the crew's, by llmproxyctl."""
        said = self.team.ctl("token", "create", "--project", "crew", *options)
        assert said.status == 0, said
        return self.kept(said.out.strip())

    def kept(self, token: str) -> str:
        self.secrets[f"token {len(self.secrets)}"] = token
        return token


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with providers() as upstream:
        team = started(SETTINGS.format(url=upstream.url))
        try:
            keys = {
                "openai": f"sk-{secrets.token_hex(16)}",
                "anthropic": f"sk-ant-{secrets.token_hex(16)}",
                "google": f"AIza{secrets.token_hex(16)}",
            }
            (team.folder / "openai.key").write_text(keys["openai"] + "\n")
            (team.folder / "google.key").write_text(keys["google"])
            given = ("openai=@openai.key", "anthropic=-", "google=@google.key")
            options = [text for one in given for text in ("--credential", one)]
            crew = team.ctl("project", "create", "crew", *options, stdin=keys["anthropic"] + "\n")
            for one in ("openai", "google"):
                (team.folder / f"{one}.key").unlink()
            yield Scene(team, upstream, keys, {f"key of {name}": key for name, key in keys.items()}, crew)
        finally:
            team.close()


@pytest.fixture(scope="module")
def token(scene: Scene) -> str:
    """One of the crew's, without limits."""
    return scene.token("--name", "everyday")


def test_a_project_and_a_token_by_llmproxyctl(scene: Scene) -> None:
    assert scene.crew.status == 0, scene.crew
    assert scene.crew.err == ""
    made = scene.team.ctl(
        "token", "create", "--project", "crew", "--rpm", "600", "--expires", "30d", "--name", "one"
    )
    assert made.status == 0
    assert made.out.count("\n") == 1
    scene.kept(made.out.strip())
    shown = scene.team.ctl("--json", "project", "show", "crew").json
    assert shown["credentials"] == dict.fromkeys(scene.keys, "[set]")
    (listed,) = [one for one in scene.team.ctl("--json", "token", "list").json if one["name"] == "one"]
    assert (listed["state"], listed["limits"]["rpm"], listed["shown"]) == ("active", 600, made.out[:7] + "…")


def test_the_official_sdks_use_a_token_in_place_of_a_key(scene: Scene, token: str) -> None:
    chat = scene.openai(token).chat.completions.create(**ASK)
    assert chat.choices[0].message.content == "Hello."
    message = scene.anthropic(token).messages.create(**MESSAGE)
    assert message.content[0].text == "Hello."
    gemini = scene.google(token)
    content = gemini.models.generate_content(model="gemini-x", contents="hi")
    assert content.text == "Hello."
    sent = [request.headers for request in scene.upstream.requests[-3:]]
    assert sent[0]["authorization"] == f"Bearer {scene.keys['openai']}"
    assert sent[1]["x-api-key"] == scene.keys["anthropic"]
    assert sent[2]["x-goog-api-key"] == scene.keys["google"]


def test_the_official_sdks_stream_with_it(scene: Scene, token: str) -> None:
    chunks = list(scene.openai(token).chat.completions.create(**ASK, stream=True))
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "Hello."
    with scene.anthropic(token).messages.stream(**MESSAGE) as stream:
        assert stream.get_final_text() == "Hello."
    gemini = scene.google(token)
    parts = gemini.models.generate_content_stream(model="gemini-x", contents="hi")
    assert "".join(part.text or "" for part in parts) == "Hello."


def test_a_stream_that_is_stored_is_a_stream_again(scene: Scene, token: str) -> None:
    client, before = scene.openai(token), len(scene.upstream.requests)
    ask: Any = {**ASK, "stream": True, "extra_headers": {"Cache-Control": "public, max-age=60"}}
    found = []
    for _ in range(3):
        stream = client.chat.completions.create(**ask)
        said = "".join(one.choices[0].delta.content or "" for one in stream if one.choices)
        # The SDK leaves at the stream's last word, before the end of its framing.
        found.append((stream.response.headers["x-cache-status"], said))
        time.sleep(0.1)
    assert found == [("miss", "Hello."), ("hit", "Hello."), ("hit", "Hello.")]
    assert len(scene.upstream.requests) == before + 1


def test_a_token_in_the_query_is_replaced_there(scene: Scene, token: str) -> None:
    path = "/v1beta/models/gemini-x:generateContent"
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    got = raw.ask(scene.team.url, f"{path}?alt=json&key={token}", {}, body)
    assert got.status == 200
    sent = scene.upstream.last
    assert sent.path.startswith(f"{path}?alt=json")
    assert scene.keys["google"] in (sent.headers.get("x-goog-api-key"), sent.path.partition("key=")[2])
    assert token not in repr(sent)


def test_usage_adds_up(scene: Scene) -> None:
    token = scene.token("--name", "counted")
    client = scene.openai(token)
    client.chat.completions.create(**ASK)
    list(client.chat.completions.create(**ASK, stream=True))
    scene.anthropic(token).messages.create(**MESSAGE)

    def counted() -> Any:
        rows = scene.team.api.call("GET", "usage", query={"by": "token"})["usage"]
        return [row for row in rows if row["label"] == "counted" and row["requests"] == 3]

    (row,) = until(counted, 10)
    assert (row["input"], row["output"]) == (30, 15)
    assert row["cost"] == pytest.approx(2 * (10 * 1 + 5 * 2))
    shown = scene.team.ctl("--json", "token", "show", "counted").json
    assert (shown["requests"], shown["tokens"]) == (3, 45)
    said = scene.team.ctl("usage", "--by", "model")
    assert said.status == 0
    assert "gpt-4o" in said.out
    assert "claude-x" in said.out


def test_a_limit_a_minute_is_the_sdks_rate_limit_error_and_its_wait_is_honoured(scene: Scene) -> None:
    client = scene.openai(scene.token("--rpm", "60"))
    refused = exhausted(client)
    assert refused.code == "rate_limit_exceeded"
    fields = refused.response.headers
    assert fields["retry-after"] == "1"
    assert fields["x-ratelimit-limit-requests"] == "60"
    assert fields["x-ratelimit-remaining-requests"] == "0"
    before, began = len(scene.upstream.requests), time.monotonic()
    assert client.with_options(max_retries=2).chat.completions.create(**ASK).choices
    assert time.monotonic() - began > 0.3
    assert len(scene.upstream.requests) == before + 1


def exhausted(client: openai.OpenAI) -> openai.RateLimitError:
    """Ask until it is enough."""
    for _ in range(200):
        try:
            client.chat.completions.create(**ASK)
        except openai.RateLimitError as error:
            return error
    raise AssertionError("there is no end")


def test_a_limit_of_requests_in_all_ends_a_token(scene: Scene) -> None:
    token = scene.token("--max-requests", "2")
    client = scene.anthropic(token)
    for _ in range(2):
        client.messages.create(**MESSAGE)
    before = len(scene.upstream.requests)
    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(**MESSAGE)
    assert "rate_limit_exceeded" in caught.value.response.text
    assert int(caught.value.response.headers["retry-after"]) > 60
    assert len(scene.upstream.requests) == before


def test_a_deactivated_project_is_shut_and_opens_again(scene: Scene, token: str) -> None:
    client = scene.openai(token)
    client.chat.completions.create(**ASK)
    assert scene.team.ctl("project", "deactivate", "crew").status == 0
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(**ASK)
    assert caught.value.code == "project_inactive"
    assert scene.team.ctl("project", "activate", "crew").status == 0
    assert client.chat.completions.create(**ASK).choices


def test_a_revoked_token_is_refused_at_once_on_the_connection_that_it_has_open(scene: Scene) -> None:
    token = scene.token("--name", "leaver")
    client = scene.openai(token)
    client.chat.completions.create(**ASK)
    connection = raw.connect(scene.team.url)
    fields = {"Authorization": f"Bearer {token}"}
    assert raw.send(connection, "POST", "/v1/chat/completions", fields, ASK).status == 200
    before = connection.sock
    scene.team.api.call("POST", "tokens", "leaver", "revoke")
    got = raw.send(connection, "POST", "/v1/chat/completions", fields, ASK)
    assert (got.status, got.error["code"]) == (401, "token_inactive")
    assert connection.sock is before
    connection.close()
    with pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(**ASK)
    assert caught.value.code == "token_inactive"
    with pytest.raises(anthropic.AuthenticationError):
        scene.anthropic(token).messages.create(**MESSAGE)
    gemini = scene.google(token)
    with pytest.raises(genai.errors.ClientError) as refused:
        gemini.models.generate_content(model="gemini-x", contents="hi")
    assert refused.value.code == 401
    scene.team.api.call("PATCH", "tokens", "leaver", body={"active": True})
    with pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(**ASK)
    assert caught.value.code == "token_expired", "revoked is for good"


def test_a_token_revoked_by_itself_is_named_by_its_digest(scene: Scene) -> None:
    token = scene.token()
    scene.openai(token).chat.completions.create(**ASK)
    assert scene.team.ctl("token", "revoke", token).status == 0
    with pytest.raises(openai.AuthenticationError):
        scene.openai(token).chat.completions.create(**ASK)


def test_a_rotated_credential_is_what_the_upstream_sees_next(scene: Scene, token: str) -> None:
    client = scene.openai(token)
    client.chat.completions.create(**ASK)
    assert scene.upstream.last.headers["authorization"] == f"Bearer {scene.keys['openai']}"
    new = f"sk-{secrets.token_hex(16)}"
    scene.secrets["rotated key"] = new
    assert scene.team.ctl("project", "rotate", "crew", "--credential", "openai=-", stdin=new).status == 0
    client.chat.completions.create(**ASK)
    assert scene.upstream.last.headers["authorization"] == f"Bearer {new}"
    scene.keys["openai"] = new


def test_a_rotated_token_ends_the_old_one(scene: Scene) -> None:
    old = scene.token("--name", "turning")
    said = scene.team.ctl("token", "rotate", "turning")
    new = scene.kept(said.out.strip())
    assert old != new
    assert scene.openai(new).chat.completions.create(**ASK).choices
    with pytest.raises(openai.AuthenticationError):
        scene.openai(old).chat.completions.create(**ASK)


def test_tokens_that_mean_nothing_are_refused(scene: Scene, token: str) -> None:
    before = len(scene.upstream.requests)
    for wrong in ("sk-" + "A" * 22, token[:-1], "x"):
        with pytest.raises(openai.AuthenticationError) as caught:
            scene.openai(wrong).chat.completions.create(**ASK)
        assert caught.value.code == "token_not_found"
    got = raw.ask(scene.team.url, "/v1/chat/completions", {}, ASK)
    assert (got.status, got.error["code"]) == (401, "token_missing")
    assert len(scene.upstream.requests) == before


def test_a_project_without_a_credential_may_not_use_that_upstream(scene: Scene) -> None:
    scene.team.api.call("POST", "projects", body={"name": "poor", "credentials": {"openai": "sk-poor"}})
    token = scene.team.token("poor")
    assert scene.openai(token).chat.completions.create(**ASK).choices
    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        scene.anthropic(token).messages.create(**MESSAGE)
    assert "upstream_not_allowed" in caught.value.response.text


def test_it_is_killed_and_knows_projects_and_tokens_still(scene: Scene, token: str) -> None:
    team = scene.team
    counted = scene.token("--name", "survivor", "--max-requests", "300")
    connection = raw.connect(team.url)
    fields = {"Authorization": f"Bearer {counted}"}
    for _ in range(30):
        assert raw.send(connection, "GET", "/v1/models", fields).status == 200
    until(lambda: team.api.call("GET", "tokens", "survivor")["requests"] == 30, 10)
    for _ in range(20):
        assert raw.send(connection, "GET", "/v1/models", fields).status == 200
    connection.close()
    revoked = scene.token("--name", "gone")
    assert scene.openai(revoked).chat.completions.create(**ASK).choices
    team.ctl("token", "revoke", "gone")
    team.daemon.stop(signal.SIGKILL)
    team.start()
    assert scene.openai(token).chat.completions.create(**ASK).choices
    assert scene.upstream.last.headers["authorization"] == f"Bearer {scene.keys['openai']}"
    assert 30 <= team.api.call("GET", "tokens", "survivor")["requests"] <= 50
    with pytest.raises(openai.AuthenticationError):
        scene.openai(revoked).chat.completions.create(**ASK)


def test_every_change_has_one_line_in_the_audit_log(scene: Scene) -> None:
    audit = scene.team.folder / "state" / "audit.jsonl"
    before = len(lines(audit))
    team = scene.team
    team.ctl("project", "create", "audited", "--credential", "openai=-", stdin="sk-of-audited")
    scene.kept(team.ctl("token", "create", "--project", "audited", "--name", "a").out.strip())
    team.ctl("token", "update", "a", "--rpm", "5")
    team.ctl("token", "revoke", "a")
    team.ctl("project", "delete", "audited", "--yes")
    team.ctl("project", "list")
    team.ctl("token", "show", "nobody")
    new = [one for one in lines(audit)[before:] if one["action"] != "denied"]
    assert [one["action"].split()[0] for one in new] == [
        "project.create",
        "token.create",
        "token.update",
        "token.revoke",
        "project.delete",
    ]
    assert {one["outcome"] for one in new} == {"ok"}
    assert new[2]["after"] == {"limits": {"rpm": 5, "tpm": None}}


def test_the_upstream_saw_its_own_keys_alone(scene: Scene) -> None:
    tokens = {name: text for name, text in scene.secrets.items() if name.startswith("token")}
    for request in scene.upstream.requests:
        everything = repr((request.line, request.headers)).encode() + request.body
        assert leaks(request.line, everything, tokens) == []
        kinds = {"openai": "chat", "anthropic": "/messages", "google": "models/"}
        others = {
            name: key
            for name, key in scene.keys.items()
            if kinds[name] not in request.line and name != "openai"
        }
        assert leaks(request.line, everything, others) == []


def test_no_key_and_no_token_stands_anywhere(scene: Scene, token: str) -> None:
    team = scene.team
    client = scene.openai(token)
    client.chat.completions.create(**ASK)
    with pytest.raises(openai.NotFoundError):
        scene.openai(token).with_options(base_url=f"{team.url}/to/nobody/v1").chat.completions.create(**ASK)
    raw.ask(team.url, f"/v1/chat/completions?key={token}", {}, ASK)
    metrics = raw.ask(team.url, "/metrics").body
    assert b"llmproxyd_requests_total" in metrics
    answers = b"".join(
        repr(team.api.call("GET", *path)).encode()
        for path in (
            ("projects",),
            ("tokens",),
            ("status",),
            ("config",),
            ("usage",),
            ("cache",),
            ("breakers",),
        )
    )
    for upstream in scene.keys:
        team.ctl("test", upstream)
    files = {one: one.read_bytes() for one in team.folder.rglob("*") if one.is_file()}
    assert {"llmproxyd.db", "llmproxyd.db-wal"} <= {one.name for one in files}, "not looked at while in use"
    team.daemon.stop()
    files |= {
        one: one.read_bytes() for one in team.folder.rglob("*") if one.is_file() and one.suffix != ".key"
    }
    names = {one.name for one in files}
    assert {"events.jsonl", "audit.jsonl", "llmproxyd.db"} <= names
    assert any(one.suffix == ".log" for one in files)
    assert len(scene.secrets) > 8
    places = {str(one.relative_to(team.folder)): data for one, data in files.items() if one.suffix != ".key"}
    places |= {"metrics": metrics, "admin": answers, "ctl": "".join(team.told).encode()}
    places["output"] = "".join([*team.outputs, team.daemon.output]).encode()
    assert [found for place, data in places.items() for found in leaks(place, data, scene.secrets)] == []
