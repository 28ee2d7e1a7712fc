"""The daemon as a process of its own, for tests in a process that has no reactor.

It listens on a free port of 127.0.0.1 and keeps its state in a folder of its own, which is removed with
it.  Settings of the daemon in the environment do not reach it: what a test does not say is the default.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from llmproxyd.admin.client import Client, Place

PATIENCE = 30.0
"""Seconds for the daemon to start, and to end."""

EVERY = 0.02
"""Seconds between looks at whether it has started."""

OURS = "LLMPROXYD_"

_SETTINGS = {
    "LLMPROXYD_JOURNAL__REQUESTS": "10000",
    "LLMPROXYD_JOURNAL__BODIES": "64KiB",
    "LLMPROXYD_LOGGING__FORMAT": "text",
}
"""What a test wants to look at is kept, unless the test says otherwise."""


class NotStarted(Exception):
    """The daemon did not start; the message holds what it said."""


class Daemon:
    """One daemon, running within a ``with`` block.

    :param arguments: of its command line.
    :param sandbox: answer from the built-in stand-in for the providers (from recordings, with
        ``--replay``): no key, no network.
    :param env: its environment, this process's by default.
    :raises NotStarted: on entering.
    :ivar url: its origin, ``http://127.0.0.1:PORT``.
    :ivar admin: calls its admin API.
    """

    def __init__(self, *arguments: str, sandbox: bool = True, env: Mapping[str, str] | None = None) -> None:
        self._arguments = arguments
        self.sandbox = sandbox
        self._env = env
        self.url = ""
        self.exit_status: int | None = None

    def __enter__(self) -> Daemon:
        self.folder = Path(tempfile.mkdtemp(prefix="llmproxyd-"))
        try:
            self._start()
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._clean()

    @property
    def log(self) -> str:
        """All that it has said so far."""
        try:
            return (self.folder / "log").read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Stop it gracefully, if it runs; its exit status."""
        process = self._process
        if self.exit_status is None:
            process.terminate()
            try:
                self.exit_status = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                self.exit_status = process.wait()
        return self.exit_status

    def _start(self) -> None:
        ready, socket = self.folder / "ready", self.folder / "admin.sock"
        command = [
            sys.executable,
            "-m",
            "llmproxyd.testing.child",
            *(["--sandbox"] if self.sandbox and "--replay" not in self._arguments else []),
            *("--port", "0", "--interface", "127.0.0.1", "--no-stdin", "--ready-file", str(ready)),
            *self._arguments,
        ]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(socket),
                # Ctrl-C is for the tests; the daemon is stopped when they are over.
                start_new_session=True,
            )
        self.url = self._wait(ready)
        self.admin = Client(Place(sockets=[socket]))

    def _environment(self, socket: Path) -> dict[str, str]:
        given = os.environ if self._env is None else self._env
        kept = {name: value for name, value in given.items() if not name.startswith(OURS)}
        own = {} if self._env is None else {n: v for n, v in self._env.items() if n.startswith(OURS)}
        escaped = str(socket).replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")
        return {
            **kept,
            **_SETTINGS,
            "XDG_STATE_HOME": str(self.folder),
            "LLMPROXYD_ADMIN__LISTEN": f"unix:{escaped}:mode=600:lockfile=0",
            **own,
        }

    def _wait(self, ready: Path) -> str:
        deadline = time.monotonic() + PATIENCE
        while not ready.exists():
            status = self._process.poll()
            if status is not None:
                raise NotStarted(f"llmproxyd ended at once with status {status}:\n{self.log}")
            if time.monotonic() > deadline:
                raise NotStarted(f"llmproxyd was not ready within {PATIENCE:.0f} s:\n{self.log}")
            time.sleep(EVERY)
        return ready.read_text().strip()

    def _clean(self) -> None:
        process: subprocess.Popen[bytes] | None = getattr(self, "_process", None)
        if process is not None:
            if process.poll() is None:
                process.kill()
                process.wait()
            stdin: IO[bytes] | None = process.stdin
            if stdin is not None:
                stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def commanded(client: Client, line: str) -> Mapping[str, object]:
    """Have *line* of the operator's language done.

    :returns: what it was answered: ``text``, and further members as there are.
    :raises llmproxyd.admin.client.Failed: it was refused; nothing has changed.
    """
    answer: Mapping[str, object] = client.call("POST", "faults", body={"command": line})
    return answer
