"""Under systemd the journal learns the level of each line: by ``journalctl -p warning`` failures are found."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import raw
from daemon import PATIENCE, TWISTD, environment

CONFIG = """\
listen: ["tcp:0:interface=127.0.0.1"]
upstreams: {openai: {base_url: "http://127.0.0.1:1"}}
"""


def run(folder: Path, config: str, *, journal: bool) -> tuple[subprocess.Popen[bytes], Path]:
    (folder / "llmproxyd.yaml").write_text(config)
    log = folder / "log"
    with log.open("wb") as file:
        found = os.fstat(file.fileno())
        named = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"} if journal else {}
        process = subprocess.Popen(
            [str(TWISTD), "-n", "llmproxy", "-c", "llmproxyd.yaml", "--no-stdin", "--ready-file", "ready"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=folder,
            env=environment(folder, {**named, "LLMPROXYD_NO_SUCH_KEY": "1"}),
        )
    return process, log


def journey(folder: Path, *, journal: bool) -> list[str]:
    """The log of one good request, one that fails, and a start with a warning."""
    process, log = run(folder, CONFIG, journal=journal)
    try:
        until = time.monotonic() + PATIENCE
        while not (folder / "ready").exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
        url = (folder / "ready").read_text().strip()
        assert raw.openai(url).status == 502
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return log.read_text().splitlines()


def level(lines: list[str], text: str) -> set[str]:
    found = {line[:3] for line in lines if text in line}
    assert found, "\n".join(lines)
    return found


def test_each_line_of_the_log_has_its_level(tmp_path: Path) -> None:
    lines = journey(tmp_path, journal=True)
    assert level(lines, "upstream_unreachable") == {"<4>"}
    assert level(lines, "LLMPROXYD_NO_SUCH_KEY") == {"<4>"}
    assert level(lines, "Stopping") == {"<6>"}


def test_a_mistake_that_ends_the_start_is_an_error(tmp_path: Path) -> None:
    process, log = run(tmp_path, "nonsense: 1\nlisten: 5\n", journal=True)
    assert process.wait(PATIENCE) == 1
    lines = log.read_text().splitlines()
    assert all(line.startswith("<3>") for line in lines)
    assert "nonsense" in lines[0] + lines[1]


def test_without_the_journal_nothing_is_marked(tmp_path: Path) -> None:
    assert not any(line.startswith("<") for line in journey(tmp_path, journal=False))
