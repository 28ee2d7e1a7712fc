"""Where requests go, as configured: upstreams, and the routes to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated

from llmproxyd.access import allowlist
from llmproxyd.config.kinds import (
    BaseURL,
    EndpointPath,
    Header,
    HeaderName,
    Host,
    Method,
    Model,
    Origin,
    Parameter,
    PathPrefix,
    Pattern,
    PolicyReference,
    ReadableFile,
    UpstreamReference,
)
from llmproxyd.config.markers import AtLeast
from llmproxyd.config.reflect import NOT_A_KEY
from llmproxyd.redaction import Secret
from llmproxyd.transform.rules import Transform
from llmproxyd.units import Duration
from llmproxyd.wire.origin import HTTPProxy

DEFAULT_POLICY = "default"
"""The policy of upstreams that name none; where nobody wrote it, nothing is absorbed."""


@dataclass(frozen=True, slots=True)
class Route:
    """Sends requests that have one sign to one upstream.  The first that matches wins.

    :param upstream: where they go.
    :param path_prefix: by the start of the path.
    :param host: by the ``Host`` field.
    :param header: by any field, ``name`` or ``name: value``; the name in lower case.
    :param strip: take ``path_prefix`` off the path before it is sent on.
    """

    upstream: UpstreamReference
    path_prefix: PathPrefix | None = None
    host: Host | None = None
    header: Header | None = None
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
    :param verify: whether its certificate is verified.
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
class Allow(allowlist.Allow):
    """What may be asked of an upstream.  An empty list or mapping allows everything.

    Here its keys have the kinds by which they are read.
    """

    endpoints: tuple[EndpointPath, ...] = ()
    methods: tuple[Method, ...] = ()
    params: Mapping[Parameter, tuple[Pattern, ...]] = field(default_factory=lambda: MappingProxyType({}))
    origins: tuple[Origin, ...] = ()
    required_headers: tuple[Header, ...] = ()


@dataclass(frozen=True, slots=True)
class Fallback:
    """Another upstream of the same provider, for requests that one could not serve.

    :param upstream: its name.
    :param models: its name for a model, by ours; ``*`` stands for any other.  A model without
        one keeps its name.
    """

    upstream: UpstreamReference
    models: Mapping[Model, Model] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Upstream:
    """A named place to send to.

    :param provider: name of the API that it speaks; by default the upstream's own name.
    :param base_url: origin and optional path, no slash at the end; by default the provider's.
    :param api_key: sent instead of the client's own credential.
    :param api_keys: several of them; one that is refused or used up gives way to the next.
    :param headers: fields set on every request.
    :param resilience: name of the policy that absorbs its failures.
    :param proxy: ``http://[user:password@]host[:port]``, an HTTP proxy through which it is reached.
    :param transform: rules; each that applies changes the request further.
    :param models_fallback: model names that answer a list of models which the upstream cannot give.
    :param fallbacks: where to turn to, in order, when it fails.
    :param flush_interval: seconds for which pieces of an answer are gathered before they go to the client.
    :param built_in: nobody mentioned it; it stands for the provider of the same name.
    """

    provider: str = ""
    base_url: BaseURL = ""
    api_key: Secret | None = None
    api_keys: tuple[Secret, ...] = ()
    headers: Mapping[HeaderName, Secret] = field(default_factory=lambda: MappingProxyType({}))
    resilience: PolicyReference = DEFAULT_POLICY
    tls: TLS = TLS()
    proxy: Secret | None = None
    pool: Pool = Pool()
    allow: Allow = Allow()
    transform: tuple[Transform, ...] = ()
    models_fallback: tuple[Model, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    flush_interval: Duration = 0.0
    name: str = field(default="", metadata=NOT_A_KEY)
    built_in: bool = field(default=False, metadata=NOT_A_KEY)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys taken together."""
        if self.api_key is not None and self.api_keys:
            yield "api_keys", "stands beside api_key; accepted: one of the two"
        names = [name.lower() for name in self.headers]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield "headers", f'"{name}" is set twice; the names of header fields have no case'
        if self.proxy is not None:
            try:
                HTTPProxy(self.proxy.reveal().encode())
            except ValueError:
                yield "proxy", "it is none; accepted: http://[user:password@]host[:port]"
        others = [one.upstream for one in self.fallbacks]
        for name in sorted({name for name in others if others.count(name) > 1}):
            yield "fallbacks", f'"{name}" stands there twice'
