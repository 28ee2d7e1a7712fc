"""The answer of a rehearsed failure, in the words of the provider that is asked."""

from __future__ import annotations

from llmproxyd.faults.rules import UNKNOWN, FaultKind
from llmproxyd.model import Reply
from llmproxyd.providers.base import ErrorContext, ErrorKind, Provider, StreamForm


def kind_at(kind: FaultKind, provider: Provider) -> ErrorKind:
    """The catalogue kind that *kind* means at *provider* (``u`` differs from one to the next)."""
    return provider.unknown if kind == UNKNOWN else ErrorKind(kind)


def render(provider: Provider, context: ErrorContext) -> Reply:
    """The whole answer for ``context.kind``.

    :raises ValueError: the context is that of an error of the proxy itself.
    """
    if context.kind is None:
        raise ValueError("a rehearsed failure has a kind")
    return provider.error(provider.spec(context.kind, context.operation), context)


def render_event(provider: Provider, form: StreamForm, context: ErrorContext) -> bytes | None:
    """The event for ``context.kind`` within a stream of *form*; ``None`` where it has none.

    :raises ValueError: the context is that of an error of the proxy itself.
    """
    if context.kind is None:
        raise ValueError("a rehearsed failure has a kind")
    return provider.stream_error(form, provider.spec(context.kind, context.operation), context)
