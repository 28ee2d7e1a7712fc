"""What guards and measures, as configured: access, cache, events, audit, metrics, admin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Literal

from llmproxyd.config.endpoints import private
from llmproxyd.config.kinds import (
    AdminEndpoint,
    CachedMethod,
    EncryptionKey,
    Endpoint,
    FieldName,
    HeaderName,
    KeptFile,
    KeyPrefix,
    Model,
    Positive,
    RawPath,
    RedisURL,
    StoreURL,
    StreamName,
    UpstreamReference,
    WebhookURL,
)
from llmproxyd.config.markers import AtLeast
from llmproxyd.config.urls import POSTGRESQL
from llmproxyd.redaction import Secret, SecretURL
from llmproxyd.units import Size, format_size

DEFAULT_STORE = SecretURL("sqlite:llmproxyd.db")

MAX_CAPTURE = {"request": 64 * 1024, "response": 256 * 1024}
"""Bytes of one body that an event may carry: a thousand events may wait in memory."""


@dataclass(frozen=True, slots=True)
class Access:
    """Project tokens instead of providers' keys.

    Once loaded, the path of the database is absolute, as is that of ``audit.file`` and of events.

    :param enabled: whether clients must present one.
    :param store: ``sqlite:PATH`` or ``postgresql://…``.
    :param secret_key: what upstream credentials are encrypted with at rest; SQLite has a key file
        of its own where there is none.
    :param enforce_active: whether a project that is not active is refused.
    :param limits: where rate limits are counted: on this host, or in Redis for all hosts.
    """

    enabled: bool = False
    store: StoreURL = DEFAULT_STORE
    secret_key: EncryptionKey | None = None
    enforce_active: bool = True
    limits: Literal["memory", "redis"] = "memory"

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        if self.enabled and self.secret_key is None and self.store.reveal().startswith(POSTGRESQL):
            yield (
                "secret_key",
                "missing; credentials in PostgreSQL are encrypted, and all hosts need the same key "
                "(`openssl rand -hex 32` makes one)",
            )


@dataclass(frozen=True, slots=True)
class CacheRule:
    """Requests whose answers are stored although neither side asks for it.

    :param path: glob of the raw path, less what selects the upstream.
    :param upstream: only requests to this one.
    :param methods: upper case; POST is stored by such a rule, or by the client's own ``Cache-Control``.
    :param default_ttl: seconds of freshness where the answer names none.
    :param fields: names of request fields that belong to the key.
    """

    path: RawPath
    upstream: UpstreamReference | None = None
    methods: tuple[CachedMethod, ...] = ("GET", "HEAD", "POST")
    default_ttl: Positive | None = None
    fields: tuple[FieldName, ...] = ()

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        if not self.methods:
            yield "methods", "found an empty list, so that the rule is for nothing; accepted: GET, HEAD, POST"


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The shared HTTP cache.

    :param enabled: whether anything is stored.
    :param backend: where entries are kept.
    :param max_bytes: bytes of the memory backend, all its entries together.
    :param max_object_bytes: bytes of the longest body that is stored.
    :param default_ttl: seconds of freshness where an answer to GET or HEAD names none.
    :param share: who else may be answered from an entry: its project alone, or all that use its upstream.
    :param coalesce: of equal requests one goes upstream, the others wait for its entry.
    :param redis_url: ``redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]``, ``rediss://`` for TLS,
        ``unix:///PATH``; also for limits and events.
    :param key_prefix: what the keys in Redis begin with.
    :param headers: tell in header fields what the cache did.
    """

    enabled: bool = False
    backend: Literal["memory", "redis"] = "memory"
    max_bytes: Annotated[Size, AtLeast(1)] = 256 * 1024**2
    max_object_bytes: Annotated[Size, AtLeast(1)] = 2 * 1024**2
    default_ttl: Positive | None = None
    rules: tuple[CacheRule, ...] = ()
    share: Literal["project", "upstream"] = "project"
    coalesce: bool = True
    redis_url: RedisURL | None = None
    key_prefix: KeyPrefix = "llmproxyd:cache:"
    headers: bool = True

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        if self.enabled and self.backend == "redis" and self.redis_url is None:
            yield "redis_url", 'missing; backend: redis needs one, such as "redis://localhost:6379/0"'


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Where events go.

    :param to: what kind of place it is.
    :param path: the file (``file``).
    :param url: where batches are sent by POST (``webhook``); may hold credentials.
    :param headers: fields of those requests.
    :param stream: name of the Redis stream (``redis``).
    :param max_bytes: bytes of the file before it is rotated; of the stream, entries are 1 KiB each.
    :param keep: rotated files that are kept.
    :param batch: events in one go at most.
    :param every: seconds that an event waits for others at most.
    """

    to: Literal["file", "webhook", "redis"]
    path: KeptFile | None = None
    url: WebhookURL | None = None
    headers: Mapping[HeaderName, Secret] = field(default_factory=lambda: MappingProxyType({}))
    stream: StreamName = "llmproxyd:events"
    max_bytes: Annotated[Size, AtLeast(1024)] = 100 * 1024**2
    keep: Annotated[int, AtLeast(0)] = 5
    batch: Annotated[int, AtLeast(1)] = 100
    every: Positive = 1.0

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        if self.to == "file" and self.path is None:
            yield "path", "missing; events go to a file"
        if self.to == "webhook" and self.url is None:
            yield "url", "missing; events go to a webhook"
        plain = Dispatch(self.to)
        for name, kinds in _KEYS_OF_SOME.items():
            if self.to not in kinds and getattr(self, name) != getattr(plain, name):
                yield name, f"means nothing to: {self.to}; it belongs to {' and '.join(kinds)}"


_KEYS_OF_SOME: Mapping[str, tuple[str, ...]] = {
    "path": ("file",),
    "url": ("webhook",),
    "headers": ("webhook",),
    "stream": ("redis",),
    "max_bytes": ("file", "redis"),
    "keep": ("file",),
}
"""The keys of :class:`Dispatch` that not every kind of place has."""


@dataclass(frozen=True, slots=True)
class Capture:
    """Bytes of bodies that events carry; 0 for none.

    :param request: of the request's body, 64 KiB at most.
    :param response: of the answer's body, 256 KiB at most.
    """

    request: Annotated[Size, AtLeast(0)] = 0
    response: Annotated[Size, AtLeast(0)] = 0

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys."""
        for name, most in MAX_CAPTURE.items():
            if getattr(self, name) > most:
                yield name, f"found {format_size(getattr(self, name))}; accepted: {format_size(most)} at most"


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens cost, in whatever currency you count.

    :param input: all tokens of the request.
    :param output: all tokens of the answer.
    :param cached: input tokens that the provider had cached; by default as ``input``.
    """

    input: Annotated[float, AtLeast(0)] = 0.0
    output: Annotated[float, AtLeast(0)] = 0.0
    cached: Annotated[float, AtLeast(0)] | None = None


@dataclass(frozen=True, slots=True)
class Events:
    """One event for each finished request.

    :param bus: where they wait to be dispatched.
    :param usage: read model and token counts from answers; on by itself where somebody needs them.
    :param prices: what models cost, by their names (globs); the first that matches counts.
    """

    bus: Literal["memory"] = "memory"
    dispatch: tuple[Dispatch, ...] = ()
    capture: Capture = Capture()
    usage: bool = False
    prices: Mapping[Model, Price] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Audit:
    """Who changed what.

    :param file: JSON lines; by default ``audit.jsonl`` where the database would stand if access
        is on, none else.
    """

    file: KeptFile | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """Prometheus metrics.

    :param enabled: whether anything is counted.
    :param listen: a listener of their own, beside ``/metrics`` of the public one.
    :param genai: the OpenTelemetry GenAI metrics too.
    """

    enabled: bool = True
    listen: Endpoint | None = None
    genai: bool = False

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        if self.listen is not None and not self.enabled:
            yield "listen", "there is nothing to show there, as metrics.enabled is false"


@dataclass(frozen=True, slots=True)
class Admin:
    """Who is let in as an administrator.

    :param listen: where the admin API is; once access is on by default a Unix socket for this user alone,
        ``admin.sock`` in the runtime folder or with the state.
    :param token: opens the admin API, and what else only the machine itself may see
        (``/health/detailed``, ``/logs/errors``, ``/metrics``), as a bearer token.
    """

    listen: AdminEndpoint | None = None
    token: Secret | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        if self.listen is not None and self.token is None and not private(self.listen):
            yield (
                "token",
                "missing; whoever reaches admin.listen would be an administrator (a Unix socket that "
                "others cannot write to needs none)",
            )
