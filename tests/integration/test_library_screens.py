"""The programs of docs/library.rst, run as they stand there but for the number of the port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_twisted
from docutils.core import publish_string
from twisted.internet.threads import deferToThread
from wireclient import connect, get, request, until

from llmproxyd.testing.upstream import (
    LAST_CHUNK,
    FakeUpstream,
    Send,
    answer,
    chunk,
    event,
    json_answer,
    stream_head,
)

TEXT = (Path(__file__).parents[2] / "docs" / "library.rst").read_text()
KEY = "sk-the-key-of-the-environment"


def screen(title: str) -> str:
    """The literal block in the section *title*, without its indentation."""
    section = TEXT[TEXT.index(f"\n{title}\n") :]
    found = re.search(r"::\n\n((?:    .*\n|\n)+)", section)
    assert found is not None
    return re.sub(r"(?m)^    ", "", found.group(1)).strip() + "\n"


class Program:
    """One that runs as a process of its own.

    :ivar said: the lines that it has written.
    """

    def __init__(self, path: Path, upstream: FakeUpstream) -> None:
        self.said: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(path.parent),
                "OPENAI_API_KEY": KEY,
                "LLMPROXYD_UPSTREAMS__OPENAI__BASE_URL": upstream.url,
            },
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                self.said.append(line)

    async def port(self) -> int:
        """The number of its open port, once it has told it."""
        await until(lambda: self.said or self._process.poll() is not None, "the program to start")
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/llm)?\n", self.said[0])
        assert found is not None, self.said
        return int(found[1])

    async def end(self) -> int:
        """Ask it to end, and wait for that; its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            status: int = await deferToThread(self._process.wait, 15)
        finally:
            self._process.kill()
        self._reader.join(5)
        return status


@asynccontextmanager
async def running(title: str, tmp_path: Path, upstream: FakeUpstream) -> AsyncIterator[Program]:
    text = screen(title)
    assert text.count("8080") == 1
    path = tmp_path / "program.py"
    path.write_text(text.replace("8080", "0"))
    program = Program(path, upstream)
    try:
        yield program
    finally:
        await program.end()


def test_first_screen_is_one() -> None:
    lines = screen("In one screen").splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100


@pytest_twisted.ensureDeferred
async def test_first_screen(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.scripts = [
        [Send(json_answer({"id": "x"}))],
        [Send(stream_head() + chunk(event(b"1")) + LAST_CHUNK)],
        [Send(answer(b"models", b"cache-control: public, max-age=60"))],
    ]
    async with running("In one screen", tmp_path, upstream) as program:
        client = await connect(await program.port())
        chat = request(b"/llm/v1/chat/completions")
        assert (await client.ask(chat)).json == {"id": "x"}
        assert (await client.ask(chat)).body == event(b"1")
        for _ in range(2):
            assert (await client.ask(get(b"/llm/v1/models"))).body == b"models"
        assert b"llmproxyd_requests_total" in (await client.ask(get(b"/metrics"))).body
        assert (await client.ask(get(b"/other"))).status == 404
        client.transport.abortConnection()
        assert await program.end() == 0
    assert [one.all(b"authorization") for one in upstream.requests] == [[b"Bearer " + KEY.encode()]] * 3
    assert program.said[1:] == [
        "ProxyMetrics(requests=4, errors=0, cache_hits=1, cache_misses=1, cache_bypass=2, cache_stores=1)\n"
    ]


@pytest_twisted.ensureDeferred
async def test_screen_with_a_validator(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.scripts = [[Send(json_answer({"id": "x"}))]]
    async with running("With your own validator", tmp_path, upstream) as program:
        client = await connect(await program.port())
        seen = []
        for token in (b"team-one", b"team-old", b"other"):
            sent = request(b"/v1/chat/completions", b"Authorization: Bearer " + token)
            seen.append((await client.ask(sent)).get(b"x-llmproxyd-code"))
        client.transport.abortConnection()
        await program.end()
    assert seen == [None, b"token_expired", b"token_not_found"]
    assert [one.all(b"authorization") for one in upstream.requests] == [[b"Bearer sk-the-key-of-the-team"]]
    log = "".join(program.said)
    assert "-> openai: 200" in log
    assert "token_expired" in log
    assert "team-o" not in log


def test_screen_of_a_test(tmp_path: Path) -> None:
    (tmp_path / "test_screen.py").write_text(screen("Testing with the in-memory parts"))
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_screen.py"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout


def test_document_is_good_rst() -> None:
    publish_string(TEXT, settings_overrides={"halt_level": 2, "report_level": 5})


@pytest.mark.parametrize("name", sorted(set(re.findall(r"``(I[A-Z]\w+)``", TEXT))))
def test_interface_that_is_named_is_there(name: str) -> None:
    from llmproxyd.library import interfaces

    assert hasattr(interfaces, name)
