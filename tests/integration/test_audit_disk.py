"""The audit log on a real disk: full, gone, hanging; and a daemon that is killed while it writes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from bench import reactor
from twisted.internet.defer import DeferredList
from wireclient import pause

from llmproxyd.config.gateway import Audit
from llmproxyd.model import Change
from llmproxyd.observe import audit as module
from llmproxyd.observe.audit import AuditLog, AuditUnavailable, NoAudit, audit_of
from llmproxyd.observe.rotation import LineFile
from llmproxyd.redaction import Redactor


def change(target: str) -> Change:
    return Change(who="socket uid=1000", address="-", action="token.create", target=target)


def targets(path: Path) -> list[str]:
    return [json.loads(line)["target"] for line in path.read_text().splitlines()]


@pytest.fixture
def audit(tmp_path: Path, _nothing_left: None) -> Iterator[Any]:
    made: list[AuditLog] = []

    def make(path: Path | None = None) -> AuditLog:
        one = audit_of(Audit(path or tmp_path / "audit.jsonl"), reactor, time.time, Redactor())
        assert isinstance(one, AuditLog)
        made.append(one)
        return one

    yield make
    for one in made:
        pytest_twisted.blockon(one.stop())


@contextmanager
def room(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_none_is_kept_where_no_file_is_configured() -> None:
    assert isinstance(audit_of(Audit(), reactor, time.time, Redactor()), NoAudit)


@pytest_twisted.ensureDeferred
async def test_changes_are_on_the_disk_for_the_owner_alone(audit: Any, tmp_path: Path) -> None:
    log = audit()
    await log.start()
    await DeferredList([log.record(change(str(number))) for number in range(300)])
    path = tmp_path / "audit.jsonl"
    assert targets(path) == [str(number) for number in range(300)]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest_twisted.ensureDeferred
async def test_full_disk_refuses_and_leaves_no_half_of_a_line(audit: Any, tmp_path: Path) -> None:
    log = audit()
    path = tmp_path / "audit.jsonl"
    await log.record(change("before"))
    with room(path.stat().st_size + 50):
        for _ in range(3):
            with pytest.raises(AuditUnavailable, match="File too large"):
                await log.record(change("while full"))
    await log.record(change("after"))
    assert targets(path) == ["before", "after"]
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == [1, 2]


@pytest_twisted.ensureDeferred
async def test_place_that_cannot_be_written_is_known_at_the_start(audit: Any) -> None:
    log = audit(Path("/proc/llmproxyd/audit.jsonl"))
    with pytest.raises(AuditUnavailable):
        await log.start()
    with pytest.raises(AuditUnavailable):
        await log.record(change("x"))


@pytest_twisted.ensureDeferred
async def test_disk_that_hangs_refuses_in_time_and_what_came_late_is_taken_back(
    audit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    log = audit()
    await log.start()
    answers = threading.Event()
    append = LineFile.append

    def hangs(self: LineFile, lines: Any) -> int:
        answers.wait(20)
        return append(self, lines)

    with monkeypatch.context() as broken:
        broken.setattr(LineFile, "append", hangs)
        start = reactor.seconds()
        records = [log.record(change(str(number))) for number in range(3)]
        results = await DeferredList(records, consumeErrors=True)
        assert reactor.seconds() - start < 2
        assert [(good, failure.type) for good, failure in results] == [(False, AuditUnavailable)] * 3
        answers.set()
    await log.record(change("next"))
    for _ in range(200):
        if log.state()["queued"] == 0 and log.state()["written"] == 3:
            break
        await pause(0.01)
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert sorted((line["target"], line["outcome"]) for line in lines) == [
        ("0", "ok"),
        ("0", "refused"),
        ("next", "ok"),
    ]


RECORD = """
import sys, time
from pathlib import Path
from twisted.internet import reactor
from llmproxyd.config.gateway import Audit
from llmproxyd.model import Change
from llmproxyd.observe.audit import audit_of
from llmproxyd.redaction import Redactor

log = audit_of(Audit(Path(sys.argv[1])), reactor, time.time, Redactor())
numbers = iter(range(10**9))

def one(_=None):
    number = next(numbers)
    if number:
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
    change = Change(who="x", address="-", action="a", target=str(number + 1), after={"text": "y" * 900})
    log.record(change).addCallback(one)

reactor.callWhenRunning(one)
reactor.run()
"""


@pytest.mark.parametrize("count", [1, 7, 40])
def test_killed_at_any_moment_what_was_acknowledged_is_there(tmp_path: Path, count: int) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", RECORD, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(count):
            assert writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = writer.stdout.read().split(b"\n")
        writer.wait()
        writer.stdout.close()
        number = int(acknowledged[-2]) if len(acknowledged) > 1 else count
        lines = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.endswith(b"}")]
        assert int(lines[-1]["target"]) >= number
        assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
        with path.open("ab") as torn:
            torn.write(b'{"seq": 1000, "torn')
