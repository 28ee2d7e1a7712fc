"""``llmproxyctl init``: what it writes is started, found, killed, and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import raw
from daemon import Daemon, environment

CTL = (sys.executable, "-m", "llmproxyd.admin.ctl")


@pytest.fixture
def state() -> Iterator[dict[str, str]]:
    """Where the state is: the path of a socket must be short."""
    with tempfile.TemporaryDirectory(prefix="ctl-") as folder:
        yield {"XDG_STATE_HOME": folder}


def ctl(folder: Path, state: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [*CTL, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env=environment(folder, state),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("profile", ["goose", "sillytavern", "venice", "team"])
def test_what_is_written_is_found_also_after_a_kill(
    profile: str, tmp_path: Path, state: dict[str, str]
) -> None:
    assert "llmproxyctl wait-ready" in ctl(tmp_path, state, "init", profile)
    file = tmp_path / "llmproxyd.yaml"
    options = ("--config", str(file), "--sandbox") if profile != "team" else ("--config", str(file))
    for end in (signal.SIGKILL, signal.SIGTERM):
        with Daemon(*options, stdin="null", env=state) as daemon:
            ctl(tmp_path, state, "wait-ready", "--timeout", "20s")
            assert json.loads(ctl(tmp_path, state, "status", "--json"))["serving"]["ready"] is True
            ctl(tmp_path, state, "wait-ready", "--url", daemon.url, "--timeout", "20s")
            if profile in ("goose", "sillytavern"):
                assert raw.openai(daemon.url).status == 200
            assert "warning" not in daemon.output.lower()
            assert daemon.stop(end) == (-end if end is signal.SIGKILL else 0)


def test_token_that_is_written_opens_what_the_machine_itself_may_see(
    tmp_path: Path, state: dict[str, str]
) -> None:
    ctl(tmp_path, state, "init", "goose")
    text = (tmp_path / "llmproxyd.yaml").read_text()
    token = text.rpartition("token: ")[2].strip().strip('"')
    options = ("--config", str(tmp_path / "llmproxyd.yaml"), "--sandbox")
    with Daemon(*options, stdin="null", env=state) as daemon:
        fields = {"X-Forwarded-For": "192.0.2.1"}
        assert raw.ask(daemon.url, "/metrics", fields).status == 403
        assert raw.ask(daemon.url, "/metrics", {**fields, "Authorization": f"Bearer {token}"}).status == 200
        assert token not in daemon.output
