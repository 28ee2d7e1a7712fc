"""The pytest plugin as users have it: their test files, in a pytest of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CLIENT = """
import openai, pytest, time

def client(llmproxy, **more):
    return openai.OpenAI(base_url=llmproxy.base_url("openai"), api_key="any", **more)

def ask(it, text="tell me a joke"):
    return it.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": text}])
"""


def run(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Pytest on a file with *text*."""
    (folder / "client.py").write_text(CLIENT)
    (folder / "test_users.py").write_text("from client import *\n" + text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_users.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def passed(done: subprocess.CompletedProcess[str], count: int) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} passed" in done.stdout


def test_a_client_that_retries_gets_through_and_the_test_sees_each_attempt(tmp_path: Path) -> None:
    passed(
        run(
            tmp_path,
            """
def test_retries(llmproxy):
    llmproxy.fail("rate_limit", times=2, retry_after=0)
    assert ask(client(llmproxy)).choices
    seen = llmproxy.requests
    assert [(one.method, one.path, one.status, one.attempt) for one in seen] == [
        ("POST", "/to/openai/v1/chat/completions", 429, 1),
        ("POST", "/to/openai/v1/chat/completions", 429, 2),
        ("POST", "/to/openai/v1/chat/completions", 200, 3),
    ]
    assert [one.fault for one in seen] == ["rate_limit", "rate_limit", None]
    assert seen[0].body == seen[2].body == {
        "model": "gpt-4o", "messages": [{"role": "user", "content": "tell me a joke"}]
    }
""",
        ),
        1,
    )


def test_each_test_begins_without_faults_and_without_requests_of_others(tmp_path: Path) -> None:
    passed(
        run(
            tmp_path,
            """
def test_one(llmproxy):
    llmproxy.fail("overloaded", times=None)
    llmproxy.scenario("r, ok *")
    with pytest.raises(openai.InternalServerError):
        ask(client(llmproxy, max_retries=0))
    assert len(llmproxy.requests) == 1

def test_two(llmproxy):
    assert llmproxy.requests == []
    assert ask(client(llmproxy)).choices
    assert [one.status for one in llmproxy.requests] == [200]
    llmproxy.reset()
    assert llmproxy.requests == []
""",
        ),
        2,
    )


def test_faults_come_one_after_the_other_with_what_passes_before_them(tmp_path: Path) -> None:
    passed(
        run(
            tmp_path,
            """
def test_order(llmproxy):
    llmproxy.fail("context_length", after=1)
    it = client(llmproxy, max_retries=0)
    assert ask(it).choices
    with pytest.raises(openai.BadRequestError) as raised:
        ask(it)
    assert raised.value.code == "context_length_exceeded"
    assert ask(it).choices

def test_stream_that_dies(llmproxy):
    llmproxy.fail("cut", at=2)
    it = client(llmproxy, max_retries=0)
    with pytest.raises(Exception) as raised:
        for chunk in it.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "tell me a joke"}], stream=True
        ):
            pass
    assert "RemoteProtocolError" in type(raised.value).__name__ + repr(raised.value.__cause__)
    [seen] = llmproxy.requests
    assert (seen.fault, seen.end) == ("cut", "truncated")

def test_scenario(llmproxy):
    llmproxy.scenario("r, ok, u, ok *")
    it = client(llmproxy, max_retries=0)
    seen = []
    for _ in range(4):
        try:
            ask(it)
            seen.append(200)
        except openai.APIStatusError as error:
            seen.append(error.status_code)
    assert seen == [429, 200, 500, 200]
""",
        ),
        3,
    )


def test_a_mistake_in_a_fault_is_told_and_changes_nothing(tmp_path: Path) -> None:
    passed(
        run(
            tmp_path,
            """
from llmproxyd.admin.client import Failed

def test_mistakes(llmproxy):
    with pytest.raises(Failed, match="rate_limit"):
        llmproxy.fail("rate_limits")
    with pytest.raises(Failed):
        llmproxy.fail("cut", at="nowhere")
    with pytest.raises(Failed):
        llmproxy.scenario("r x2, nonsense")
    assert ask(client(llmproxy)).choices
""",
        ),
        1,
    )


def test_variables_point_sdks_at_the_daemon_and_give_them_a_key(tmp_path: Path) -> None:
    passed(
        run(
            tmp_path,
            """
import anthropic
from google import genai

def test_env(llmproxy_env):
    assert ask(openai.OpenAI()).choices
    assert anthropic.Anthropic().messages.create(
        model="claude-sonnet-4-5", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
    ).content
    assert genai.Client().models.generate_content(model="gemini-2.5-flash", contents="hi").text
    assert {one.path.split("/")[2] for one in llmproxy_env.requests} == {"openai", "anthropic", "google"}
""",
        ),
        1,
    )


def test_a_failing_test_shows_its_requests(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
def test_fails(llmproxy):
    llmproxy.fail("rate_limit", times=1, retry_after=0)
    ask(client(llmproxy))
    assert False

def test_passes(llmproxy):
    ask(client(llmproxy), "something that nobody asks")
""",
    )
    assert done.returncode == 1
    assert "llmproxyd: requests of this test" in done.stdout
    lines = [line for line in done.stdout.splitlines() if "/v1/chat/completions" in line]
    assert len(lines) == 2, done.stdout
    assert "429" in lines[0]
    assert "injected rate_limit" in lines[0]
    assert "200" in lines[1]
    assert "2nd time" in lines[1]


def test_a_failing_test_without_the_fixture_shows_nothing_of_it(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_fails():\n    assert False\n")
    assert done.returncode == 1
    assert "llmproxyd" not in done.stdout


def test_workers_have_daemons_of_their_own(tmp_path: Path) -> None:
    passed(
        run(
            tmp_path,
            """
@pytest.mark.parametrize("number", range(12))
def test_many(llmproxy, number):
    # What one worker is told must not reach the others.
    if number % 2:
        llmproxy.fail("rate_limit", times=None)
        for _ in range(5):
            with pytest.raises(openai.RateLimitError):
                ask(client(llmproxy, max_retries=0))
    else:
        for _ in range(5):
            assert ask(client(llmproxy, max_retries=0)).choices
    assert len(llmproxy.requests) == 5
""",
            "-n",
            "3",
        ),
        12,
    )


def test_options_reach_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "proxy.yaml").write_text(
        "resilience: {default: {retry: {max_retries: 3, base_delay: 10ms}}}\n"
    )
    (tmp_path / "conftest.py").write_text(
        'import pytest\n\n@pytest.fixture(scope="session")\ndef llmproxy_options():\n'
        '    return ["--config", "proxy.yaml"]\n'
    )
    passed(
        run(
            tmp_path,
            """
def test_own_resilience(llmproxy):
    llmproxy.fail("overloaded", times=2, place="upstream")
    assert ask(client(llmproxy, max_retries=0)).choices
    [seen] = llmproxy.requests
    assert (seen.status, seen.row["attempts"]) == (200, 3)
""",
        ),
        1,
    )


def test_a_daemon_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "proxy.yaml").write_text("lisden: 3\n")
    (tmp_path / "conftest.py").write_text(
        'import pytest\n\n@pytest.fixture(scope="session")\ndef llmproxy_options():\n'
        '    return ["--config", "proxy.yaml"]\n'
    )
    done = run(tmp_path, "def test_never(llmproxy):\n    pass\n")
    assert done.returncode == 1
    assert "proxy.yaml:1" in done.stdout
    assert "listen" in done.stdout


def test_nothing_is_imported_before_a_fixture_is_used(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
import sys

def test_modules():
    assert not [name for name in sys.modules if name.startswith(("twisted", "treq", "llmproxyd.providers"))]
""",
        "-p",
        "no:twisted",
    )
    passed(done, 1)


def test_it_serves_unittest_too(tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(CLIENT)
    (tmp_path / "test_plain.py").write_text(
        """
import unittest
from client import *
from llmproxyd.testing.rehearsed import rehearsed

class Retries(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.llmproxy = cls.enterClassContext(rehearsed())

    def setUp(self):
        self.llmproxy.reset()

    def test_rate_limit(self):
        self.llmproxy.fail("rate_limit", retry_after=0)
        self.assertTrue(ask(client(self.llmproxy)).choices)
        self.assertEqual([one.status for one in self.llmproxy.requests], [429, 200])

    def test_nothing_is_left(self):
        self.assertEqual(self.llmproxy.requests, [])
"""
    )
    command = [sys.executable, "-m", "unittest", "-q", "test_plain"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Ran 2 tests" in done.stderr


def test_no_daemon_is_left_when_the_tests_are_killed(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal\n"
        "from llmproxyd.testing.running import Daemon\n"
        "with Daemon() as daemon:\n"
        "    print(daemon._process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        subprocess.run(["sleep", "0.02"], check=True)
    pytest.fail("the daemon is still there")
