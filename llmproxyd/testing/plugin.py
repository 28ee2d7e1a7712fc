"""The pytest plugin: fixtures that start the daemon and have clients meet failure.

Nothing happens until one of them is used.  Each worker of pytest-xdist has a daemon of its own, so that
tests that run side by side do not meet::

    def test_waits_and_succeeds(llmproxy):
        llmproxy.fail("rate_limit", times=2, retry_after=0)
        client = openai.OpenAI(base_url=llmproxy.base_url("openai"), api_key="any")
        assert client.chat.completions.create(model="gpt-4o", messages=[...]).choices
        assert [one.attempt for one in llmproxy.requests] == [1, 2, 3]
        assert not llmproxy.verdicts
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llmproxyd.testing.rehearsed import Rehearsed
    from llmproxyd.testing.running import Daemon

FIXTURE = "llmproxy"


@pytest.fixture(scope="session")
def llmproxy_options() -> Sequence[str]:
    """Arguments for the daemon's command line; override it to have others."""
    return ()


@pytest.fixture(scope="session")
def llmproxy_sandbox() -> bool:
    """Whether the built-in stand-in answers for the providers; override it for real ones."""
    return True


@pytest.fixture(scope="session")
def llmproxy_daemon(llmproxy_options: Sequence[str], llmproxy_sandbox: bool) -> Iterator[Daemon]:
    """The daemon of this worker, on a free port, until its last test is over."""
    from llmproxyd.testing.running import Daemon

    with Daemon(*llmproxy_options, sandbox=llmproxy_sandbox) as daemon:
        yield daemon


@pytest.fixture
def llmproxy(llmproxy_daemon: Daemon) -> Iterator[Rehearsed]:
    """The daemon for one test: without faults at its start, and without what others did."""
    from llmproxyd.testing.rehearsed import Rehearsed

    rehearsed = Rehearsed(llmproxy_daemon)
    yield rehearsed
    rehearsed.reset()


@pytest.fixture
def llmproxy_env(llmproxy: Rehearsed, monkeypatch: pytest.MonkeyPatch) -> Rehearsed:
    """The same, with the variables of all SDKs and agents set to it."""
    for name, value in llmproxy.env().items():
        monkeypatch.setenv(name, value)
    return llmproxy


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show the requests of a test that fails."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    used = getattr(item, "funcargs", {}).get(FIXTURE)
    if report.when != "call" or not report.failed or used is None:
        return
    try:
        told = used.journal()
    except Exception as error:
        told = f"the daemon does not tell: {error}\n{used.daemon.log[-4000:]}"
    report.sections.append(("llmproxyd: requests of this test", told))
