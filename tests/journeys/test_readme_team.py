"""What the README tells a team to do, as a shell and the daemon take it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import google.genai
import openai
import pytest
import raw
from daemon import Daemon, environment

sys.path.insert(0, str(Path(__file__).parents[1]))
from pgserver import PostgresUnderTest, postgres_under_test
from redisserver import RedisServer

README = (Path(__file__).parents[2] / "README.rst").read_text()
TEAM = README[README.index("\nFor a team\n") : README.index("\nSillyTavern\n")]
CTL = f'#!/bin/sh\nexec {sys.executable} -m llmproxyd.admin.ctl "$@"\n'

CALLS = """\
import anthropic, google.genai, openai, sys

def openai_says(model):
    client = openai.OpenAI(max_retries=0)
    chat = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
    return chat.choices[0].message.content

def anthropic_says(model):
    client = anthropic.Anthropic(max_retries=0)
    messages = [{"role": "user", "content": "hi"}]
    return client.messages.create(model=model, max_tokens=9, messages=messages).content[0].text

def google_says(model):
    client = google.genai.Client()
    return client.models.generate_content(model=model, contents="hi").text

for ask, model in ((openai_says, "gpt-4o"), (openai_says, "gpt-5"), (anthropic_says, "claude-x"),
                   (google_says, "gemini-x")):
    try:
        said = ask(model)
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        said = error.response.headers["x-llmproxyd-code"]
    except google.genai.errors.APIError as error:
        said = error.response.headers["x-llmproxyd-code"]
    print(sys.argv[1], model, said)
"""
"""Asks each provider, as the environment says, and tells what came."""


def block(text: str) -> str:
    """The literal block on a team that holds *text*, without its indentation."""
    found = [one for one in re.findall(r"::\n\n((?:    .*\n|\n)+)", TEAM) if text in one]
    assert len(found) == 1, text
    return re.sub(r"(?m)^    ", "", found[0]).strip() + "\n"


class Desk:
    """A folder in which somebody works, with the commands in its path and the providers' keys in files."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="desk-"))
        self.env = {"XDG_RUNTIME_DIR": str(self.folder), "XDG_STATE_HOME": str(self.folder)}
        commands = self.folder / "bin"
        commands.mkdir()
        (commands / "llmproxyctl").write_text(CTL)
        (commands / "llmproxyctl").chmod(0o755)
        (self.folder / "calls.py").write_text(CALLS)
        for name in ("openai", "anthropic", "google"):
            (self.folder / f"{name}.key").write_text(f"sk-real-key-of-{name}\n")

    def sh(self, script: str) -> str:
        """What *script* writes, up to the first command that fails."""
        env = environment(self.folder, self.env)
        env["PATH"] = f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-ec", script], cwd=self.folder, env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def token(self, keys: str = "openai google", then: str = "") -> str:
        """The token of the first screen, whose project has *keys*."""
        script = block("TOKEN=$(")
        given = "--credential openai=@openai.key --credential google=@google.key"
        assert script.count(given) == 1
        wanted = " ".join(f"--credential {name}=@{name}.key" for name in keys.split())
        return self.sh(f"{script.replace(given, wanted)}\n{then}\necho $TOKEN").split()[-1]

    def daemon(self, *arguments: str, **env: str) -> Daemon:
        return Daemon(*arguments, "--sandbox", cwd=self.folder, stdin="null", env={**self.env, **env})


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    shutil.rmtree(made.folder)


def started(desk: Desk) -> Daemon:
    """The daemon as the first screen starts it."""
    make, start = block("llmproxyctl init\n").splitlines()
    desk.sh(make)
    assert start == "llmproxyd --config llmproxyd.yaml"
    return desk.daemon(*start.split()[1:])


def test_from_the_first_project_to_the_end_of_a_token(desk: Desk) -> None:
    with started(desk) as proxy:
        made = block("TOKEN=$(") + block("export ANTHROPIC_BASE_URL").replace("127.0.0.1:8888", proxy.url[7:])
        ask = f"{sys.executable} calls.py"
        *changes, usage, revoke = block("llmproxyctl token revoke").splitlines()
        assert usage.startswith("llmproxyctl usage")
        lines = [made, f"{ask} first", *changes, f"{ask} then", "sleep 1.5", usage, revoke, f"{ask} last"]
        said = desk.sh("\n".join([*lines, "echo $TOKEN"]))
        told = dict(re.findall(r"(?m)^((?:first|then|last) [\w.-]+) (.*)$", said))
        assert {name: text.removeprefix("You said: ") for name, text in told.items()} == {
            "first gpt-4o": "hi",
            "first gpt-5": "hi",
            "first claude-x": "upstream_not_allowed",
            "first gemini-x": "hi",
            "then gpt-4o": "hi",
            "then gpt-5": "model_not_allowed",
            "then claude-x": "hi",
            "then gemini-x": "hi",
            **dict.fromkeys(
                ["last gpt-4o", "last gpt-5", "last claude-x", "last gemini-x"], "token_inactive"
            ),
        }
        assert re.search(r"(?m)^alice +tok_\w+ +6 ", said), said
        token = said.split()[-1]
        assert re.fullmatch(r"sk-[\w-]{22}", token)
        audit = [json.loads(line) for line in (desk.folder / "audit.jsonl").read_text().splitlines()]
        actions = [one["action"] for one in audit if one["who"].startswith("socket")]
        assert actions == [
            *("project.create", "token.create"),
            *("project.update", "project.update", "token.update", "token.revoke"),
        ]
        files = (one for one in desk.folder.rglob("*") if one.is_file() and one.suffix != ".key")
        everything = b"".join([*(file.read_bytes() for file in files), proxy.output.encode()])
        assert token.encode() not in everything
        assert b"sk-real-key-of-openai" not in everything


def test_the_lines_of_code_are_clients_that_work(desk: Desk) -> None:
    with started(desk) as proxy:
        token = desk.token("openai anthropic google")
        names = {"openai": openai, "anthropic": anthropic, "google": google, "TOKEN": token}
        lines = block("api_key=TOKEN").replace("127.0.0.1:8888", proxy.url[7:]).splitlines()
        clients: list[Any] = [eval(line, names) for line in lines]
        messages = [{"role": "user", "content": "hi"}]
        chat = clients[0].chat.completions.create(model="gpt-4o", messages=messages)
        message = clients[1].messages.create(model="claude-x", max_tokens=9, messages=messages)
        content = clients[2].models.generate_content(model="gemini-x", contents="hi")
        said = [chat.choices[0].message.content, message.content[0].text, content.text]
        assert said == ["You said: hi"] * 3


def test_a_limit_says_what_the_readme_says(desk: Desk) -> None:
    with started(desk) as proxy:
        token = desk.token(then="llmproxyctl token update alice --max-requests 1")
        assert [asked(proxy, token).status for _ in range(2)] == [200, 429]
        got = asked(proxy, token)
        assert (got.error["code"], got.headers["retry-after"]) == ("rate_limit_exceeded", "86400")
        got = raw.ask(proxy.url, "/metrics")
        assert got.status == 200
        assert b"llmproxyd_requests_total" in got.body


def asked(host: Daemon, token: str, **fields: str) -> raw.Answer:
    return raw.ask(host.url, "/v1/chat/completions", {"Authorization": f"Bearer {token}", **fields}, raw.CHAT)


# A cache.


def test_what_the_rules_of_the_cache_name_is_a_hit(desk: Desk) -> None:
    desk.sh("llmproxyctl init")
    file = desk.folder / "llmproxyd.yaml"
    text = file.read_text()
    assert text.count("cache:\n  enabled: true\n") == 1
    file.write_text(text.replace("cache:\n  enabled: true\n", block("default_ttl")))
    with desk.daemon("--config", "llmproxyd.yaml") as proxy:
        mine = desk.token()
        desk.sh("llmproxyctl project create others --credential openai=@openai.key")
        theirs = desk.sh("llmproxyctl token create --project others").strip()
        for path, body in (("/v1/embeddings", {"model": "m", "input": "hi"}), ("/v1/models", None)):
            found = [
                raw.ask(proxy.url, path, {"Authorization": f"Bearer {token}"}, body).headers["x-cache-status"]
                for token in (mine, mine, theirs)
            ]
            assert found == ["miss", "hit", "miss"], path
        assert asked(proxy, mine).headers["x-cache-status"] == "bypass"
        field = re.search(r"``(Cache-Control): (public, [^`]+)``", TEAM)
        assert field is not None
        asking = {field[1]: field[2]}
        assert [asked(proxy, mine, **asking).headers["x-cache-status"] for _ in range(2)] == ["miss", "hit"]
        forget = re.search(r"``(llmproxyctl cache purge [^`]*)``", TEAM)
        assert forget is not None
        desk.sh(forget[1])
        assert asked(proxy, mine, **asking).headers["x-cache-status"] == "miss"


# A second host.


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresUnderTest]:
    yield from postgres_under_test()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_two_hosts_share_what_the_readme_says(
    desk: Desk, postgres: PostgresUnderTest, tmp_path: Path
) -> None:
    install, make_key = block("gateway.key; chmod").splitlines()
    assert install == "pip install 'llmproxyd[postgres,redis]'"
    desk.sh(make_key)
    redis = RedisServer(tmp_path, password="a-password")
    text = block("limits: redis")
    places = {
        "postgresql://llmproxyd:${DB_PASSWORD}@db.example.com/llmproxyd": postgres.database("readme"),
        "redis.example.com": redis.url.reveal().partition("@")[2],
    }
    for place, real in places.items():
        assert text.count(place) == 1
        text = text.replace(place, real)
    (desk.folder / "hosts.yaml").write_text(text)
    other = desk.folder / "other"
    other.mkdir()
    start, password = ("--config", "hosts.yaml"), {"REDIS_PASSWORD": "a-password"}
    try:
        with (
            desk.daemon(*start, **password) as one,
            desk.daemon(*start, **password, XDG_RUNTIME_DIR=str(other)) as two,
        ):
            token = desk.token(then="llmproxyctl token update alice --rpm 6")
            for host in (one, two):
                assert raw.ask(host.url, "/health/ready").status == 200
            asking = {"Cache-Control": "public, max-age=600"}
            hits = [asked(host, token, **asking).headers["x-cache-status"] for host in (one, two)]
            assert hits == ["miss", "hit"]
            statuses = [asked(host, token).status for host in (one, two) * 4]
            assert 429 in statuses
            assert 4 <= statuses.count(200) < 8, "each counts for itself"
    finally:
        redis.kill()


# The gateway's own file.


def test_the_gateways_own_file_asks_for_tokens_and_caches(desk: Desk) -> None:
    (desk.folder / "api_providers.yaml").write_text(block("default_api:"))
    found = re.fullmatch(r"(\w+)=(\w+) llmproxyd (.+)", block("api_providers.yaml").strip())
    assert found is not None
    with desk.daemon(*found[3].split(), **{found[1]: found[2]}) as proxy:
        token = desk.token("openai")
        assert asked(proxy, token).headers["x-cache-status"] == "bypass"
        got = raw.ask(proxy.url, "/v1/models", {"Authorization": f"Bearer {token}"})
        assert (got.status, got.error["code"]) == (403, "endpoint_not_allowed")
        got = asked(proxy, "sk-a-key-of-openais")
        assert (got.status, got.error["code"]) == (401, "token_not_found")
