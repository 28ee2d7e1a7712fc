"""``llmproxyd run … -- COMMAND``: any command against a daemon of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

LLMPROXYD = Path(sys.executable).with_name("llmproxyd")

ASK = """
import os, sys, openai
client = openai.OpenAI(max_retries=int(sys.argv[1]))
try:
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
except openai.APIStatusError as error:
    print("status", error.status_code)
else:
    print("fine")
"""


def run(folder: Path, *arguments: str, retries: int = 0) -> subprocess.CompletedProcess[str]:
    (folder / "ask.py").write_text(ASK)
    command = [str(LLMPROXYD), "run", *arguments, "--", sys.executable, "ask.py", str(retries)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_the_command_finds_the_daemon_and_its_status_is_ours(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    assert "1 request, 0 faults, 0 verdicts" in done.stderr
    command = [str(LLMPROXYD), "run", "--quiet", "--", "sh", "-c", "echo $LLMPROXYD_URL; exit 7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 7
    assert done.stdout.startswith("http://127.0.0.1:")
    assert done.stderr == ""


def test_a_scenario_in_a_line_reaches_the_command(tmp_path: Path) -> None:
    done = run(tmp_path, "--scenario", "r, ok *")
    assert (done.returncode, done.stdout) == (0, "status 429\n"), done.stderr


def test_a_step_that_was_never_reached_fails_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, "--scenario", "r x5, ok *")
    assert done.returncode == 1, done.stderr
    assert "never reached" in done.stderr


def test_the_report_is_written_as_its_ending_says(tmp_path: Path) -> None:
    (tmp_path / "outage.yaml").write_text("name: outage\nsteps: [r, ok]\n")
    done = run(tmp_path, "--scenario", "outage.yaml", "--report", "report.json", retries=1)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["requests"]) == 2
    done = run(tmp_path, "--scenario", "outage.yaml", "--report", "report.xml", retries=1)
    assert done.returncode == 0, done.stderr
    assert ElementTree.parse(tmp_path / "report.xml").getroot().tag == "testsuites"


def test_what_the_daemon_refuses_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, "--scenario", "r x2, nonsense")
    assert done.returncode == 3
    assert "nonsense" in done.stderr
    assert done.stdout == ""
    assert run(tmp_path, "--no-such-option").returncode == 3


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(LLMPROXYD), "run", "--", "no-such-command"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 127
    assert "no-such-command" in done.stderr
    done = subprocess.run([str(LLMPROXYD), "run"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "a command is missing" in done.stderr


def test_a_signal_reaches_the_command_and_the_daemon_is_stopped(tmp_path: Path) -> None:
    marks = tmp_path / "url"
    process = subprocess.Popen(
        [str(LLMPROXYD), "run", "--quiet", "--", "sh", "-c", f"echo $LLMPROXYD_URL > {marks}; exec sleep 60"]
    )
    deadline = time.monotonic() + 30
    while not (marks.exists() and marks.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    port = int(marks.read_text().strip().rpartition(":")[2])
    import socket

    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_recordings_answer_in_place_of_the_sandbox(tmp_path: Path) -> None:
    assert run(tmp_path, "--record", "calls").returncode == 0
    done = run(tmp_path, "--replay", "calls")
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    [file] = (tmp_path / "calls").iterdir()
    file.unlink()
    assert run(tmp_path, "--replay", "calls").stdout == "status 404\n"


def test_the_log_of_the_daemon_can_be_kept(tmp_path: Path) -> None:
    done = run(tmp_path, "--log", "daemon.log", "--quiet")
    assert done.returncode == 0
    assert "/v1/chat/completions" in (tmp_path / "daemon.log").read_text()
