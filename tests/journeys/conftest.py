"""One daemon a module, and clients that know of nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from daemon import Daemon

_FOREIGN = re.compile(
    r"(?i)(.*_proxy|LLMPROXYD_.*|(OPENAI|ANTHROPIC|GOOGLE|GEMINI|OPENROUTER|TETRATE|DATABRICKS)_.*)$"
)


@pytest.fixture(autouse=True, scope="session")
def _clean_clients() -> Iterator[None]:
    """No proxy, key or address of the caller's reaches the clients in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if _FOREIGN.fullmatch(name)]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Daemon]:
    """A daemon that answers from within, shared by a module."""
    with Daemon("--sandbox") as daemon:
        yield daemon


@pytest.fixture
def proxy(sandbox: Daemon) -> Daemon:
    """The module's daemon, letting everything pass at first."""
    assert "No error" in sandbox.command("n")
    return sandbox
