"""What holds for a request from its first byte to its last: one frozen value.

A reload makes a new one and swaps a single reference; requests under way keep theirs.
What moves (pools, counters, faults) lives elsewhere, by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from llmproxyd.model import RawHeaders
from llmproxyd.pipeline.route import Router
from llmproxyd.providers.base import Provider
from llmproxyd.redaction import Secret
from llmproxyd.resilience.timeouts import Timeouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A named place to send to.

    :param base_url: origin plus optional path, without a trailing slash.
    :param api_key: replaces the client's credential, in the provider's way.
    :param headers: set on each request, in place of the client's of the same name.
    :param origins: web pages (``Origin`` values) that may use the stored key.
    """

    name: str
    provider: Provider
    base_url: str
    timeouts: Timeouts = Timeouts()
    api_key: Secret | None = None
    headers: RawHeaders = field(default=(), repr=False)
    origins: frozenset[str] = frozenset()
    base: bytes = field(init=False)
    host: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", self.base_url.encode())
        object.__setattr__(self, "host", urlsplit(self.base_url).netloc.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All that the pipeline is told.

    :param max_body: bytes of request body; more is refused with 413.
    :param error_headers: whether answers of ours say so in ``x-llmproxyd-error`` and ``-code``.
    :param fault_header: whether a request may ask for its own fault.
    :param guard_browsers: refuse foreign ``Host`` and unlisted ``Origin`` where a key is stored.
    """

    router: Router[Upstream]
    max_body: int
    error_headers: bool = True
    fault_header: bool = False
    guard_browsers: bool = True
