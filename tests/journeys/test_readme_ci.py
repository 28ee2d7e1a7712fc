"""The README's commands and files, as a shell and the daemon take them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import Daemon
from flaky import CHAT, answer, flaky, openai_error
from raw import ask

README = Path(__file__).parents[2] / "README.rst"
CALL = """\
import json, os, sys, urllib.error, urllib.request
body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "tell me a joke"}]})
request = urllib.request.Request(os.environ["OPENAI_HOST"] + "/v1/chat/completions", body.encode())
try:
    print(urllib.request.urlopen(request, timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code, json.load(error)["error"]["code"])
"""


@pytest.mark.parametrize(("calls", "status"), [(4, 0), (2, 1)])
def test_the_job_ends_with_1_when_an_error_was_never_reached(calls: int, status: int, tmp_path: Path) -> None:
    found = re.search(r"::\n\n((?:    .*\n)*    llmproxyd --mode(?:.*\n)(?:    .*\n)*)", README.read_text())
    assert found is not None
    script = re.sub(r"(?m)^    ", "", found.group(1))
    (tmp_path / "goose").write_text(f"#!{sys.executable}\n{CALL}")
    (tmp_path / "goose").chmod(0o755)
    assert script.count("goose run") == 1
    script = re.sub(r"(?m)^(goose run.*)$", "\n".join([r"\1"] * calls), script)
    script = script.replace("llmproxyd --mode", "llmproxyd --sandbox --port 0 --mode")
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        ["sh", "-c", script],
        cwd=tmp_path,
        env={"PATH": path, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == status, result.stdout + result.stderr
    assert len(re.findall(r"(?m)^400 context_length_exceeded$", result.stdout)) == min(calls, 3)
    assert result.stdout.count("\n200\n") == (1 if calls > 3 else 0)
    assert ("1 never reached" in result.stdout) is (status == 1)


def block(start: str) -> str:
    """The literal block that begins with *start*, without its indentation."""
    found = re.search(rf"::\n\n((?:    .*\n)*?    {re.escape(start)}.*\n(?:    .*\n)*)", README.read_text())
    assert found is not None
    return re.sub(r"(?m)^    ", "", found.group(1))


def test_the_file_for_a_flaky_endpoint_makes_it_survive(tmp_path: Path) -> None:
    file = tmp_path / "llmproxyd.yaml"
    text = block("server: {single_upstream")
    assert text.count("https://llm.example.com") == 1
    with flaky() as upstream:
        file.write_text(text.replace("https://llm.example.com", upstream.url))
        upstream.play(openai_error("529 Overloaded", "sorry"), answer(CHAT))
        with Daemon("--config", str(file)) as proxy:
            got = ask(proxy.url, "/v1/chat/completions", body={"model": "gpt-4o"})
            assert (got.status, got.json) == (200, CHAT)
            proxy.wait_for(r"my-endpoint overloaded \(529\), trying again in \d\.\d s \(1 of 3\) \[[\w-]+\]")
            opened = r"my-endpoint  open, next probe in \w+, opened once\n"
            assert re.search(opened, proxy.command("breaker trip my-endpoint"))
            assert re.search(opened, proxy.command("breaker"))
            got = ask(proxy.url, "/v1/chat/completions", body={"model": "gpt-4o"})
            assert (got.status, got.json["error"]["code"]) == (503, "circuit_open")
            assert "my-endpoint  closed" in proxy.command("breaker reset my-endpoint")
            got = ask(proxy.url, "/v1/chat/completions", body={"model": "gpt-4o"})
            assert got.status == 200
        assert [one.path for one in upstream.requests] == ["/v1/chat/completions"] * 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_call_that_shows_whether_venice_works(tmp_path: Path) -> None:
    script = block("curl http://127.0.0.1:9000/api/v1/")
    with flaky() as upstream:
        upstream.play(answer(CHAT))
        variables = {"OPENAI_BASE_URL": f"{upstream.url}/api/v1"}
        with Daemon("--preset", "venice", env=variables) as proxy:
            result = subprocess.run(
                ["sh", "-c", script.replace("http://127.0.0.1:9000", proxy.url)],
                env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "VENICE_API_KEY": "a-key"},
                capture_output=True,
                text=True,
                timeout=30,
            )
        assert '"Hello."' in result.stdout, result.stderr
        (got,) = upstream.requests
        assert (got.path, got.headers["authorization"]) == ("/api/v1/chat/completions", "Bearer a-key")
