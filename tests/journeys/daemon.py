"""The daemon as a process of its own, as its users run it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType

TWISTD = Path(sys.executable).with_name("twistd")
PATIENCE = 30.0
"""Seconds that anything may take before a test gives it up."""

_LETTERS = "abcdefghij"
_KEPT = ("PATH", "TMPDIR", "COVERAGE_PROCESS_START", "COVERAGE_FILE")


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment in which nothing but *extra* speaks to the daemon."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "HOME": str(home), "LC_ALL": "C.UTF-8", **(extra or {})}


class Daemon:
    """``twistd -n llmproxy`` on a free port of 127.0.0.1, within a ``with`` block.

    :param stdin: ``pipe`` takes commands, ``null`` is ``/dev/null``, ``closed`` is ``<&-``.
    :param env: variables on top of an environment that says nothing.
    :param cwd: working folder, an empty one of its own by default.
    :param listen: arguments that say where it listens, nothing for what its configuration says.
    """

    def __init__(
        self,
        *arguments: str,
        stdin: str = "pipe",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        listen: Sequence[str] = ("--port", "0", "--interface", "127.0.0.1"),
    ) -> None:
        self._arguments = arguments
        self._stdin = stdin
        self._env = env
        self._cwd = cwd
        self._listen = listen
        self._read = bytearray()
        self._news = threading.Condition()
        self._over = False
        self._marks = count()
        self.url = ""

    def __enter__(self) -> Daemon:
        self.folder = Path(tempfile.mkdtemp(prefix="journey-"))
        ready = self.folder / "ready"
        home = self.folder / "home"
        home.mkdir()
        cwd = self._cwd or self.folder / "cwd"
        cwd.mkdir(exist_ok=True)
        own = [*self._listen, "--ready-file", str(ready)]
        command = [str(TWISTD), "-n", "llmproxy", *own, *self._arguments]
        if self._stdin == "closed":
            command = ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *command]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if self._stdin == "pipe" else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environment(home, self._env),
        )
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()
        try:
            self.url = self._wait_ready(ready)
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.process.poll() is None:
                self.stop()
        finally:
            self._clean()

    @property
    def output(self) -> str:
        """All that it has written so far, standard error included."""
        with self._news:
            return self._read.decode("utf-8", "replace")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def type(self, text: str) -> None:
        """Write *text* to its standard input as a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def command(self, text: str) -> str:
        """Have the operator's command *text* done; what it was answered."""
        # A second line that is no command is refused by name, which ends the first one's answer.
        mark = "zz" + "".join(_LETTERS[int(digit)] for digit in str(next(self._marks)))
        start = len(self.output)
        self.type(f"{text}\n{mark}")
        # Within a line of JSON the quotes are escaped.
        said = self.wait_for(rf'\\?"{mark}\\?" is no command', start)
        return self.output[start : said.start()]

    def wait_for(self, pattern: str, start: int = 0) -> re.Match[str]:
        """The first match of *pattern* in the output from *start* on, once it is there."""
        deadline = time.monotonic() + PATIENCE
        compiled = re.compile(pattern, re.MULTILINE)
        with self._news:
            while True:
                text = self._read.decode("utf-8", "replace")
                if found := compiled.search(text, start):
                    return found
                left = deadline - time.monotonic()
                assert left > 0, f"never said {pattern!r}:\n{text}"
                assert not self._over, f"ended without saying {pattern!r}:\n{text}"
                self._news.wait(left)

    def close_stdin(self) -> None:
        """End of input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal; its exit status (negative for a signal that ended it)."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Its exit status, once it has ended by itself; all of its output is there then."""
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it would not end:\n{self.output}") from None
        self._reader.join(PATIENCE)
        return status

    def _wait_ready(self, file: Path) -> str:
        deadline = time.monotonic() + PATIENCE
        while not file.exists():
            if self.process.poll() is not None:
                self._reader.join(PATIENCE)
                raise AssertionError(f"it ended at once with {self.process.returncode}:\n{self.output}")
            assert time.monotonic() < deadline, f"never ready:\n{self.output}"
            time.sleep(0.01)
        return file.read_text().strip()

    def _collect(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        while piece := os.read(stdout.fileno(), 65536):
            with self._news:
                self._read += piece
                self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()

    def _clean(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(PATIENCE)
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)
