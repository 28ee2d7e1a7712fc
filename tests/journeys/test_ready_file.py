"""The ready file is there when signals are heeded, and never when they are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from daemon import PATIENCE, environment

RUN = """\
import os, signal
from pathlib import Path
from llmproxyd import ready, systemd
from llmproxyd.tap import main

announce = ready.announce

def announced(path, url):
    announce(path, url)
    {then}

ready.announce = announced
main()
"""
"""The daemon, and what happens as soon as the file is there."""


def run(folder: Path, then: str) -> subprocess.CompletedProcess[str]:
    options = ("--sandbox", "--port", "0", "--interface", "127.0.0.1", "--no-stdin", "--ready-file", "ready")
    return subprocess.run(
        [sys.executable, "-c", RUN.format(then=then), *options],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(("number", "status"), [("SIGTERM", 0), ("SIGINT", -2)])
def test_a_signal_as_soon_as_it_is_there_stops_the_daemon_gracefully(
    tmp_path: Path, number: str, status: int
) -> None:
    done = run(tmp_path, f"os.kill(os.getpid(), signal.{number})")
    assert done.returncode == status, done.stdout + done.stderr
    assert "Stopping" in done.stdout
    assert not list(tmp_path.glob("*ready*"))


def test_one_that_cannot_be_written_any_more_ends_the_daemon_in_a_line(tmp_path: Path) -> None:
    done = run(tmp_path, "announce(Path('no/such/folder'), url)")
    assert done.returncode == 1
    assert done.stderr == "llmproxyd: --ready-file no/such/folder: No such file or directory\n"
    assert "Traceback" not in done.stdout


def test_one_that_cannot_be_written_ends_the_start_before_a_port_opens(tmp_path: Path) -> None:
    (tmp_path / "ready").mkdir()
    done = run(tmp_path, "pass")
    assert done.returncode == 1
    assert "--ready-file" in done.stderr
    assert "Listening" not in done.stdout
