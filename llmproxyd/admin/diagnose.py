"""``llmproxyctl diagnose``: what a bug report needs, in one file, without secrets and bodies.

The daemon takes secrets out of all that it tells; here everything is gone over once more, since nobody
reads a bundle before it is sent.
"""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import tarfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from llmproxyd.admin.client import Client, Failed, Unreachable
from llmproxyd.admin.verbs import REFUSED, Desk, say
from llmproxyd.control.tables import plain, table
from llmproxyd.redaction import Redactor, Secret

REQUESTS = 200
"""The last ones that are taken in."""
PATIENCE = 10.0
"""Seconds for each answer."""
NAME = "llmproxyd-diagnose-%Y%m%d-%H%M%S"

_VARIABLES = ("LANG", "LC_ALL", "TERM", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "XDG_RUNTIME_DIR")
"""Variables of the environment that are told; none of them may hold a secret."""
_PERSONAL = ("peer",)
"""Members of requests that tell who somebody is."""

Ask = Callable[[Client], Any]


def _line(line: str) -> Ask:
    return lambda client: client.call("POST", "faults", body={"command": line})["data"]


def _requests(client: Client) -> Any:
    found = client.call("GET", "requests", query={"limit": REQUESTS})["requests"]
    return [{name: one for name, one in row.items() if name not in _PERSONAL} for row in found]


PARTS: Mapping[str, tuple[str, Ask]] = {
    "version.json": ("versions of the daemon", _line("version")),
    "status.json": ("how everything stands", lambda client: client.call("GET", "status")),
    "config.json": (
        "the configuration in force, secrets redacted",
        lambda client: client.call("GET", "config"),
    ),
    "faults.json": ("the faults at work", lambda client: client.call("GET", "faults")),
    "upstreams.json": ("the upstreams", _line("upstream list")),
    "breakers.json": ("the circuit breakers", lambda client: client.call("GET", "breakers")),
    "cache.json": ("what the cache holds, in numbers", lambda client: client.call("GET", "cache")),
    "requests.json": (f"the last {REQUESTS} requests, without bodies and peers", _requests),
    "errors.json": ("the error log, summed up", lambda client: client.call("GET", "errors")),
    "metrics.txt": ("the metrics", lambda client: client.page("metrics")),
}
"""What is asked of the daemon, by the name of its file."""


def diagnose(given: Namespace, desk: Desk) -> int:
    """Write the bundle, and tell what is in it; without a daemon it has what is known without."""
    now = time.localtime()
    folder = time.strftime(NAME, now)
    output: Path = given.output or Path(f"{folder}.tar.gz")
    place = desk.client.place
    token = [] if place.token is None else [Secret(place.token)]
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        say(f"llmproxyctl: {output} is there already; nothing was written")
        return REFUSED
    except OSError as error:
        say(f"llmproxyctl: {output}: {error.strerror}")
        return REFUSED
    try:
        with open(descriptor, "wb") as stream:
            told = _write(stream, folder, Client(place, PATIENCE), Redactor(token))
    except BaseException:
        output.unlink(missing_ok=True)
        raise
    missing = [(name, why) for name, _, why in told if why is not None]
    files = [{"name": name, "what": what} for name, what, why in told if why is None]
    data = {
        "file": str(output),
        "files": files,
        "missing": [{"name": name, "why": why} for name, why in missing],
    }
    rows = [(name, what if why is None else f"missing: {why}") for name, what, why in told]
    text = (
        f"{table(('FILE', 'WHAT'), rows)}\n\nWrote {plain(str(output))}. Look through it before you send it."
    )
    return desk.show(data, text)


def _write(
    stream: io.BufferedWriter, folder: str, client: Client, redactor: Redactor
) -> list[tuple[str, str, str | None]]:
    """Each file, what it is, and why it is missing."""
    told: list[tuple[str, str, str | None]] = []
    with tarfile.open(fileobj=stream, mode="w:gz") as bundle:
        for name, what, value in _parts(client):
            if isinstance(value, Exception):
                told.append((name, what, redactor.text(str(value).split("\n")[0])))
                continue
            text = value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False)
            _add(bundle, f"{folder}/{name}", redactor.text(text.rstrip("\n")) + "\n")
            told.append((name, what, None))
        lines = [f"{name}: {what if why is None else f'missing: {why}'}" for name, what, why in told]
        _add(bundle, f"{folder}/README.txt", "\n".join(["A bundle of llmproxyctl diagnose.", "", *lines, ""]))
    return told


def _parts(client: Client) -> Iterator[tuple[str, str, Any]]:
    yield "client.json", "versions of llmproxyctl, Python, the system and all packages", _client()
    gone: Unreachable | None = None
    for name, (what, ask) in PARTS.items():
        if gone is not None:
            yield name, what, gone
            continue
        try:
            yield name, what, ask(client)
        except Unreachable as error:
            gone = error
            yield name, what, error
        except (Failed, KeyError, TypeError, ValueError) as error:
            yield name, what, error


def _client() -> Mapping[str, object]:
    packages = {one.metadata["Name"]: one.version for one in distributions()}
    return {
        "llmproxyctl": version("llmproxyd"),
        "python": sys.version,
        "executable": sys.executable,
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "packages": {str(name): packages[name] for name in sorted(packages, key=str)},
    }


def _add(bundle: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o600, int(time.time())
    bundle.addfile(info, io.BytesIO(data))
