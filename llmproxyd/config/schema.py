"""Every key that can be set, as frozen dataclasses: attribute names are key names.

A pure module's own policy dataclass is used as it is (:class:`Timeouts`).  What a type alone
cannot say stands in its annotation; keys that depend on each other are checked by the
``problems`` of their dataclass, names of upstreams when all are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from llmproxyd.config import texts
from llmproxyd.config.markers import POSITIVE, UPSTREAM, AtLeast, check, normal
from llmproxyd.config.reflect import NOT_A_KEY
from llmproxyd.faults import language
from llmproxyd.faults.rules import Match, Rule
from llmproxyd.redaction import Secret
from llmproxyd.resilience.timeouts import Timeouts
from llmproxyd.units import Duration, Size
from llmproxyd.wire.origin import HTTPProxy

Endpoint = Annotated[str, normal(texts.ENDPOINT, texts.endpoint)]
UpstreamName = Annotated[str, check(texts.UPSTREAM_NAME, texts.upstream_name)]
UpstreamReference = Annotated[str, UPSTREAM]
BaseURL = Annotated[str, normal(texts.BASE_URL, texts.base_url)]
Origin = Annotated[str, normal(texts.ORIGIN, texts.origin)]
HeaderName = Annotated[str, check(texts.HEADER_NAME, texts.header_name)]
ReadableFile = Annotated[Path, check(texts.FILE, texts.readable_file)]
FaultMode = Annotated[str, check('a command such as "n", "c 3" or "r 30%"', language.parse_mode)]
FaultKindName = Annotated[str, check(f"one of {', '.join(language.KINDS)}", language.kind_of)]
FaultModifier = Annotated[str, check(language.MODIFIER_HELP, language.parse_when)]

DEFAULT_LISTEN = ("tcp:8888:interface=127.0.0.1", r"tcp6:8888:interface=\:\:1")


@dataclass(frozen=True, slots=True)
class Route:
    """Sends requests that have one sign to one upstream.  The first that matches wins.

    :param header: ``name``, or ``name: value``; the name in lower case.
    :param strip: take ``path_prefix`` off the path before it is sent on.
    """

    upstream: UpstreamReference
    path_prefix: Annotated[str, normal(texts.PATH_PREFIX, texts.path_prefix)] | None = None
    host: Annotated[str, normal(texts.HOST, texts.host)] | None = None
    header: Annotated[str, normal(texts.HEADER, texts.header)] | None = None
    strip: bool = False

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        signs = {"path_prefix": self.path_prefix, "host": self.host, "header": self.header}
        given = [name for name, value in signs.items() if value is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            yield "", f"found {found}; accepted: exactly one of path_prefix, host, header"
        elif self.strip and self.path_prefix is None:
            yield "strip", "found true; only a path_prefix can be stripped"


@dataclass(frozen=True, slots=True)
class TLS:
    """How an https upstream is verified, and how it verifies us.

    :param ca_file: PEM certificates trusted instead of the system's.
    :param client_cert: PEM file with our certificate and its key.
    """

    ca_file: ReadableFile | None = None
    verify: bool = True
    client_cert: ReadableFile | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """Connections to one upstream.

    :param max_connections: all at once; further requests wait, as long as for a connection.
    :param max_idle: kept for the next request.
    :param idle: seconds for which they are kept.
    """

    max_connections: Annotated[int, AtLeast(1)] = 256
    max_idle: Annotated[int, AtLeast(0)] = 64
    idle: Duration = 90.0


@dataclass(frozen=True, slots=True)
class Allow:
    """What may be sent to an upstream.

    :param origins: web pages, by origin, whose scripts may; others are refused where a key
        of ours would be spent.
    """

    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class Upstream:
    """A named place to send to.

    :param provider: name of the API that it speaks; by default the upstream's own name.
    :param base_url: origin and optional path, no slash at the end; by default the provider's.
    :param api_key: sent instead of the client's own credential.
    :param headers: fields set on every request.
    :param proxy: ``http://[user:password@]host[:port]``, an HTTP proxy through which it is reached.
    :param built_in: nobody mentioned it; it stands for the provider of the same name.
    """

    provider: str = ""
    base_url: BaseURL = ""
    api_key: Secret | None = None
    headers: Mapping[HeaderName, Secret] = field(default_factory=lambda: MappingProxyType({}))
    tls: TLS = TLS()
    proxy: Secret | None = None
    pool: Pool = Pool()
    allow: Allow = Allow()
    name: str = field(default="", metadata=NOT_A_KEY)
    built_in: bool = field(default=False, metadata=NOT_A_KEY)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        names = [name.lower() for name in self.headers]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield "headers", f'"{name}" is set twice; the names of header fields have no case'
        if self.proxy is not None:
            try:
                HTTPProxy(self.proxy.reveal().encode())
            except ValueError:
                yield "proxy", "it is none; accepted: http://[user:password@]host[:port]"


@dataclass(frozen=True, slots=True)
class Server:
    """The public listener and what it does to every request.

    :param single_upstream: everything goes there, whatever it looks like.
    :param max_body: bytes of a request's body.
    :param max_headers: bytes of a request's header fields.
    :param header_timeout: seconds for the head of a request, from its first byte.
    :param idle_timeout: seconds in which a client may do nothing: send no further request, no more of
        a body that it has begun, read nothing of its answer.
    :param drain_timeout: seconds granted to open requests when stopping.
    :param error_headers: tell in header fields where an error was made.
    :param open: a stored key may be spent by whoever reaches the listener.
    """

    single_upstream: UpstreamReference | None = None
    max_body: Annotated[Size, AtLeast(1)] = 64 * 1024**2
    max_headers: Annotated[Size, AtLeast(1024)] = 64 * 1024
    header_timeout: Annotated[Duration, POSITIVE] = 30.0
    idle_timeout: Annotated[Duration, POSITIVE] = 75.0
    drain_timeout: Duration = 30.0
    error_headers: bool = True
    open: bool = False


@dataclass(frozen=True, slots=True)
class FaultRule:
    """A standing fault, as written; :meth:`rule` is what it means.

    :param when: ``*`` for every request, a count or a share, as in the operator's language.
    :param retry_after: seconds told to the client.
    :param after: so many eligible requests pass first.
    :param for_: seconds after which it is off.
    :param model: a glob, as is ``path``.
    """

    name: Annotated[str, check(texts.RULE_NAME, texts.rule_name)]
    error: FaultKindName
    when: FaultModifier = "*"
    retry_after: Annotated[float, AtLeast(0)] | None = None
    after: Annotated[int, AtLeast(0)] = 0
    for_: Annotated[Duration, POSITIVE] | None = None
    upstream: UpstreamReference | None = None
    model: str | None = None
    path: str | None = None
    stream: bool | None = None

    def rule(self) -> Rule:
        """The rule for the choice of faults.

        :raises ValueError: it could never fire.
        """
        match = Match(upstream=self.upstream, model=self.model, path=self.path, streaming=self.stream)
        options = language.Options(match, self.after, self.for_, self.retry_after)
        return language.parse_rule(self.name, self.error, self.when, options)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        try:
            self.rule()
        except ValueError as error:
            yield "when", str(error)


@dataclass(frozen=True, slots=True)
class Faults:
    """Rehearsed failure.

    :param mode: the operator's command to start with; ``n`` passes everything through.
    :param seed: makes shares draw the same requests every time.
    :param header: a request may ask for a fault with ``x-llmproxyd-fault``.
    """

    mode: FaultMode = "n"
    seed: int | None = None
    rules: tuple[FaultRule, ...] = ()
    header: bool = False

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        names = [rule.name for rule in self.rules]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield "rules", f'two rules have the name "{name}"'
        for name in sorted({"mode", "header"}.intersection(names)):
            yield "rules", f'the name "{name}" is taken by the proxy itself; choose another one'


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """The built-in stand-in for the providers.

    :param tokens_per_second: pace of its streams, ``None`` for as fast as the client reads.
    :param first_token: seconds before the first token of a stream, and before a whole answer of
        an inference endpoint.
    """

    enabled: bool = False
    tokens_per_second: Annotated[float, POSITIVE] | None = None
    first_token: Duration = 0.0


@dataclass(frozen=True, slots=True)
class Logging:
    """The daemon's own log; ``auto`` is text, with symbols where the output is a terminal."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


@dataclass(frozen=True, slots=True)
class Operator:
    """Where commands come from.

    :param stdin: ``auto`` reads a terminal whose foreground we have, and a pipe.
    :param faults: whether faults can be commanded.
    """

    stdin: Literal["auto"] | bool = "auto"
    faults: bool = True


@dataclass(frozen=True, slots=True)
class Config:
    """What is in force.

    :param upstreams: the configured ones, and every provider's own of the same name.
    :param source: the file it was read from.
    :param warnings: what the operator should know, one sentence each.
    :param state_folder: where what has no path of its own is kept.
    """

    listen: tuple[Endpoint, ...] = DEFAULT_LISTEN
    default_upstream: UpstreamReference = "openai"
    routes: tuple[Route, ...] = ()
    upstreams: Mapping[UpstreamName, Upstream] = field(default_factory=lambda: MappingProxyType({}))
    server: Server = Server()
    timeouts: Timeouts = Timeouts()
    faults: Faults = Faults()
    sandbox: SandboxSettings = SandboxSettings()
    logging: Logging = Logging()
    operator: Operator = Operator()
    source: Path | None = field(default=None, metadata=NOT_A_KEY, compare=False)
    warnings: tuple[str, ...] = field(default=(), metadata=NOT_A_KEY, compare=False)
    state_folder: Path = field(default=Path(), metadata=NOT_A_KEY)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        if not self.listen:
            yield "listen", f"found an empty list; accepted: at least one of {texts.ENDPOINT}"
        for endpoint in sorted({name for name in self.listen if self.listen.count(name) > 1}):
            yield "listen", f'"{endpoint}" stands there twice'
        for name in ("connect", "headers", "idle"):
            if getattr(self.timeouts, name) <= 0:
                yield (
                    f"timeouts.{name}",
                    "found 0, which would end every request; accepted: a longer duration",
                )
