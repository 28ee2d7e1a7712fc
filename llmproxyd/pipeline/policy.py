"""What holds for a request from its first byte to its last: one frozen value.

A reload makes a new one and swaps a single reference; requests under way keep theirs.
What moves (pools, counters, faults) lives elsewhere, by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlsplit

from llmproxyd.access.allowlist import Allow, Allowlist
from llmproxyd.model import RawHeaders
from llmproxyd.pipeline.route import Router
from llmproxyd.providers.base import Provider
from llmproxyd.redaction import Secret
from llmproxyd.resilience.policy import Resilience
from llmproxyd.resilience.timeouts import Timeouts
from llmproxyd.resilience.verdict import Verdicts
from llmproxyd.transform.body import Transforms
from llmproxyd.transform.rules import PathRewrite

CREDENTIAL_FIELDS = frozenset({b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"})
"""Where clients put a provider's key, or a token of ours; all are replaced by a stored one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """Where a request goes when its own upstream cannot serve it.

    :param upstream: its name.
    :param models: names of models there, by their names here; ``*`` stands for any other.
    """

    upstream: str
    models: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def model(self, asked: str | None) -> str | None:
        """What *asked* is called there; ``None`` where its name stays."""
        return None if asked is None else self.models.get(asked, self.models.get("*"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A named place to send to.

    :param base_url: origin plus optional path, without a trailing slash.
    :param keys: replace the client's credential, in the provider's way; the next is taken when
        one is refused.
    :param headers: set on each request, in place of the client's of the same name.
    :param allow: what may be asked of it.
    :param flush_interval: seconds for which pieces of an answer are gathered.
    :param paths: rewrites of paths; the first that matches holds.
    :param models_fallback: models that are listed where the upstream has no list.
    :ivar keyed: a credential is stored.
    :ivar absorbs: failure is absorbed here: its requests go the longer way.
    :ivar names_models: it matters which model a request asks for.
    :ivar holds: answers are looked at before they are committed to.
    :ivar origins: web pages (``Origin`` values) that may use it.
    :ivar allowlist: *allow*, ready to be held against requests.
    """

    name: str
    provider: Provider
    base_url: str
    timeouts: Timeouts = Timeouts()
    resilience: Resilience = Resilience()
    keys: tuple[Secret, ...] = ()
    headers: RawHeaders = field(default=(), repr=False)
    allow: Allow = Allow()
    flush_interval: float = 0.0
    fallbacks: tuple[Fallback, ...] = ()
    transforms: Transforms = field(default_factory=lambda: Transforms(()))
    paths: tuple[PathRewrite, ...] = ()
    models_fallback: tuple[str, ...] = ()
    base: bytes = field(init=False)
    origin: bytes = field(init=False)
    host: bytes = field(init=False)
    keyed: bool = field(init=False)
    absorbs: bool = field(init=False)
    names_models: bool = field(init=False)
    holds: bool = field(init=False)
    origins: frozenset[str] = field(init=False)
    allowlist: Allowlist = field(init=False)
    verdicts: Verdicts = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        allowlist = Allowlist(self.allow)
        known = self.resilience
        timeouts = self.timeouts
        holds = known.holds or bool(self.fallbacks or len(self.keys) > 1 or self.models_fallback)
        timed = timeouts.total is not None or timeouts.first_content is not None
        credentials = any(name.lower() in CREDENTIAL_FIELDS for name, _ in self.headers)
        for name, value in {
            "base": self.base_url.encode(),
            "origin": f"{parts.scheme}://{parts.netloc}".encode(),
            "host": parts.netloc.encode(),
            "keyed": bool(self.keys) or credentials,
            "holds": holds,
            "absorbs": holds or timed or known.breaker.enabled or known.stream_keepalive is not None,
            "names_models": bool(self.fallbacks) or "model" in known.breaker.key,
            "allowlist": allowlist,
            "origins": allowlist.origins,
            "verdicts": Verdicts(known.recategorize, known.hard_stop),
        }.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRule:
    """Requests whose answers are stored although neither side asks for it.

    :param path: glob of the raw path, less what selects the upstream.
    :param ttl: seconds of freshness where the answer names none.
    :param fields: names (lower case) of request fields that belong to the key.
    """

    path: re.Pattern[str]
    upstream: str | None
    methods: frozenset[bytes]
    ttl: float | None
    fields: tuple[bytes, ...]

    def matches(self, upstream: str, method: bytes, path: str) -> bool:
        """Whether it is for such a request."""
        return (
            method in self.methods
            and self.upstream in (None, upstream)
            and self.path.fullmatch(path) is not None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """How answers are reused.

    :param max_object_bytes: of a body that is stored.
    :param ttl: seconds of freshness where an answer to GET or HEAD names none.
    :param shared: entries are for all who use an upstream, whoever they are.
    :param coalesce: of equal requests one goes upstream.
    :param secret: makes of a credential the name of its tenant.
    """

    max_object_bytes: int
    ttl: float | None
    rules: tuple[CacheRule, ...]
    shared: bool
    coalesce: bool
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All that the pipeline is told.

    :param max_body: bytes of request body; more is refused with 413.
    :param error_headers: whether answers of ours say so in ``x-llmproxyd-error`` and ``-code``.
    :param fault_header: whether a request may ask for its own fault.
    :param guard_browsers: refuse foreign ``Host`` and unlisted ``Origin`` where a key is stored.
    :param record_requests: every request goes on record whole.
    :param record_errors: every failure goes on record.
    :param access: clients present tokens of ours.
    :param cache: ``None`` where nothing is stored.
    :param marks: answers that are passed through get fields of ours.
    :param read_usage: what answers tell of their model and usage is read.
    :param read_models: what requests ask for is looked up in their bodies.
    :param capture: bytes of the bodies of request and answer that are kept for events and the journal.
    """

    router: Router[Upstream]
    max_body: int
    error_headers: bool = True
    fault_header: bool = False
    guard_browsers: bool = True
    record_requests: bool = False
    record_errors: bool = False
    access: bool = False
    cache: CachePolicy | None = None
    marks: bool = False
    read_usage: bool = False
    read_models: bool = False
    capture: tuple[int, int] = (0, 0)
