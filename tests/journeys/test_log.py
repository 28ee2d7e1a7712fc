"""What the log tells of each request, and what it never tells."""

from __future__ import annotations

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import raw
from daemon import Daemon

LINE = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d #(\d+) ([A-Z]+) (\S+) -> (\S+): (\d{3}) in \d+ ms, (\d+) bytes(.*)$",
    re.MULTILINE,
)
CANARY = "canary-7f3a"
KEYS = {
    "Authorization": f"Bearer sk-{CANARY}",
    "x-api-key": f"sk-ant-{CANARY}",
    "x-goog-api-key": f"AIza{CANARY}",
    "api-key": CANARY,
    "Cookie": f"session={CANARY}",
    "OpenAI-Organization": f"org-{CANARY}",
}
MESSAGES = [{"role": "user", "content": f"my {CANARY} secret"}]
GEMINI = {"contents": [{"parts": [{"text": f"my {CANARY} secret"}]}]}


def requests_of_all_kinds(url: str, fault: str | None = None) -> int:
    """Every API with canaries in fields, query and body; how many requests that made."""
    more = {} if fault is None else {"x-llmproxyd-fault": fault}
    chat = {"model": "gpt-4o", "messages": MESSAGES}
    rows: list[tuple[str, dict[str, str], object]] = [
        ("/v1/chat/completions", {"Authorization": KEYS["Authorization"]}, chat),
        ("/v1/chat/completions", {"Authorization": KEYS["Authorization"]}, {**chat, "stream": True}),
        ("/v1/responses", {"Authorization": KEYS["Authorization"]}, {"model": "o3", "input": CANARY}),
        ("/v1/messages", KEYS, {**chat, "max_tokens": 9}),
        (f"/v1beta/models/g:generateContent?key=AIza{CANARY}", {}, GEMINI),
        (f"/v1beta/models/g:streamGenerateContent?key=AIza{CANARY}&alt=sse", {}, GEMINI),
        (f"/v1beta/models/g:streamGenerateContent?key=AIza{CANARY}", {}, GEMINI),
        (f"/openai/deployments/d/chat/completions?api-version=1&x={CANARY}", KEYS, chat),
        ("/api/v1/chat/completions", {"Authorization": f"Bearer sk-or-v1-{CANARY}"}, chat),
        (
            "/serving-endpoints/m/invocations",
            {"Authorization": f"Bearer dapi{CANARY}"},
            {"messages": MESSAGES},
        ),
        ("/oidc/v1/token", {"Authorization": f"Basic {CANARY}"}, f"code={CANARY}".encode()),
        ("/v1/chat/completions", KEYS, f'{{"broken": "{CANARY}'.encode()),
        (f"/v1/models?key={CANARY}", KEYS, None),
    ]
    with ThreadPoolExecutor(len(rows)) as pool:
        list(pool.map(lambda row: raw.ask(url, row[0], {**row[1], **more}, row[2]), rows))
    return len(rows)


def test_one_line_a_request_with_number_method_path_and_provider(proxy: Daemon) -> None:
    start = len(proxy.output)
    raw.openai(proxy.url)
    raw.ask(proxy.url, "/v1beta/models?key=SECRET&pageSize=5")
    proxy.command("r")
    raw.anthropic(proxy.url)
    proxy.wait_for(r"#\d+ POST /v1/messages ", start)
    found = LINE.findall(proxy.output[start:])
    first = int(found[0][0])
    assert [line[:5] for line in found] == [
        (str(first), "POST", "/v1/chat/completions", "openai", "200"),
        (str(first + 1), "GET", "/v1beta/models", "google", "200"),
        (str(first + 2), "POST", "/v1/messages", "anthropic", "429"),
    ]
    assert "(injected rate_limit)" in found[2][6]
    assert all("injected" not in line[6] for line in found[:2])
    assert "SECRET" not in proxy.output
    assert "pageSize" not in proxy.output


def test_a_quiet_run_tells_its_requests_and_its_end_alone() -> None:
    with Daemon("--sandbox", "--no-stdin") as daemon:
        start = len(daemon.output)
        for ask in (raw.openai, raw.anthropic, raw.google):
            assert ask(daemon.url).status == 200
        assert daemon.stop() == 0
    *requests, last = daemon.output[start:].splitlines()
    assert [bool(LINE.match(line)) for line in requests] == [True] * 3
    assert last.endswith(" Stopping")


def test_the_line_tells_the_size_and_id_of_the_answer(proxy: Daemon) -> None:
    proxy.command("u")
    start = len(proxy.output)
    answer = raw.openai(proxy.url)
    proxy.wait_for(r"#\d+ POST ", start)
    [line] = LINE.findall(proxy.output[start:])
    assert int(line[5]) == len(answer.body)
    assert f"[{answer.headers['x-llmproxyd-request-id']}]" in line[6]


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_key_token_or_message_stands_in_the_output(form: str) -> None:
    env = {
        "LLMPROXYD_LOGGING__FORMAT": form,
        "LLMPROXYD_LOGGING__LEVEL": "debug",
        "LLMPROXYD_FAULTS__HEADER": "true",
    }
    with Daemon("--sandbox", env=env) as daemon:
        count = requests_of_all_kinds(daemon.url)
        daemon.command("u * model=gpt-4*")
        count += requests_of_all_kinds(daemon.url)
        count += requests_of_all_kinds(daemon.url, "rate_limit; retry_after=1")
        assert raw.ask(daemon.url, "/health").json["requests"] == count
        assert daemon.stop() == 0
        assert "/v1beta/models/g:generateContent" in daemon.output
        assert CANARY not in daemon.output


def test_a_failing_upstream_and_a_stored_key_leave_no_secret_in_the_output(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = f"http://127.0.0.1:{taken.getsockname()[1]}"
        file = tmp_path / "llmproxyd.yaml"
        names = ("openai", "anthropic", "google", "openrouter", "databricks")
        rows = [f"  {name}: {{base_url: '{place}', api_key: 'stored-{CANARY}'}}\n" for name in names]
        rows.append(f"  azure: {{base_url: '{place}', headers: {{x-team: 'header-{CANARY}'}}}}\n")
        file.write_text("upstreams:\n" + "".join(rows))
        file.chmod(0o600)
        with Daemon("--config", str(file), env={"LLMPROXYD_LOGGING__LEVEL": "debug"}) as daemon:
            requests_of_all_kinds(daemon.url)
            assert daemon.stop() == 0
        assert "upstream_unreachable" in daemon.output
        assert CANARY not in daemon.output


@pytest.mark.parametrize(
    "odd", [b"\x1b[2J", b"\x9b2J", b"\x85#9", b"\x7f", b"\r", b"\xc2\x9b", b"\xff", b"%0A%1B"]
)
def test_a_path_cannot_steer_the_terminal_or_begin_a_line(odd: bytes, proxy: Daemon) -> None:
    start = len(proxy.output)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as client:
        client.sendall(b"GET /v1/models/" + odd + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 ")
    raw.openai(proxy.url)
    proxy.wait_for(r"#\d+ POST /v1/chat/completions ", start)
    said = proxy.output[start:]
    assert [char for char in said if not (char.isprintable() or char == "\n")] == []
    assert all(LINE.match(line) for line in said.splitlines())


def lines(daemon: Daemon) -> list[dict[str, Any]]:
    return [json.loads(line) for line in daemon.output.splitlines()]


def test_json_lines_are_json_from_start_to_end() -> None:
    with Daemon(
        "--sandbox", "--no-stdin", "--mode", "r 3", env={"LLMPROXYD_LOGGING__FORMAT": "json"}
    ) as daemon:
        answers = [raw.openai(daemon.url), raw.anthropic(daemon.url)]
        raw.ask(daemon.url, f"/v1beta/models?key={CANARY}")
        assert daemon.stop() == 0
    found = lines(daemon)
    requests = [line for line in found if line.get("event") == "request"]
    assert [(one["number"], one["method"], one["path"], one["provider"]) for one in requests] == [
        (1, "POST", "/v1/chat/completions", "openai"),
        (2, "POST", "/v1/messages", "anthropic"),
        (3, "GET", "/v1beta/models", "google"),
    ]
    assert [(one["status"], one["injected"]) for one in requests] == [
        (429, "rate_limit"),
        (429, "rate_limit"),
        (200, None),
    ]
    assert [one["request_id"] for one in requests[:2]] == [
        answer.headers["x-llmproxyd-request-id"] for answer in answers
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", one["ts"]) for one in found)
    assert any("injected 2 of 3; 1 never reached" in json.dumps(one) for one in found)


def test_json_tells_a_drawn_seed_too() -> None:
    with Daemon("--sandbox", "--mode", "c 30%", env={"LLMPROXYD_LOGGING__FORMAT": "json"}) as daemon:
        daemon.wait_for(r"faults\.seed: \d+ repeats this run")
        assert daemon.stop() == 0
    lines(daemon)
