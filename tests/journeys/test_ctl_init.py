"""``llmproxyctl init``: what it writes is started, found, killed, and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import raw
from daemon import Daemon, environment

CTL = (sys.executable, "-m", "llmproxyd.admin.ctl")


def ctl(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*CTL, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env=environment(folder),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("profile", ["goose", "sillytavern", "venice", "team"])
def test_what_is_written_is_found_also_after_a_kill(profile: str, tmp_path: Path) -> None:
    assert "llmproxyctl wait-ready" in ctl(tmp_path, "init", profile)
    file = tmp_path / "llmproxyd.yaml"
    options = ("--config", str(file), "--sandbox") if profile != "team" else ("--config", str(file))
    for end in (signal.SIGKILL, signal.SIGTERM):
        with Daemon(*options, stdin="null", env={"HOME": str(tmp_path)}) as daemon:
            ctl(tmp_path, "wait-ready", "--timeout", "20s")
            assert json.loads(ctl(tmp_path, "status", "--json"))["serving"]["ready"] is True
            ctl(tmp_path, "wait-ready", "--url", daemon.url, "--timeout", "20s")
            if profile in ("goose", "sillytavern"):
                assert raw.openai(daemon.url).status == 200
            assert "warning" not in daemon.output.lower()
            assert daemon.stop(end) == (-end if end is signal.SIGKILL else 0)


def test_token_that_is_written_opens_what_the_machine_itself_may_see(tmp_path: Path) -> None:
    ctl(tmp_path, "init", "goose")
    text = (tmp_path / "llmproxyd.yaml").read_text()
    token = text.rpartition("token: ")[2].strip().strip('"')
    options = ("--config", str(tmp_path / "llmproxyd.yaml"), "--sandbox")
    with Daemon(*options, stdin="null", env={"HOME": str(tmp_path)}) as daemon:
        fields = {"X-Forwarded-For": "192.0.2.1"}
        assert raw.ask(daemon.url, "/metrics", fields).status == 403
        assert raw.ask(daemon.url, "/metrics", {**fields, "Authorization": f"Bearer {token}"}).status == 200
        assert token not in daemon.output
