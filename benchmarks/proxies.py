"""The proxies that people run: LiteLLM, Portkey's gateway, FastAPI with httpx.

They are large, so each is set up in a place of its own, and only when it is asked for.  None of them
looks at the network when it runs, and none listens beyond loopback.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from environment import HERE, SetupError, output, run, say, virtual_environment
from shapes import KEY

PACKAGES = {"fastapi": ("fastapi", "httpx", "uvicorn[standard]"), "litellm": ("litellm[proxy]",)}
GATEWAY = "@portkey-ai/gateway"
NAMES = (*PACKAGES, "portkey")
START = 120.0
"""Seconds granted to one of them until it answers; LiteLLM takes some twenty, more on a slow machine."""

Place = Path | SetupError
"""Where one of them is: an interpreter or, of Portkey's, a folder; or why it is nowhere."""


def set_up(names: Iterable[str], work: Path, python: str) -> dict[str, Place]:
    """Set up each of *names*, unless it is there already."""
    places: dict[str, Place] = {}
    for name in names:
        try:
            if name == "portkey":
                places[name] = _gateway(work / name)
            else:
                version = output([python, "-c", "import sys; print(sys.version)"])
                mark = "\n".join((version, *PACKAGES[name]))
                places[name] = virtual_environment(work / name, python, PACKAGES[name], mark)
        except SetupError as error:
            places[name] = SetupError(f"it cannot be set up: {_reason(str(error))}")
    return places


def _reason(text: str) -> str:
    """The line that tells it, of all that pip or npm has said."""
    found = re.search(r"\b(npm )?error\b.*", text, re.IGNORECASE)
    return found[0] if found else text.splitlines()[0]


def _gateway(folder: Path) -> Path:
    """Portkey's gateway, by npm."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise SetupError("it needs node and npm, which are not installed")
    stamp = folder / "installed"
    if not stamp.exists():
        say(f"setting up {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
        run([npm, "install", "--prefix", str(folder), *quiet, GATEWAY])
        stamp.touch()
    return folder


def _manifest(folder: Path) -> Path:
    return folder / "node_modules" / GATEWAY / "package.json"


def versions(places: dict[str, Place]) -> dict[str, str]:
    """What was set up, and what runs it."""
    found: dict[str, str] = {}
    script = "import importlib.metadata as m, sys; print(*map(m.version, sys.argv[1:]))"
    for name, place in places.items():
        if isinstance(place, SetupError):
            found[name] = "not set up"
        elif name == "portkey":
            found[name] = json.loads(_manifest(place).read_text())["version"]
            found["node"] = output(["node", "--version"]).lstrip("v")
        else:
            packages = [package.partition("[")[0] for package in PACKAGES[name]]
            told = output([str(place), "-c", script, *packages]).split()
            found[name] = ", ".join([told[0], *map(" ".join, zip(packages[1:], told[1:], strict=True))])
    return found


def _fastapi(interpreter: Path, _: Path, port: int, upstream: int) -> list[str]:
    words = [str(interpreter), str(HERE / "peers" / "fastapi_proxy.py"), "--port", str(port)]
    return [*words, "--base", f"http://127.0.0.1:{upstream}"]


LITELLM = """\
model_list:
  - model_name: gpt-4o-mini
    litellm_params:
      model: openai/gpt-4o-mini
      api_base: http://127.0.0.1:%d/v1
      api_key: %s
"""


def _litellm(interpreter: Path, scratch: Path, port: int, upstream: int) -> list[str]:
    config = scratch / "litellm.yaml"
    config.write_text(LITELLM % (upstream, KEY.decode()))
    words = [str(interpreter.parent / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    return [*words, "--port", str(port), "--num_workers", "1", "--telemetry", "False"]


# It has no option for the address, and would listen at all of them.
LOOPBACK = """\
const { Server } = require("node:net");
const listen = Server.prototype.listen;
Server.prototype.listen = function (port, host, done) {
    return listen.call(this, { port, host: "127.0.0.1", backlog: 4096 }, done);
};
"""


def _portkey(folder: Path, scratch: Path, port: int, _: int) -> list[str]:
    loopback = scratch / "loopback.cjs"
    loopback.write_text(LOOPBACK)
    script = _manifest(folder).parent / "build" / "start-server.js"
    return ["node", "--require", str(loopback), str(script), f"--port={port}", "--headless"]


COMMANDS: dict[str, Callable[[Path, Path, int, int], list[str]]] = {
    "fastapi": _fastapi,
    "litellm": _litellm,
    "portkey": _portkey,
}
"""The command of each, from its place, a scratch folder, its port and the upstream's."""

ENVIRONMENT = {
    "litellm": {
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",  # no .env file
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # prices as they came with it
        # No authentication, as with the other peers.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    },
    "portkey": {"NODE_ENV": "production"},
}


def fields(name: str, upstream: int) -> str:
    """Header fields that every request to it must bring, each with its line end."""
    if name != "portkey":
        return ""
    return f"x-portkey-provider: openai\r\nx-portkey-custom-host: http://127.0.0.1:{upstream}/v1\r\n"
