"""A job of a shell script, as in CI: ``--mode … --no-stdin &``, requests, ``kill``."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import raw
from daemon import PATIENCE, TWISTD, Daemon, environment

CLIENT = """\
import json, sys, urllib.error, urllib.request
body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
for _ in range(int(sys.argv[2])):
    request = urllib.request.Request(sys.argv[1] + "/v1/chat/completions", json.dumps(body).encode())
    try:
        print(urllib.request.urlopen(request, timeout=20).status)
    except urllib.error.HTTPError as error:
        print(error.code, json.load(error)["error"]["code"])
"""

SCRIPT = """\
twistd -n llmproxy --sandbox --port 0 --ready-file ready --mode "c 3" --no-stdin {options} > log 2>&1 &
PROXY_PID=$!
tries=0
until [ -s ready ] || [ $tries -gt 300 ]; do sleep 0.1; tries=$((tries + 1)); done

python client.py "$(cat ready)" {requests}

kill $PROXY_PID
wait $PROXY_PID
echo "status $?"
"""


def run(folder: Path, script: str) -> str:
    (folder / "client.py").write_text(CLIENT)
    variables = environment(folder)
    variables["PATH"] = f"{TWISTD.parent}:{Path(sys.executable).parent}:{variables['PATH']}"
    result = subprocess.run(
        ["/bin/sh", "-c", script], cwd=folder, env=variables, capture_output=True, text=True, timeout=60
    )
    assert result.stderr == ""
    return result.stdout


@pytest.mark.parametrize(
    ("options", "requests", "status"),
    [
        ("", 4, 0),
        ("--require-faults", 4, 0),
        ("--require-faults", 2, 1),
        ("< /dev/null", 4, 0),
        ("<&-", 4, 0),
    ],
)
def test_a_script_runs_it_in_the_background_and_kills_it(
    options: str, requests: int, status: int, tmp_path: Path
) -> None:
    said = run(tmp_path, SCRIPT.format(options=options, requests=requests)).splitlines()
    expected = ["400 context_length_exceeded"] * min(requests, 3) + ["200"] * (requests - 3)
    assert said == [*expected, f"status {status}"]
    log = (tmp_path / "log").read_text()
    assert ("injected 2 of 3; 1 never reached" in log) is (requests == 2)
    assert ("injected 3 of 3" in log) is (requests == 4)
    assert "Traceback" not in log
    assert not (tmp_path / "ready").exists()
    assert not (tmp_path / "twistd.pid").exists()


def test_several_run_side_by_side_in_one_folder(tmp_path: Path) -> None:
    one = 'twistd -n llmproxy --sandbox --port 0 --ready-file ready{0} --mode "{1} *" --no-stdin > log{0} 2>&1 &\n'
    script = one.format(1, "c") + "A=$!\n" + one.format(2, "r") + "B=$!\n"
    script += "for file in ready1 ready2; do until [ -s $file ]; do sleep 0.1; done; done\n"
    script += 'python client.py "$(cat ready1)" 1; python client.py "$(cat ready2)" 1\n'
    script += 'kill $A $B; wait $A; echo "status $?"; wait $B; echo "status $?"\n'
    said = run(tmp_path, script).splitlines()
    assert said == ["400 context_length_exceeded", "429 rate_limit_exceeded", "status 0", "status 0"]


@pytest.mark.parametrize(
    ("way", "requests", "status"), [("q", 2, 1), ("q", 3, 0), ("SIGTERM", 2, 1), ("SIGINT", 2, 1)]
)
def test_required_faults_decide_the_status_however_it_ends(way: str, requests: int, status: int) -> None:
    with Daemon("--sandbox", "--mode", "c 3", "--require-faults") as daemon:
        assert [raw.openai(daemon.url).status for _ in range(requests)] == [400] * requests
        if way == "q":
            daemon.type("q")
            assert daemon.ended() == status
        else:
            assert daemon.stop(signal.Signals[way]) == status
        told = re.findall("injected .*", daemon.output.rpartition("Faults: ")[2])
        assert told == ["injected 2 of 3; 1 never reached" if requests == 2 else "injected 3 of 3"]


def test_a_share_that_never_came_is_told_by_name() -> None:
    with Daemon("--sandbox", "--mode", "c *", "--require-faults") as daemon:
        assert daemon.stop() == 1
        assert "Faults: mode was never reached" in daemon.output


def test_an_error_whose_time_was_over_was_not_reached() -> None:
    with Daemon("--sandbox", "--mode", "r 2 for=300ms", "--require-faults", "--no-stdin") as daemon:
        deadline = time.monotonic() + PATIENCE
        while "Rate limit" in raw.ask(daemon.url, "/health").json["mode"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert daemon.stop() == 1
        assert "2 never reached" in daemon.output


def test_without_a_fault_nothing_is_required() -> None:
    with Daemon("--sandbox", "--require-faults") as daemon:
        assert raw.openai(daemon.url).status == 200
        assert daemon.stop() == 0
        assert "Faults:" not in daemon.output
