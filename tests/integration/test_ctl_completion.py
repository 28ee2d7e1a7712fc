"""Shells complete ``llmproxyctl``: its verbs and options, and the names that the daemon knows."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
import pytest_twisted
from adminbench import KEY, AdminBench
from test_ctl_lines import FakeJournal
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread

from llmproxyd.admin.completion import answer
from llmproxyd.admin.parser import parser
from llmproxyd.control.means import Means

BASH = shutil.which("bash")


class Places:
    def list(self) -> list[dict[str, object]]:
        return [{"name": name, "state": "enabled", "active": 0} for name in ("openai", "my-vllm")]

    def drain(self, name: str) -> None: ...

    def enable(self, name: str) -> None: ...


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[AdminBench]:
    made = pytest_twisted.blockon(ensureDeferred(AdminBench(tmp_path).listen()))
    made.control.means = Means(journal=FakeJournal(), projects=made.projects, places=Places())
    pytest_twisted.blockon(ensureDeferred(filled(made)))
    yield made
    pytest_twisted.blockon(ensureDeferred(made.close()))


async def filled(admin: AdminBench) -> None:
    for name in ("team-a", "team b"):
        await admin.ask("POST", "/projects", {"name": name, "credentials": {"openai": KEY}})
    await admin.ask("POST", "/tokens", {"project": "team-a", "name": "ci"})
    await admin.ask("POST", "/faults", {"command": "fault add r 30% name=evening"})


async def completed(admin: AdminBench, *words: str) -> list[str]:
    environ = {"LLMPROXYD_ADMIN_SOCKET": str(admin.socket)}
    return await deferToThread(answer, parser(), words, environ)


@pytest_twisted.ensureDeferred
async def test_names_are_those_that_the_daemon_knows(admin: AdminBench) -> None:
    assert await completed(admin, "test", "") == ["openai", "my-vllm"]
    assert await completed(admin, "test", "my") == ["my-vllm"]
    assert await completed(admin, "upstream", "drain", "o") == ["openai"]
    assert await completed(admin, "breaker", "reset", "") == ["openai"]
    assert await completed(admin, "fault", "rm", "") == ["evening"]
    assert await completed(admin, "project", "show", "") == ["team b", "team-a"]
    assert await completed(admin, "token", "revoke", "") == ["ci"]
    assert await completed(admin, "token", "create", "--project", "team-") == ["team-a"]
    assert await completed(admin, "token", "create", "--project=team-") == ["--project=team-a"]
    assert await completed(admin, "project", "create", "x", "--credential", "o") == ["openai"]
    assert (await completed(admin, "fault", "r", "upstream="))[:2] == ["upstream=openai", "upstream=my-vllm"]


@pytest_twisted.ensureDeferred
async def test_nothing_is_changed_and_no_key_is_told(admin: AdminBench) -> None:
    before = len(admin.audited)
    for words in (
        ("project", ""),
        ("shutdown", ""),
        ("fault", "clear", ""),
        ("project", "show", "team-a", ""),
    ):
        for one in await completed(admin, *words):
            assert KEY not in one
    assert len(admin.audited) == before


def offline(*words: str) -> list[str]:
    return answer(parser(), words, {"LLMPROXYD_ADMIN_SOCKET": "/nowhere", "HOME": "/nowhere"})


def test_without_a_daemon_verbs_and_options_are_completed() -> None:
    assert {"project", "status", "top", "wait-ready"} <= set(offline(""))
    assert offline("to") == ["token", "top"]
    assert offline("project", "rot") == ["rotate"]
    assert offline("token", "create", "--sc") == ["--scope"]
    assert offline("token", "create", "--scope", "") == ["fault", "admin", "none"]
    assert offline("--json", "usage", "--by", "m") == ["model"]
    assert offline("init", "s") == ["sillytavern"]
    assert offline("init", "goose", "") == [":files"]
    assert offline("--token-file", "") == [":files"]
    assert offline("config", "check", "") == [":files"]
    assert offline("diagnose", "-o", "x") == [":files"]
    assert offline("fault", "")[:5] == ["n", "c", "r", "u", "error"]
    assert {"list", "add", "rm", "clear"} <= set(offline("fault", ""))
    assert offline("fault", "error", "over") == ["overloaded"]
    assert offline("run", "upstr") == ["upstream"]
    assert offline("requests", "ta") == ["tail"]
    assert offline("log", "level", "llm") == ["llmproxyd"]
    assert offline("log", "level", "llmproxyd", "d") == ["debug"]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nonsense", ""),
        ("test", ""),
        ("project", "show", ""),
        ("--url", "no url", "test", ""),
        ("--token-file", "/nowhere", "test", ""),
        ("--socket", "", "test", ""),
        ("run", '"', ""),
        ("fault", "'", "x"),
        ("\x00", "\ud800"),
        ("--", "--", ""),
    ],
)
def test_what_cannot_be_completed_is_no_error(words: tuple[str, ...]) -> None:
    assert isinstance(offline(*words), list)


def test_a_daemon_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "deaf.sock"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen(8)
        began = time.monotonic()
        assert answer(parser(), ["test", ""], {"LLMPROXYD_ADMIN_SOCKET": str(path)}) == []
        assert time.monotonic() - began < 5


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmproxyd.admin.ctl", *arguments], capture_output=True, text=True, timeout=60
    )


def test_asked_as_a_command_it_is_quick_and_silent() -> None:
    ends = time.monotonic() + 20
    done = ask("__complete", "--", "--socket", "/nowhere", "test", "")
    assert time.monotonic() < ends
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert ask("__complete", "--", "stat").stdout == "status\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_one_that_the_shell_reads(shell: str, tmp_path: Path) -> None:
    done = ask("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert "__complete --" in done.stdout
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not here")
    script = tmp_path / "script"
    script.write_text(done.stdout)
    read = subprocess.run([program, "-n", str(script)], capture_output=True, text=True, timeout=60)
    assert (read.returncode, read.stderr) == (0, "")


class Bash:
    """An interactive bash that completes ``llmproxyctl``."""

    def __init__(self, folder: Path, admin: AdminBench) -> None:
        assert BASH is not None
        bin_ = folder / "bin"
        bin_.mkdir()
        (bin_ / "llmproxyctl").write_text(f'#!/bin/sh\nexec {sys.executable} -m llmproxyd.admin.ctl "$@"\n')
        (bin_ / "llmproxyctl").chmod(0o755)
        (folder / "settings.yaml").touch()
        env = {
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "PS1": "READY> ",
            "TERM": "dumb",
            "HOME": str(folder),
            "LLMPROXYD_ADMIN_SOCKET": str(admin.socket),
        }
        arguments = ["--norc", "--noprofile", "-i"]
        self.child = pexpect.spawn(BASH, arguments, env=env, timeout=30, encoding="utf-8", cwd=str(folder))
        self.child.setwinsize(30, 200)
        self.child.expect("READY> ")
        self.child.sendline(
            "bind 'set enable-bracketed-paste off'; source <(llmproxyctl completion bash); echo so''urced"
        )
        self.child.expect("sourced\r\n")
        self.child.expect("READY> ")

    def line(self, typed: str) -> str:
        """What *typed* and a Tab make of the line."""
        # The line is run as the arguments of a function that prints them, each between brackets.
        self.child.sendline("show() { shift; printf '<%s>' \"$@\"; echo .; }")
        self.child.expect("READY> ")
        self.child.send(typed + "\t")
        self.child.send("\x01show \x05")
        self.child.expect_exact("show ")
        self.child.sendline("")
        self.child.expect(r"(?m)^(<.*>)?\.\r")
        found = self.child.match.group(1) or ""
        self.child.expect("READY> ")
        return str(found)


@pytest.mark.skipif(BASH is None, reason="bash is not here")
@pytest_twisted.ensureDeferred
async def test_bash_completes_what_is_typed(admin: AdminBench, tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()

    def typed() -> dict[str, str]:
        bash = Bash(folder, admin)
        try:
            return {
                line: bash.line(line)
                for line in (
                    "llmproxyctl wait",
                    "llmproxyctl project rot",
                    "llmproxyctl upstream drain my",
                    "llmproxyctl token create --project team-",
                    "llmproxyctl token create --project=team-",
                    "llmproxyctl fault r 30% upstream=my",
                    "llmproxyctl fault r 30% upst",
                    "llmproxyctl config check sett",
                    "llmproxyctl --token-file=sett",
                    "llmproxyctl --json test   ope",
                )
            }
        finally:
            bash.child.close(force=True)

    found = await deferToThread(typed)
    assert list(found.values()) == [
        "<wait-ready>",
        "<project><rotate>",
        "<upstream><drain><my-vllm>",
        "<token><create><--project><team-a>",
        "<token><create><--project=team-a>",
        "<fault><r><30%><upstream=my-vllm>",
        "<fault><r><30%><upstream=>",
        "<config><check><settings.yaml>",
        "<--token-file=settings.yaml>",
        "<--json><test><openai>",
    ]
