"""``llmproxyctl`` does lines of the operator's language: as text, as JSON, with an exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from adminbench import AdminBench
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread

from llmproxyd.admin.lines import line_of
from llmproxyd.control.means import Means
from llmproxyd.language.filters import Filter

ROWS: list[dict[str, Any]] = [
    {"id": "req_1", "time": 0, "status": 200, "upstream": "openai"},
    {"id": "req_2", "time": 61, "status": 503, "upstream": "my-vllm"},
]

STORY = {"id": "req_1", "number": 1, "state": "under way", "attempts": [], "changes": []}


class FakeJournal:
    def recent(self, filters: Sequence[Filter], limit: int) -> Sequence[Mapping[str, Any]]:
        return [row for row in ROWS if all(one.matches(row) for one in filters)][-limit:]

    def explain(self, id: str) -> Mapping[str, Any] | None:
        return STORY if id == "req_1" else None

    def follow(
        self, filters: Sequence[Filter], emit: Callable[[Mapping[str, Any]], None]
    ) -> Callable[[], None]:
        raise AssertionError("nobody can follow over the admin API")


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[AdminBench]:
    made = pytest_twisted.blockon(ensureDeferred(AdminBench(tmp_path).listen()))
    made.control.means = Means(
        journal=FakeJournal(),
        projects=made.projects,
        connections=lambda: [{"peer": "127.0.0.1", "requests": 2}],
    )
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


def environment(admin: AdminBench) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "LLMPROXYD_ADMIN_SOCKET": str(admin.socket)}


COMMAND = (sys.executable, "-m", "llmproxyd.admin.ctl")


async def ctl(admin: AdminBench, *arguments: str) -> subprocess.CompletedProcess[str]:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(admin),
        )

    done = await deferToThread(run)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest_twisted.ensureDeferred
async def test_verbs_are_shown_as_text_and_json(admin: AdminBench) -> None:
    text = await ctl(admin, "requests", "5", "status>=500")
    assert [line.split()[1] for line in text.stdout.splitlines()] == ["ID", "req_2"]
    found = await ctl(admin, "requests", "--json")
    assert [row["id"] for row in json.loads(found.stdout)["requests"]] == ["req_1", "req_2"]
    assert json.loads((await ctl(admin, "explain", "req_1", "--json")).stdout) == STORY
    assert "127.0.0.1" in (await ctl(admin, "connections")).stdout
    assert json.loads((await ctl(admin, "version", "--json")).stdout)["llmproxyd"]
    assert "upstream drain NAME" in (await ctl(admin, "run", "help", "all")).stdout
    assert json.loads((await ctl(admin, "run", "breaker", "--json")).stdout)["breakers"]


@pytest_twisted.ensureDeferred
async def test_rules_stand_and_go(admin: AdminBench) -> None:
    assert (await ctl(admin, "fault", "add", "r", "30%", "name=evening", "for=5m")).returncode == 0
    assert "evening" in (await ctl(admin, "fault", "list")).stdout
    assert (await ctl(admin, "fault", "rm", "evening")).returncode == 0
    assert "No fault" in (await ctl(admin, "fault", "list")).stdout
    assert [change.action for change in admin.audited] == ["fault.add", "fault.remove"]
    assert all(change.who.startswith("socket uid=") for change in admin.audited)


@pytest_twisted.ensureDeferred
async def test_words_with_white_space_stay_one(admin: AdminBench) -> None:
    made = await ctl(admin, "run", "project", "create", "team a", "--rpm", "60", "--json")
    assert json.loads(made.stdout)["name"] == "team a"


@pytest_twisted.ensureDeferred
async def test_refusal_has_a_status_and_a_code(admin: AdminBench) -> None:
    for words, code in (
        (("run", "xyz"), "command_refused"),
        (("explain", "nope"), "no_such_request"),
        (("upstream", "drain", "x"), "upstreams_unavailable"),
        (("run", "quit"), "command_refused"),
        (("config", "reload"), "reload_unavailable"),
        (("log", "level", "x"), "command_refused"),
    ):
        done = await ctl(admin, *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"({code})" in done.stderr


@pytest_twisted.ensureDeferred
async def test_requests_that_follow_are_shown_once(admin: AdminBench) -> None:
    def tail() -> list[str]:
        process = subprocess.Popen(
            [*COMMAND, "requests", "tail", "1"], stdout=subprocess.PIPE, text=True, env=environment(admin)
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        ROWS.append({"id": "req_3", "time": 62, "status": 200, "upstream": "openai"})
        lines.append(process.stdout.readline())
        process.terminate()
        process.wait(10)
        process.stdout.close()
        return lines

    try:
        lines = await deferToThread(tail)
    finally:
        del ROWS[2:]
    assert [line.split()[1] for line in lines] == ["ID", "req_2", "req_3"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["upstream drain x"], "upstream drain x"),
        (["r", "30%", "for=5m"], "r 30% for=5m"),
        (["project", "show", "team a"], 'project show "team a"'),
        (["project", "show", 'say "hi"'], "project show 'say \"hi\"'"),
        (["cache", "purge", "--all"], "cache purge --all"),
        (["project", "show", ""], 'project show ""'),
    ],
)
def test_words_of_a_shell_as_a_line(words: list[str], line: str) -> None:
    assert line_of(words) == line
