"""``faults.rules`` of a file: standing faults under the operator's mode."""

from __future__ import annotations

from pathlib import Path

import pytest
import raw
from daemon import Daemon

RULES = """\
sandbox: {enabled: true}
faults:
  mode: "c"
  rules:
    - name: limits-of-four
      error: rate_limit
      when: "2"
      model: "gpt-4*"
      retry_after: 1
    - name: busy-chats
      error: overloaded
      path: "/v1/chat/*"
      after: 1
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "llmproxyd.yaml"
    path.write_text(RULES)
    return str(path)


def test_rules_are_tried_in_order_after_the_operators_mode(file: str) -> None:
    with Daemon("--config", file) as daemon:
        status = daemon.command("status")
        assert "Current mode: Context length exceeded (next 1 request)" in status
        assert "Rule limits-of-four: Rate limit exceeded (next 2 requests, only model gpt-4*" in status
        assert "Rule busy-chats: Overloaded (every request" in status
        answers = [raw.openai(daemon.url) for _ in range(5)]
        assert [answer.status for answer in answers] == [400, 429, 429, 200, 503]
        assert [answer.headers.get("retry-after") for answer in answers[:3]] == [None, "1", "1"]
        assert raw.openai(daemon.url, model="o3").status == 503
        assert raw.anthropic(daemon.url).status == 200
        assert "limits-of-four" not in daemon.command("status")
        said = daemon.command("n")
        assert "rules of the configuration file are still active" in said
        assert raw.openai(daemon.url).status == 503
        daemon.command("u *")
        assert raw.openai(daemon.url).status == 500
        assert "Overloaded (every request" in raw.ask(daemon.url, "/health").json["mode"]


@pytest.mark.parametrize(("requests", "status"), [(5, 0), (1, 1)])
def test_a_rule_that_never_came_is_a_failure_where_faults_are_required(
    requests: int, status: int, file: str
) -> None:
    with Daemon("--config", file, "--require-faults", "--no-stdin") as daemon:
        for _ in range(requests):
            raw.openai(daemon.url)
        assert daemon.stop() == status
    assert ("busy-chats was never reached" in daemon.output) is (requests < 5)
    assert ("2 never reached" in daemon.output) is (requests == 1)


def test_the_command_line_sets_the_mode_over_the_file(file: str) -> None:
    with Daemon("--config", file, "--mode", "u 1", "--no-stdin") as daemon:
        assert [raw.openai(daemon.url).status for _ in range(2)] == [500, 429]
