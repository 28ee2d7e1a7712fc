"""The screens of docs/testing.rst, as a user's shell and pytest take them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

PAGE = (Path(__file__).parents[2] / "docs" / "testing.rst").read_text()
CLIENT = """\
import openai
client = openai.OpenAI(max_retries=4)
for _ in range(3):
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
print("fine")
"""


def block(text: str) -> str:
    """The literal block that holds *text*, without its indentation."""
    found = [one for one in re.findall(r"::\n\n((?:    .*\n|\n)+)", PAGE) if text in one]
    assert len(found) == 1, text
    return re.sub(r"(?m)^    ", "", found[0]).strip() + "\n"


def sh(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["sh", "-ec", script], cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )


def test_the_screen_for_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_client.py").write_text(block("def test_waits_and_tries_again"))
    done = sh(f"{sys.executable} -m pytest -q -p no:cacheprovider test_client.py", tmp_path)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_the_screen_without_pytest(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(block("import rehearsed"))
    done = sh(f"{sys.executable} plain.py", tmp_path)
    assert (done.returncode, done.stdout) == (0, "[200]\n"), done.stderr


def test_the_screen_for_any_language(tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(CLIENT)
    (tmp_path / "npm").write_text(f"#!/bin/sh\nexec {sys.executable} client.py\n")
    (tmp_path / "npm").chmod(0o755)
    done = sh(block("-- npm test"), tmp_path)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["requests"]) == 5


def test_the_screen_for_a_job(tmp_path: Path) -> None:
    (tmp_path / "outage.yaml").write_text(block("name: outage"))
    (tmp_path / "client.py").write_text(CLIENT)
    script = block("pip install")
    # What stands in the virtual environment is what this test runs with.
    venv = tmp_path / ".venv" / "bin"
    venv.mkdir(parents=True)
    for name in ("llmproxyd", "python"):
        (venv / name).symlink_to(Path(sys.executable).with_name(name))
    lines = [line for line in script.splitlines() if "-m venv" not in line and "pip install" not in line]
    done = sh("\n".join(lines).replace(".venv/bin/python", sys.executable), tmp_path)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    assert ElementTree.parse(tmp_path / "outage.xml").getroot().tag == "testsuites"
