"""The answer to a request that has to wait for a rehearsed limit, in the words of its provider."""

from __future__ import annotations

import re
from dataclasses import replace

from llmproxyd.faults.limits import Refusal
from llmproxyd.model import Reply
from llmproxyd.providers.base import ErrorContext, ErrorKind, ErrorSpec, Provider

_COUNTS = re.compile(
    r"on (?:requests|tokens) per (min(?:ute)?) \((?:RPM|TPM)\): Limit \d+, Used \d+, Requested \d+"
)
_TYPES = ("requests", "tokens")


def render_limit(provider: Provider, context: ErrorContext, refusal: Refusal) -> Reply:
    """The provider's own 429, with the numbers of *refusal* where it tells any.

    Fields about limits are those of the catalogue; whoever sends it puts the true ones in their place.
    """
    spec = provider.spec(ErrorKind.RATE_LIMIT, context.operation)
    return provider.error(_counted(spec, refusal), context)


def _counted(spec: ErrorSpec, refusal: Refusal) -> ErrorSpec:
    meter = refusal.meter

    def counts(found: re.Match[str]) -> str:
        return (
            f"on {refusal.kind} per {found[1]} ({refusal.kind[0].upper()}PM): Limit {meter.limit}, "
            f"Used {meter.limit - meter.remaining}, Requested {refusal.requested}"
        )

    kind = refusal.kind if spec.type in _TYPES else spec.type
    return replace(spec, message=_COUNTS.sub(counts, spec.message), type=kind)
