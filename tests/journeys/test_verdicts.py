"""Verdicts on real clients: the official SDKs behave where they do, and what they miss is told."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from daemon import Daemon, environment
from google import genai
from google.genai import types
from raw import MESSAGES

CTL = (sys.executable, "-m", "llmproxyd.admin.ctl")
CHAT: Any = {"model": "gpt-4o", "messages": MESSAGES}
CLAUDE: Any = {"model": "claude-x", "max_tokens": 100, "messages": MESSAGES}


@pytest.fixture
def watched(proxy: Daemon) -> Daemon:
    """The module's daemon, which knows of nothing yet."""
    proxy.command("fault clear")
    proxy.command("verdicts clear")
    return proxy


def verdicts(daemon: Daemon, *, over: bool = True) -> list[dict[str, Any]]:
    said = daemon.command("verdicts --over --json" if over else "verdicts --json")
    data = json.loads(said[said.index("{") : said.rindex("}") + 1])
    return list(data["verdicts"])


def names(daemon: Daemon, *, over: bool = True) -> list[str]:
    return [one["name"] for one in verdicts(daemon, over=over)]


def of_openai(daemon: Daemon, **settings: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=daemon.url + "/v1", api_key="sk-test", **settings)


def of_anthropic(daemon: Daemon, **settings: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=daemon.url, api_key="sk-ant-test", **settings)


def of_google(daemon: Daemon) -> genai.Client:
    return genai.Client(api_key="AIza-test", http_options=types.HttpOptions(base_url=daemon.url))


def naive(daemon: Daemon, times: int, text: str = "hi") -> None:
    """Ask again at once, whatever was answered."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": text}]})
    fields = {"Content-Type": "application/json", "Authorization": "Bearer sk-naive", "User-Agent": "naive/1"}
    for _ in range(times):
        connection.request("POST", "/v1/chat/completions", body, fields)
        connection.getresponse().read()
    connection.close()


# SDKs that behave.


@pytest.mark.parametrize("seconds", [0, 1])
def test_openai_waits_as_told(watched: Daemon, seconds: int) -> None:
    watched.command(f"r 2 retry_after={seconds}")
    assert of_openai(watched).chat.completions.create(**CHAT).choices
    assert names(watched) == []


def test_openai_backs_off_where_nothing_was_told(watched: Daemon) -> None:
    watched.command("error overloaded 2")
    assert of_openai(watched).chat.completions.create(**CHAT).choices
    assert names(watched) == []


def test_anthropic_waits_as_told(watched: Daemon) -> None:
    watched.command("r 2 retry_after=1")
    assert of_anthropic(watched).messages.create(**CLAUDE).content
    assert names(watched) == []


def test_who_gives_up_after_retries_has_done_what_can_be_done(watched: Daemon) -> None:
    watched.command("error server_error 3")
    with pytest.raises(openai.InternalServerError):
        of_openai(watched).chat.completions.create(**CHAT)
    assert names(watched) == []


def test_sdks_that_ask_for_the_same_side_by_side_are_no_retries(watched: Daemon) -> None:
    watched.command("r 4 retry_after=1")

    def ask(_: int) -> object:
        return of_openai(watched).chat.completions.create(**CHAT)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    assert names(watched) == []


# Clients that do not.


def test_naive_client_ignores_retry_after(watched: Daemon) -> None:
    watched.command("r * retry_after=2")
    naive(watched, 2)
    [verdict] = verdicts(watched)
    assert verdict["name"] == "retry_after_ignored"
    assert verdict["client"].startswith("naive/1 (")
    watched.wait_for(re.escape(f"[{', '.join(verdict['requests'])}] docs/verdicts.rst#retry-after-ignored"))
    for id in verdict["requests"]:
        watched.wait_for(re.escape(f"[{id}]"))


def test_hammering_is_no_backoff_and_too_much(watched: Daemon) -> None:
    watched.command("error overloaded *")
    naive(watched, 12)
    assert set(names(watched)) == {"no_backoff", "too_many_retries"}


def test_openai_tries_a_spent_quota_again(watched: Daemon) -> None:
    watched.command("error quota 3")
    with pytest.raises(openai.RateLimitError):
        of_openai(watched).chat.completions.create(**CHAT)
    assert names(watched) == ["retried_hopeless"]


def test_nobody_tries_again_what_is_too_long(watched: Daemon) -> None:
    watched.command("c 2")
    with pytest.raises(openai.BadRequestError):
        of_openai(watched).chat.completions.create(**CHAT)
    with pytest.raises(anthropic.BadRequestError):
        of_anthropic(watched).messages.create(**CLAUDE)
    assert names(watched) == []


def test_retries_above_those_of_an_sdk_are_stacked(watched: Daemon) -> None:
    watched.command("r 4")
    client = of_openai(watched)
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(**CHAT)
    assert client.chat.completions.create(**CHAT).choices
    [verdict] = verdicts(watched)
    assert verdict["name"] == "stacked_retries"
    assert "0, 1, 2, 0, 1" in verdict["text"]


def test_google_gives_up_at_once(watched: Daemon) -> None:
    watched.command("error overloaded 1")
    client = of_google(watched)
    with pytest.raises(genai.errors.ServerError):
        client.models.generate_content(model="gemini-2.5-flash", contents="hi")
    assert names(watched, over=False) == []
    assert names(watched) == ["never_came_back"]


# What no SDK notices.


def openai_stream(daemon: Daemon) -> int:
    return len(list(of_openai(daemon).chat.completions.create(**CHAT, stream=True)))


def responses_stream(daemon: Daemon) -> int:
    return len(list(of_openai(daemon).responses.create(model="gpt-4o", input="tell me", stream=True)))


def anthropic_stream(daemon: Daemon) -> int:
    return len(list(of_anthropic(daemon).messages.create(**CLAUDE, stream=True)))


def google_stream(daemon: Daemon) -> int:
    client = of_google(daemon)
    return len(
        list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="tell me a joke"))
    )


STREAMS = [openai_stream, responses_stream, anthropic_stream, google_stream]


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("place", ["", " at=1", " at=end"])
def test_truncated_stream_is_a_silent_success_and_a_verdict_tells(
    watched: Daemon, stream: Callable[[Daemon], int], place: str
) -> None:
    watched.command("truncate 1" + place)
    assert stream(watched) > 0
    assert names(watched, over=False) == []
    [verdict] = verdicts(watched)
    assert verdict["name"] == "truncation_unnoticed"
    assert len(verdict["requests"]) == 1


@pytest.mark.parametrize("stream", STREAMS)
def test_whole_stream_is_none(watched: Daemon, stream: Callable[[Daemon], int]) -> None:
    watched.command("r * after=1000")
    assert stream(watched) > 0
    assert names(watched) == []


@pytest.mark.parametrize("stream", STREAMS)
def test_stream_that_is_cut_and_asked_for_again(watched: Daemon, stream: Callable[[Daemon], int]) -> None:
    watched.command("cut 1 at=1")
    with pytest.raises(Exception, match=r"."):
        stream(watched)
    stream(watched)
    assert names(watched) == ["repeated_begun_answer"]


# Where they are read.


def test_command_line_shows_and_forgets_them(tmp_path: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    socket = tmp_path / "admin.sock"
    listen = {"LLMPROXYD_ADMIN__LISTEN": f"unix:{socket}:mode=600:lockfile=0"}
    with Daemon("--sandbox", env={**env, **listen}) as daemon:

        def ctl(*words: str) -> str:
            done = subprocess.run(
                [*CTL, *words],
                env=environment(daemon.folder / "home", {**env, "LLMPROXYD_ADMIN_SOCKET": str(socket)}),
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            return done.stdout

        daemon.command("r * retry_after=2")
        assert ctl("verdicts").startswith("No verdict")
        naive(daemon, 2)
        naive(daemon, 1, "another")
        [verdict] = json.loads(ctl("verdicts", "--json"))["verdicts"]
        assert verdict["name"] == "retry_after_ignored"
        assert "docs/verdicts.rst#retry-after-ignored" in ctl("verdicts")
        assert len(json.loads(ctl("verdicts", "--over", "--json"))["verdicts"]) == 2
        assert ctl("verdicts", "--test", "mine").startswith("No verdict")
        assert ctl("verdicts", "clear") == "Verdicts forgotten: 1\n"
        assert json.loads(ctl("verdicts", "--json"))["verdicts"] == []
