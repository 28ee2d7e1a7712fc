"""Where it all runs: an own virtual environment, a certificate, and what the machine is."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = ("aiohttp", "trustme")
TOLD = ("llmproxyd", "twisted", "treq", "httptools", "aiohttp", "pyopenssl")
"""Packages whose versions are told."""


class SetupError(Exception):
    """It cannot be set up."""


def default_work() -> Path:
    """The folder for what is kept between runs."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "llmproxyd-benchmarks"


def prepare(work: Path, python: str, project: Path) -> Path:
    """Make the virtual environment, unless it is there and fits.

    :return: its interpreter.
    """
    version = output([python, "-c", "import sys; print(sys.version)"])
    wanted = [str(project), version, *PACKAGES]
    sources = [project / "setup.cfg", project / "pyproject.toml"]
    wanted += [path.read_text() for path in sources if path.exists()]
    mark = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:12]
    venv = work / f"venv-{hashlib.sha256(str(project).encode()).hexdigest()[:8]}"
    return virtual_environment(venv, python, ("-e", str(project), *PACKAGES), mark)


def virtual_environment(venv: Path, python: str, packages: Sequence[str], mark: str) -> Path:
    """Make the virtual environment *venv* with *packages*, unless it is there and has that *mark*.

    :return: its interpreter.
    """
    interpreter = venv / "bin" / "python"
    stamp = venv / "installed"
    if stamp.exists() and stamp.read_text() == mark and interpreter.exists():
        return interpreter
    say(f"setting up {venv}")
    shutil.rmtree(venv, ignore_errors=True)
    venv.parent.mkdir(parents=True, exist_ok=True)
    run([python, "-m", "venv", str(venv)])
    run([str(interpreter), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages])
    stamp.write_text(mark)
    return interpreter


def certificate(work: Path, interpreter: Path) -> tuple[Path, Path]:
    """A certificate with its key for loopback, and the authority that signed it."""
    own, authority = work / "upstream.pem", work / "authority.pem"
    script = (
        "import sys, trustme\n"
        "authority = trustme.CA()\n"
        "own = authority.issue_cert('127.0.0.1', 'localhost')\n"
        "own.private_key_and_cert_chain_pem.write_to_path(sys.argv[1])\n"
        "authority.cert_pem.write_to_path(sys.argv[2])\n"
    )
    run([str(interpreter), "-c", script, str(own), str(authority)])
    return own, authority


def describe(interpreter: Path, nginx: str | None) -> dict[str, str]:
    """Date, machine and versions."""
    script = (
        "import importlib.metadata, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        found[name] = importlib.metadata.version(name)\n"
        "    except importlib.metadata.PackageNotFoundError:\n"
        "        found[name] = 'not installed'\n"
        "print(json.dumps(found))\n"
    )
    facts = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": output([str(interpreter), "-c", "import platform; print(platform.python_version())"]),
    }
    facts.update(json.loads(output([str(interpreter), "-c", script, *TOLD])))
    facts["nginx"] = "not installed"
    if nginx is not None:
        told = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=False)
        facts["nginx"] = told.stderr.strip().rpartition("/")[2]
    return facts


def find_nginx() -> str | None:
    """The program, if it is installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def output(command: list[str]) -> str:
    """What *command* prints, without the space around it.

    :raises SetupError: it fails.
    """
    return run(command).strip()


def run(command: list[str]) -> str:
    """What *command* prints.

    :raises SetupError: it fails, or is not done in ten minutes.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    except OSError as error:
        raise SetupError(f"{command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{' '.join(command[:5])}: not done in {error.timeout:g} s") from error
    except subprocess.CalledProcessError as error:
        raise SetupError(f"{' '.join(command[:5])}: {error.stderr[-2000:]}") from error
    return done.stdout
