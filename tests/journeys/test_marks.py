"""Who made an error: ``x-llmproxyd-error`` and ``x-llmproxyd-code``."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import raw
from daemon import Daemon
from raw import Recorder, recording

MARKS = ("x-llmproxyd-error", "x-llmproxyd-code")


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with recording() as found:
        yield found


@pytest.fixture(scope="module")
def nowhere() -> Iterator[str]:
    """An address that refuses connections: bound, never listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(scope="module")
def sandbox(recorder: Recorder, nowhere: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """In place of the sandbox: a recorder for OpenAI, nobody for the others."""
    file = tmp_path_factory.mktemp("marks") / "llmproxyd.yaml"
    file.write_text(
        f"upstreams:\n  openai: {{base_url: '{recorder.url}'}}\n"
        f"  anthropic: {{base_url: '{nowhere}'}}\n  google: {{base_url: '{nowhere}'}}\n"
        "server: {max_body: 1KiB}\n"
    )
    with Daemon("--config", str(file)) as daemon:
        yield daemon


@pytest.mark.parametrize(
    ("command", "code"), [("c *", "context_length"), ("r *", "rate_limit"), ("error quota *", "quota")]
)
def test_an_injected_error_says_so(command: str, code: str, proxy: Daemon) -> None:
    proxy.command(command)
    for ask in (raw.openai, raw.anthropic, raw.google):
        answer = ask(proxy.url)
        assert [answer.headers[name] for name in MARKS] == ["injected", code]


@pytest.mark.parametrize(("ask", "code"), [(raw.openai, "server_error"), (raw.anthropic, "overloaded")])
def test_u_says_which_error_it_came_to(ask: type, code: str, proxy: Daemon) -> None:
    proxy.command("u *")
    assert [ask(proxy.url).headers[name] for name in MARKS] == ["injected", code]


@pytest.mark.parametrize("status", [200, 400, 429, 500, 529])
def test_what_passes_is_never_marked(status: int, proxy: Daemon, recorder: Recorder) -> None:
    recorder.status = status
    try:
        answer = raw.openai(proxy.url)
    finally:
        recorder.status = 200
    assert (answer.status, answer.json) == (status, {"upstream": "really"})
    assert not [name for name in answer.headers if name.startswith("x-llmproxyd")]


def test_a_failure_of_the_connection_is_told_from_a_rehearsed_one(proxy: Daemon) -> None:
    anthropic, google = raw.anthropic(proxy.url), raw.google(proxy.url)
    for answer in (anthropic, google):
        assert answer.status == 502
        assert [answer.headers[name] for name in MARKS] == ["upstream", "upstream_unreachable"]
    assert anthropic.error["details"]["error_code"] == "upstream_unreachable"
    assert google.error["details"][0]["reason"] == "upstream_unreachable"


def test_a_refusal_of_the_proxys_own_is_told_too(proxy: Daemon) -> None:
    answer = raw.openai(proxy.url, user="x" * 2000)
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")
    assert [answer.headers[name] for name in MARKS] == ["proxy", "body_too_large"]
