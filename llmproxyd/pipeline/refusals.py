"""What requests are told that no upstream is asked for, or that take too long."""

from __future__ import annotations

from llmproxyd.errors import Refused, Retryable
from llmproxyd.units import format_duration


def circuit_open(name: str, left: float) -> Refused:
    """The breaker before the upstream *name* is open for *left* seconds more."""
    seconds = _whole(left)
    return Refused(
        503,
        "circuit_open",
        f"The circuit breaker before the upstream {name} is open, as it failed too often; "
        f"it is tried again in {format_duration(seconds)}.",
        ((b"retry-after", b"%d" % seconds),),
    )


def drained(name: str) -> Refused:
    """An operator lets nothing go to the upstream *name*."""
    message = f"The upstream {name} is drained: its operator sends no requests there for now."
    return Refused(503, "upstream_drained", message, ((b"retry-after", b"30"),))


def keys_at_rest(name: str, left: float) -> Refused:
    """None of the stored keys of the upstream *name* may be used for *left* seconds more."""
    seconds = _whole(left)
    return Refused(
        429,
        "credentials_at_rest",
        f"All stored keys of the upstream {name} were refused lately; "
        f"the first is tried again in {format_duration(seconds)}.",
        ((b"retry-after", b"%d" % seconds),),
    )


def first_content_timeout(granted: float) -> Retryable:
    """A stream that began and said nothing for *granted* seconds."""
    return Retryable(
        504,
        "first_content_timeout",
        f"The upstream's stream had no content within {format_duration(granted)} (timeouts.first_content).",
    )


def idle_timeout(granted: float) -> Retryable:
    """An answer that stopped in the middle for *granted* seconds."""
    message = f"The upstream sent nothing for {format_duration(granted)} (timeouts.idle)."
    return Retryable(504, "idle_timeout", message)


def _whole(left: float) -> int:
    """*left* in whole seconds, as ``Retry-After`` wants them: a second at least."""
    return max(-int(-left // 1), 1)
