"""Which upstream, which dialect, which target: from the head of a request.

The configured prefix of all paths comes off first.  Then, in order: ``/to/NAME/…``, the
configured routes, the single upstream, detection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from llmproxyd.errors import Refused
from llmproxyd.http.headers import first
from llmproxyd.model import Request
from llmproxyd.providers.base import Endpoint, EndpointKind, Facts, Provider
from llmproxyd.providers.detect import Detector, facts_of

TO = b"/to/"

TEST = b"@"
"""What follows an upstream's name in the path of a client that cannot send ``x-llmproxyd-test``."""


class Destination(Protocol):
    """What routing needs to know of an upstream."""

    @property
    def name(self) -> str: ...

    @property
    def provider(self) -> Provider: ...


D = TypeVar("D", bound=Destination)


@dataclass(frozen=True, slots=True)
class Route(Generic[D]):
    """Where a request goes and whose words it is answered in.

    :param dialect: the provider whose error catalogue and stream forms apply: mostly the
        upstream's own, another one where the endpoint speaks another API.
    :param endpoint: ``None`` for a path that is in nobody's list.
    :param target: raw path and query to append to the upstream's base.
    :param test: the test that the path names (``/to/NAME/@TEST/…``), ``None`` for none.
    """

    upstream: D
    dialect: Provider
    endpoint: Endpoint | None
    target: bytes
    test: str | None = None

    @property
    def kind(self) -> EndpointKind:
        """What the endpoint is for; one that is not listed is metadata."""
        return EndpointKind.METADATA if self.endpoint is None else self.endpoint.kind

    @property
    def operation(self) -> str:
        """The endpoint's word for what it does."""
        return "unknown" if self.endpoint is None else self.endpoint.operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One of ``routes:``, exactly one of the three conditions is set.

    :param header: name (lower case) and value, or ``None`` for any value.
    :param strip: whether *path_prefix* is taken off the target.
    """

    upstream: str
    path_prefix: bytes | None = None
    host: bytes | None = None
    header: tuple[bytes, bytes | None] | None = None
    strip: bool = False

    def matches(self, request: Request, target: bytes) -> bool:
        """Whether *request*, of which *target* is left, goes this way."""
        if self.path_prefix is not None:
            return _under(target.partition(b"?")[0], self.path_prefix)
        if self.host is not None:
            return host_name(request) == self.host.lower()
        assert self.header is not None
        name, wanted = self.header
        value = first(request.headers, name)
        return value is not None and (wanted is None or value == wanted)


class Router(Generic[D]):
    """The table of all ways.

    :param upstreams: by name.
    :param providers: all known providers by name.
    :param single: name of the upstream that takes everything, if any.
    :param prefix: begins every path that is served, and goes no further.
    """

    def __init__(
        self,
        upstreams: Mapping[str, D],
        providers: Mapping[str, Provider],
        *,
        default: str,
        routes: Sequence[Rule] = (),
        single: str | None = None,
        prefix: bytes = b"",
        by_key: bool = True,
    ) -> None:
        self._prefix = prefix.rstrip(b"/")
        self.upstreams = upstreams
        self._providers = providers
        self._default = upstreams[default]
        self._routes = routes
        self._single = None if single is None else upstreams[single]
        self._detector = Detector(providers.values(), by_key=by_key)

    def route(self, request: Request) -> Route[D]:
        """The way of *request*.

        :raises Refused: 404, when the path is none that is served, a name is unknown or nothing
            serves what was recognised.
        """
        facts = facts_of(request)
        chosen, target, test = self._selected(request)
        if target is not request.target:
            facts = replace(facts, path=target.partition(b"?")[0])
        detected = self._detector.detect(facts)
        upstream = chosen if chosen is not None else self._serving(detected)
        dialect, endpoint = self._dialect(upstream.provider, detected, facts)
        return Route(upstream, dialect, endpoint, target, test)

    def dialect_of(self, request: Request) -> Provider:
        """Whose words to refuse *request* in when it has no way."""
        facts = facts_of(request)
        if facts.path.startswith(TO):
            _, _, rest = facts.path[len(TO) :].partition(b"/")
            facts = replace(facts, path=b"/" + rest)
        detected = self._detector.detect(facts) or self._default.provider
        return self._dialect(detected, None, facts)[0]

    def _selected(self, request: Request) -> tuple[D | None, bytes, str | None]:
        """The upstream that the request or the configuration names, the target left, the test."""
        target = request.target
        prefix = self._prefix
        if prefix:
            if not _under(request.path, prefix):
                shown = prefix.decode("latin-1")
                raise Refused(
                    404, "path_unknown", f"All paths here begin with {shown}/ (server.path_prefix)."
                )
            target = target[len(prefix) :]
            target = target if target.startswith(b"/") else b"/" + target
        if target.startswith(TO):
            path, mark, query = target[len(TO) :].partition(b"?")
            name, _, rest = path.partition(b"/")
            upstream = self.upstreams.get(name.decode("latin-1"))
            if upstream is None:
                known = ", ".join(sorted(self.upstreams))
                raise Refused(404, "upstream_unknown", f"There is no such upstream. Known: {known}.")
            test = None
            if rest.startswith(TEST):
                first_part, _, rest = rest[len(TEST) :].partition(b"/")
                test = first_part[:128].decode("latin-1")
            return upstream, b"/" + rest + mark + query, test
        for rule in self._routes:
            if rule.matches(request, target):
                if rule.strip and rule.path_prefix is not None:
                    target = target[len(rule.path_prefix.rstrip(b"/")) :]
                    target = target if target.startswith(b"/") else b"/" + target
                return self.upstreams[rule.upstream], target, None
        return self._single, target, None

    def _serving(self, detected: Provider | None) -> D:
        """The upstream for what was recognised."""
        if detected is None:
            return self._default
        named = self.upstreams.get(detected.name)
        if named is not None:
            return named
        if self._default.provider.name == detected.name:
            return self._default
        speaking = [one for one in self.upstreams.values() if one.provider.name == detected.name]
        if len(speaking) == 1:
            return speaking[0]
        variable = detected.base_url_variable
        how = f"set upstreams.{detected.name}.base_url" + (f" or {variable}" if variable else "")
        if speaking:
            how = "choose one with /to/NAME/: " + ", ".join(one.name for one in speaking)
        raise Refused(
            404,
            "upstream_not_configured",
            f"This request speaks the API of {detected.title}, for which no upstream is configured; {how}.",
        )

    def _dialect(
        self, provider: Provider, detected: Provider | None, facts: Facts
    ) -> tuple[Provider, Endpoint | None]:
        endpoint = provider.endpoint(facts.method, facts.path)
        if endpoint is None and detected is not None and detected is not provider:
            endpoint = detected.endpoint(facts.method, facts.path)
            if endpoint is not None:
                provider = detected
        if endpoint is not None and endpoint.speaks is not None:
            provider = self._providers.get(endpoint.speaks, provider)
        return provider, endpoint


def host_name(request: Request) -> bytes:
    """The host that the client named, lower case, without port; empty without the field."""
    value = (first(request.headers, b"host") or b"").strip().lower()
    if value.startswith(b"["):
        return value.partition(b"]")[0] + b"]"
    return value.partition(b":")[0]


def _under(path: bytes, prefix: bytes) -> bool:
    bare = prefix.rstrip(b"/")
    return path == bare or path.startswith(bare + b"/")
