"""``GET /health``."""

from __future__ import annotations

from pathlib import Path

import raw
from daemon import Daemon


def test_health_tells_the_state_and_an_active_fault_in_words(proxy: Daemon) -> None:
    answer = raw.ask(proxy.url, "/health")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    told = answer.json
    assert told["status"] == "healthy"
    assert told["version"]
    assert told["uptime"] >= 0
    assert told["mode"] == "No error (pass through)"
    assert told["upstreams"]["anthropic"]["provider"] == "anthropic"
    for command, words in (
        ("r 3", "Rate limit exceeded (next 3 requests, for 8h more)"),
        ("c 30%", "Context length exceeded (30 % of requests, for 8h more)"),
        ("u * upstream=openai", "Unknown server error (every request, only upstream openai, for 8h more)"),
        ("n", "No error (pass through)"),
    ):
        proxy.command(command)
        assert raw.ask(proxy.url, "/health?verbose").json["mode"] == words


def test_health_counts_requests_but_not_itself(proxy: Daemon) -> None:
    before = raw.ask(proxy.url, "/health").json["requests"]
    raw.openai(proxy.url)
    assert raw.ask(proxy.url, "/health").json["requests"] == before + 1


def test_health_answers_while_every_request_fails(proxy: Daemon) -> None:
    proxy.command("u *")
    assert raw.ask(proxy.url, "/health").status == 200


def test_head_of_health_has_no_body(proxy: Daemon) -> None:
    answer = raw.ask(proxy.url, "/health", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


def test_other_methods_and_paths_go_upstream(tmp_path: Path) -> None:
    file = tmp_path / "llmproxyd.yaml"
    with raw.recording() as recorder:
        file.write_text(f"upstreams: {{openai: {{base_url: '{recorder.url}'}}}}\n")
        with Daemon("--config", str(file)) as daemon:
            for method in ("POST", "PUT", "DELETE"):
                assert raw.ask(daemon.url, "/health", body=b"x", method=method).json == {"upstream": "really"}
            for path in ("/health/", "/health/live", "//health", "/%68ealth"):
                assert raw.ask(daemon.url, path).json == {"upstream": "really"}
    assert recorder.paths == [
        "POST /health",
        "PUT /health",
        "DELETE /health",
        "GET /health/",
        "GET /health/live",
        "GET //health",
        "GET /%68ealth",
    ]
