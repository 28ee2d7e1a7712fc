"""A daemon to test a client with: faults on request, and what the client did.

::

    from llmproxyd.testing.rehearsed import rehearsed

    with rehearsed() as llmproxy:
        llmproxy.fail("rate_limit", times=2, retry_after=0)
        client = openai.OpenAI(base_url=llmproxy.base_url("openai"), api_key="any")
        ...
        assert [one.status for one in llmproxy.requests] == [429, 429, 200]

It needs no pytest; the plugin's fixture ``llmproxy`` is one of these.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from llmproxyd.providers.base import ErrorKind, Provider
from llmproxyd.providers.registry import registry
from llmproxyd.testing.running import Daemon, commanded
from llmproxyd.testing.variables import base_url, variables

PATIENCE = 5.0
"""Seconds for requests that are under way to end, when somebody asks what came."""

MOST = 1000
"""Requests of one test that are told of."""

_LETTERS = {"unknown": "u"}


@dataclass(frozen=True)
class Seen:
    """One request that came to the daemon.

    :param attempt: how often the same request (method, path, body) has come, this one included.
    :param body: what its JSON says, or its bytes; ``None`` where it had none, or one that is too long to
        be kept.
    :param fault: that was meant for it, ``None`` for none.
    :param reached: the answer came to the place where that fault should happen.
    :param end: how the answer ended: ``complete``, ``truncated``…
    :param row: all that is known of it, as the admin API tells it.
    """

    method: str
    path: str
    attempt: int
    status: int
    body: Any = None
    model: str | None = None
    fault: str | None = None
    reached: bool = True
    end: str = "complete"
    id: str = ""
    row: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Rehearsed:
    """What a test has of one daemon, from :meth:`reset` on.

    :param fresh: the daemon has just started, as it was told: nothing is taken away.
    :ivar url: origin of the daemon.
    """

    def __init__(self, daemon: Daemon, *, fresh: bool = False) -> None:
        self.daemon = daemon
        self.url = daemon.url
        self._before = 0
        if not fresh:
            self.reset()

    # Where clients go.

    def base_url(self, provider: str = "openai", *, test: str | None = None) -> str:
        """What the SDK of *provider* (or of the upstream of that name) is given as its base URL.

        :param test: has the requests be those of a test of this name, for scenarios by test.
        """
        return base_url(self.url, provider, provider, test)

    def env(self) -> dict[str, str]:
        """The variables that SDKs and agents read, set to this daemon.

        With the sandbox also those of the keys, to a placeholder.
        """
        return variables(self.url, self._providers, keys=self.daemon.sandbox)

    # Faults.

    def fail(
        self,
        kind: str,
        *,
        times: int | float | None = 1,
        after: int = 0,
        retry_after: float | None = None,
        **options: object,
    ) -> None:
        """Have requests fail.

        :param kind: an error (``rate_limit``, ``overloaded``…), or what breaks (``cut``, ``stall``…).
        :param times: so many requests; a float is a share of them; ``None`` is every one.
        :param after: so many pass first.
        :param retry_after: seconds that the client is told to wait.
        :param options: further ones of the operator's language: ``at="tool"``, ``model="gpt-4*"``,
            ``place="upstream"``, ``per_event="50ms"``; ``for_`` is ``for``.
        :raises llmproxyd.admin.client.Failed: there is no such fault or option; nothing has changed.
        """
        words = [f"fault add {_verb(kind)} {_modifier(times)}"]
        given = {"after": after or None, "retry_after": retry_after, **options}
        words += [
            f"{name.rstrip('_')}={_written(value)}" for name, value in given.items() if value is not None
        ]
        self.command(" ".join(words))

    def scenario(self, text: str, *, scope: str | None = None, seed: int | None = None) -> None:
        """Have requests go through a scenario, ``"r x2, ok, cut at=3, ok *"``.

        :param scope: ``all``, ``model`` or ``test``.
        :raises llmproxyd.admin.client.Failed: it is none; nothing has changed.
        """
        options = "".join(
            f" {name}={value}" for name, value in (("scope", scope), ("seed", seed)) if value is not None
        )
        self.command(f"scenario run {text}{options}")

    def command(self, line: str) -> Mapping[str, Any]:
        """Have any *line* of the operator's language done; what it was answered.

        :raises llmproxyd.admin.client.Failed: it was refused; nothing has changed.
        """
        return commanded(self.daemon.admin, line)

    def reset(self) -> None:
        """Take all faults, limits and the scenario away, and forget what came so far."""
        for line in ("fault clear", "scenario stop", "limit clear", "verdicts clear"):
            self.command(line)
        self._settle()
        self._before = max(map(_number, self._rows()), default=0)

    # What came.

    @property
    def requests(self) -> list[Seen]:
        """The requests since the start of the test, in the order in which they came.

        Those under way are waited for, for some seconds.
        """
        self._settle()
        found: list[Seen] = []
        counts: dict[tuple[str, str, str], int] = {}
        for row in sorted(self._rows(), key=_number):
            if _number(row) > self._before:
                seen = _seen(row)
                same = (seen.method, seen.path, json.dumps(seen.body, sort_keys=True, default=repr))
                counts[same] = counts.get(same, 0) + 1
                found.append(replace(seen, attempt=counts[same]))
        return found

    @property
    def verdicts(self) -> list[Mapping[str, Any]]:
        """What the client did wrong after failures, each with the requests that prove it.

        Asked when the client is through: what it has not done by then, it has not done.
        """
        self._settle()
        answer = self.daemon.admin.call("GET", "verdicts", query={"over": "true"})
        found: list[Mapping[str, Any]] = answer["verdicts"]
        return found

    def journal(self) -> str:
        """The requests since the start of the test, and the verdicts, for people."""
        lines = []
        for one in self.requests:
            told = [f"{one.method} {one.path}", str(one.status), one.end]
            if one.model:
                told.insert(1, one.model)
            if one.fault:
                told.append(f"injected {one.fault}{'' if one.reached else ' (its place was never reached)'}")
            if one.attempt > 1:
                told.append(f"the same for the {_ordinal(one.attempt)} time")
            lines.append(f"{one.id}  {'  '.join(told)}")
        lines += [f"{one['severity']}: {one['name']}: {one['text']}" for one in self.verdicts]
        return "\n".join(lines) or "no request came"

    @cached_property
    def _providers(self) -> Mapping[str, Provider]:
        return registry()

    def _rows(self) -> Sequence[Mapping[str, Any]]:
        rows: Sequence[Mapping[str, Any]] = self.daemon.admin.call("GET", "requests", query={"limit": MOST})[
            "requests"
        ]
        return rows

    def _settle(self) -> None:
        """Wait until no request is under way."""
        _until(lambda: not self.daemon.admin.call("GET", "status")["serving"]["active"])


@contextmanager
def rehearsed(*arguments: str, sandbox: bool = True) -> Iterator[Rehearsed]:
    """A daemon of its own for the block.

    :param arguments: of the daemon's command line, such as ``"--config", "proxy.yaml"``.
    :param sandbox: answer from the built-in stand-in for the providers.
    :raises llmproxyd.testing.running.NotStarted: with what the daemon said.
    """
    with Daemon(*arguments, sandbox=sandbox) as daemon:
        yield Rehearsed(daemon, fresh=True)


def _verb(kind: str) -> str:
    name = kind.replace("-", "_")
    return f"error {name}" if name in set(ErrorKind) else _LETTERS.get(name, name)


def _modifier(times: float | None) -> str:
    if times is None:
        return "*"
    return f"{times:.10f}".rstrip("0") if isinstance(times, float) and times < 1 else str(int(times))


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _number(row: Mapping[str, Any]) -> int:
    """The place of a request among all of its daemon."""
    return int(row["number"])


def _seen(row: Mapping[str, Any]) -> Seen:
    return Seen(
        method=str(row["method"]),
        path=str(row["path"]),
        attempt=1,
        status=int(row["status"]),
        body=_body(row.get("request_body")),
        model=row.get("model"),
        fault=row.get("fault"),
        reached=not row.get("unreached"),
        end=str(row.get("end")),
        id=str(row["id"]),
        row=row,
    )


def _body(told: object) -> Any:
    """What a body says, of which *told* is what the journal keeps."""
    if not isinstance(told, Mapping) or told.get("truncated"):
        return None
    text = told.get("text")
    if not isinstance(text, str) or not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text.encode()


def _ordinal(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)
