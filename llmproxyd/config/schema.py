"""Every key that can be set, as frozen dataclasses: attribute names are key names.

A pure module's own policy dataclass is used as it is (:class:`Timeouts`, :class:`Resilience`).
What a type alone cannot say stands in its annotation; keys that depend on each other are checked
by the ``problems`` of their dataclass, names of what is configured elsewhere when all are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from llmproxyd.config import cassettes, texts
from llmproxyd.config.cassettes import Record, Replay
from llmproxyd.config.destinations import TLS as TLS
from llmproxyd.config.destinations import Allow as Allow
from llmproxyd.config.destinations import Fallback as Fallback
from llmproxyd.config.destinations import Pool as Pool
from llmproxyd.config.destinations import Route as Route
from llmproxyd.config.destinations import Upstream as Upstream
from llmproxyd.config.endpoints import place
from llmproxyd.config.faultrules import FaultRule as FaultRule
from llmproxyd.config.faultrules import LimitRule as LimitRule
from llmproxyd.config.gateway import Access, Admin, Audit, CacheSettings, Events, Metrics
from llmproxyd.config.journal import Journal
from llmproxyd.config.kinds import (
    Endpoint,
    FaultMode,
    KeptFile,
    LogFolder,
    PolicyName,
    Positive,
    ScenarioText,
    StrippedPrefix,
    UpstreamName,
    UpstreamReference,
)
from llmproxyd.config.markers import POSITIVE, AtLeast
from llmproxyd.config.operators import Operator as Operator
from llmproxyd.config.reflect import NOT_A_KEY
from llmproxyd.config.verdicts import VerdictSettings
from llmproxyd.resilience.policy import Resilience
from llmproxyd.resilience.timeouts import Timeouts
from llmproxyd.units import Duration, Size

DEFAULT_LISTEN = ("tcp:8888:interface=127.0.0.1", r"tcp6:8888:interface=\:\:1")


@dataclass(frozen=True, slots=True)
class Server:
    """The public listener and what it does to every request.

    :param single_upstream: everything goes there, whatever it looks like.
    :param path_prefix: what the path of a request for a provider starts with; it is taken off.
    :param max_body: bytes of a request's body.
    :param max_headers: bytes of a request's header fields.
    :param header_timeout: seconds for the head of a request, from its first byte.
    :param idle_timeout: seconds in which a client may do nothing: send no further request, no more of
        a body that it has begun, read nothing of its answer.
    :param drain_delay: seconds between saying that it stops (``/health/ready``) and listening no more.
    :param drain_timeout: seconds granted to open requests when stopping.
    :param error_headers: tell in header fields where an error was made.
    :param open: a stored key may be spent by whoever reaches the listener.
    """

    single_upstream: UpstreamReference | None = None
    path_prefix: StrippedPrefix = ""
    max_body: Annotated[Size, AtLeast(1)] = 64 * 1024**2
    max_headers: Annotated[Size, AtLeast(1024)] = 64 * 1024
    header_timeout: Positive = 30.0
    idle_timeout: Positive = 75.0
    drain_delay: Duration = 0.0
    drain_timeout: Duration = 30.0
    error_headers: bool = True
    open: bool = False


@dataclass(frozen=True, slots=True)
class Faults:
    """Rehearsed failure.

    :param mode: the operator's command to start with; ``n`` passes everything through.
    :param seed: makes shares draw the same requests every time.
    :param rules: standing faults, beside the mode; the first that matches fires.
    :param limits: rehearsed rate limits.
    :param forget_after: seconds after which a fault or a limit ends that an operator set without an end;
        null is never.  Those of the file stay.
    :param header: a request may ask for a fault with ``x-llmproxyd-fault``.
    :param scenario: steps that requests take in order, as a line or in a file.
    :param report: a file that tells, once the daemon has stopped, which steps were reached and what
        became of every request; JUnit XML where its name ends in ``.xml``, else JSON.
    """

    mode: FaultMode = "n"
    seed: int | None = None
    rules: tuple[FaultRule, ...] = ()
    limits: tuple[LimitRule, ...] = ()
    forget_after: Positive | None = 8 * 3600.0
    header: bool = False
    scenario: ScenarioText | None = None
    report: KeptFile | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        names = [rule.name for rule in self.rules]
        for name in _doubled(names):
            yield "rules", f'two rules have the name "{name}"'
        for name in _doubled([limit.name for limit in self.limits]):
            yield "limits", f'two limits have the name "{name}"'
        for name in sorted({"mode", "header"}.intersection(names)):
            yield "rules", f'the name "{name}" is taken by the proxy itself; choose another one'


def _doubled(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """The built-in stand-in for the providers.

    :param enabled: whether it answers, in place of all upstreams.
    :param tokens_per_second: pace of its streams, ``None`` for as fast as the client reads.
    :param first_token: seconds before the first token of a stream, and before a whole answer of
        an inference endpoint.
    """

    enabled: bool = False
    tokens_per_second: Annotated[float, POSITIVE] | None = None
    first_token: Duration = 0.0


@dataclass(frozen=True, slots=True)
class Logging:
    """The daemon's own log, and a file for each request.

    Once loaded, ``folder`` is absolute.

    :param level: what is less important than this is left out.
    :param format: ``auto`` is text, with symbols where the output is a terminal.
    :param enabled: whether a file is written for each request; the log itself always is.
    :param folder: where those files are.
    :param include_request_data: the request's body.
    :param include_response_data: the answer's body.
    :param include_headers: the header fields of both, credentials redacted.
    :param include_timing: how long what took.
    :param max_files: so many are kept; the oldest are removed.
    """

    level: Literal["debug", "info", "warn", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"
    enabled: bool = False
    folder: LogFolder = Path("logs")
    include_request_data: bool = True
    include_response_data: bool = True
    include_headers: bool = True
    include_timing: bool = True
    max_files: Annotated[int, AtLeast(1)] = 1000


@dataclass(frozen=True, slots=True)
class ErrorLogging:
    """A file for each failed attempt.

    Once loaded, ``folder`` is absolute.

    :param enabled: whether they are written.
    :param folder: where those files are.
    :param include_stack_traces: where in the program an error came up.
    :param include_request_context: what was asked for, and of whom.
    :param include_timing: how long what took.
    :param max_file_size_mb: megabytes (a million bytes) of one file.
    :param max_files: so many are kept; the oldest are removed.
    """

    enabled: bool = False
    folder: LogFolder = Path("logs/errors")
    include_stack_traces: bool = True
    include_request_context: bool = True
    include_timing: bool = True
    max_file_size_mb: Annotated[int, AtLeast(1)] = 10
    max_files: Annotated[int, AtLeast(1)] = 100


@dataclass(frozen=True, slots=True)
class Config:
    """What is in force.

    :param listen: where clients connect: any Twisted endpoint strings; 1,024 connections may wait at each,
        unless its ``backlog=`` says otherwise.
    :param default_upstream: where a request goes that shows no sign of its provider.
    :param upstreams: the configured ones, and every provider's own of the same name.
    :param source: the file it was read from.
    :param warnings: what the operator should know, one sentence each.
    :param state_folder: where what has no path of its own is kept.
    :param preset: the name of the one in force.
    :param imported: where it listens was said by another program's file, or by a preset; nobody
        wrote it for this one.
    """

    listen: tuple[Endpoint, ...] = DEFAULT_LISTEN
    default_upstream: UpstreamReference = "openai"
    routes: tuple[Route, ...] = ()
    upstreams: Mapping[UpstreamName, Upstream] = field(default_factory=lambda: MappingProxyType({}))
    server: Server = Server()
    timeouts: Timeouts = Timeouts()
    resilience: Mapping[PolicyName, Resilience] = field(default_factory=lambda: MappingProxyType({}))
    faults: Faults = Faults()
    sandbox: SandboxSettings = SandboxSettings()
    logging: Logging = Logging()
    error_logging: ErrorLogging = ErrorLogging()
    access: Access = Access()
    cache: CacheSettings = CacheSettings()
    events: Events = Events()
    audit: Audit = Audit()
    metrics: Metrics = Metrics()
    journal: Journal = Journal()
    record: Record = Record()
    replay: Replay = Replay()
    verdicts: VerdictSettings = VerdictSettings()
    admin: Admin = Admin()
    operator: Operator = Operator()
    source: Path | None = field(default=None, metadata=NOT_A_KEY, compare=False)
    warnings: tuple[str, ...] = field(default=(), metadata=NOT_A_KEY, compare=False)
    state_folder: Path = field(default=Path(), metadata=NOT_A_KEY)
    imported: bool = field(default=False, metadata=NOT_A_KEY, compare=False)
    preset: str | None = field(default=None, metadata=NOT_A_KEY, compare=False)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        if not self.listen:
            yield "listen", f"found an empty list; accepted: at least one of {texts.ENDPOINT}"
        for endpoint in sorted({name for name in self.listen if self.listen.count(name) > 1}):
            yield "listen", f'"{endpoint}" stands there twice'
        yield from self._taken()
        yield from cassettes.conflicts(self.record, self.replay, sandbox=self.sandbox.enabled)

    def _taken(self) -> Iterator[tuple[str, str]]:
        """The listeners of our own that stand where another one does."""
        known = [("listen", place(endpoint)) for endpoint in self.listen]
        others = (
            ("metrics.listen", self.metrics.listen),
            ("admin.listen", self.admin.listen),
            ("operator.telnet.listen", self.operator.telnet.listen),
            ("operator.ssh.listen", self.operator.ssh.listen),
        )
        for key, endpoint in others:
            if endpoint is None:
                continue
            here = place(endpoint)
            for other, there in known:
                if here.meets(there):
                    yield key, f'found "{endpoint}", which {other} has taken; accepted: another place'
                    break
            known.append((key, here))
