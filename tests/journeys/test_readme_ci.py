"""The README's CI job, as a shell runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert result.stdout.count("400 context_length_exceeded") == min(calls, 3)
    assert result.stdout.count("\n200\n") == (1 if calls > 3 else 0)
    assert ("1 never reached" in result.stdout) is (status == 1)
