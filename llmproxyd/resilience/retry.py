"""Whether an attempt that failed is made again, and when.

What decides, in this order: whether it could succeed at all, what the upstream says
(``x-should-retry``), what the file lists, what is native; then whether an attempt is left;
then how long to wait, and whether there is time for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from llmproxyd.model import RawHeaders
from llmproxyd.resilience.budget import BudgetPolicy
from llmproxyd.resilience.hints import should_retry, wait_asked
from llmproxyd.resilience.verdict import denied, hopeless, in_flight, too_long
from llmproxyd.units import Duration

Jitter = Literal["full", "equal", "quarter", "none"]

NATIVE = frozenset({408, 409, 429, 500, 502, 503, 504, 529, *range(520, 525)})
"""Statuses that are tried again where a policy says nothing of them: those that the providers' SDKs
try again, and those by which an edge tells that it did not reach the provider."""

BROKEN = frozenset(
    {
        "connect_timeout",
        "pool_timeout",
        "upstream_unreachable",
        "upstream_protocol_error",
        "first_content_timeout",
        "idle_timeout",
    }
)
"""Codes of ours for an attempt that brought no content."""

_LISTS = ("retry_codes", "fail_codes", "conditional_retry_codes")
_SPREAD = 0.1
"""Share by which a wait that others were told as well is drawn out, never shortened: those who
were sent away together shall not come back together."""


@dataclass(frozen=True, slots=True)
class Retry:
    """When to try again.  Without ``max_retries`` nothing is.

    A status follows the list that it is on, else the native one; on several, ``retry_codes`` goes
    before ``conditional_retry_codes``, and that before ``fail_codes``.

    :param max_retries: further attempts after the first.
    :param base_delay: seconds before the first of them; doubled for each further one.
    :param max_delay: seconds that a wait of ours has at most.
    :param jitter: what chance does to a wait of ours.
    :param respect_retry_after: wait as long as the upstream asks for.
    :param max_wait: seconds that the upstream may ask for; if it wants more the client is told at once.
    :param rate_limit_wait: seconds to wait after a 429 that names no time.
    :param retry_codes: statuses to try again after, beside the native ones.
    :param fail_codes: statuses to hand on at once.
    :param conditional_retry_codes: statuses that depend on the kind of endpoint.
    :param conditional_retry_enabled: whether these are tried again.
    :param conditional_retry_max_attempts: retries after these at most.
    :param conditional_retry_delay_multiplier: factor of a wait of ours before them.
    :param retry_timeouts: try again when no head came in time, although the request may have
        been worked on (and billed).
    :param retry_empty: try again after a stream that ended without any content.
    :param tell_sdk_not_to_retry: say ``x-should-retry: false`` once our attempts are spent.
    """

    max_retries: int = 0
    base_delay: Duration = 1.0
    max_delay: Duration = 60.0
    jitter: Jitter = "full"
    respect_retry_after: bool = True
    max_wait: Duration = 60.0
    rate_limit_wait: Duration | None = None
    retry_codes: tuple[int, ...] | None = None
    fail_codes: tuple[int, ...] | None = None
    conditional_retry_codes: tuple[int, ...] | None = None
    conditional_retry_enabled: bool = True
    conditional_retry_max_attempts: int = 2
    conditional_retry_delay_multiplier: float = 0.5
    retry_timeouts: bool = False
    retry_empty: bool = False
    budget: BudgetPolicy = BudgetPolicy()
    tell_sdk_not_to_retry: bool = True

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys."""
        for name in (
            "max_retries",
            "base_delay",
            "max_delay",
            "max_wait",
            "rate_limit_wait",
            "conditional_retry_max_attempts",
            "conditional_retry_delay_multiplier",
        ):
            value = getattr(self, name)
            if value is not None and value < 0:
                yield name, f"found {value:g}; accepted: 0 or more"
        if self.base_delay > self.max_delay >= 0:
            found = f"{self.base_delay:g}s, which is more than max_delay ({self.max_delay:g}s)"
            yield "base_delay", f"found {found}; accepted: max_delay at most"
        for name in _LISTS:
            wrong = [code for code in getattr(self, name) or () if not 100 <= code <= 599]
            if wrong:
                yield name, f"found {', '.join(map(str, wrong))}; accepted: statuses, 100 to 599"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An attempt that failed before anything of it was sent to the client.

    :param status: of the answer, as it is taken for (that of an error within a stream, too);
        ``None`` when there was none.
    :param code: ours where there was no answer or its stream failed; else the provider's.
    :param permanent: every other attempt would fail in the same way (a certificate, a bad URL).
    :param sent: some of the request went out.
    :param headers: of the answer.
    :param body: its JSON value, where it has one.
    :param metadata: the endpoint is a model list or something else that is no inference.
    """

    status: int | None
    code: str | None
    permanent: bool = False
    sent: bool = True
    headers: RawHeaders = field(default=(), repr=False)
    body: object | None = field(default=None, repr=False)
    metadata: bool = False


@dataclass(slots=True)
class Tries:
    """What one request has used up.

    :param retries: attempts after the first, all of them.
    :param conditional: those for a status that depends on the endpoint.
    """

    retries: int = 0
    conditional: int = 0


class Decision(NamedTuple):
    """What follows from a failed attempt.

    :param delay: seconds until the next one, ``None`` if none follows.
    :param reason: a few words for the log.  They hold nothing that the upstream has written.
    :param spent: there would be another one, but they are used up: the client should not begin
        anew.  Where only time is short it may come back, when the upstream has told it to.
    :param hopeless: every other attempt would fail in the same way, at other upstreams too.
    """

    delay: float | None
    reason: str
    spent: bool = False
    hopeless: bool = False


class _Worth(NamedTuple):
    """Whether another attempt could help.

    :param limit: of conditional retries, ``None`` where it is not conditional.
    :param elsewhere: at another upstream it could.
    """

    again: bool
    reason: str
    limit: int | None = None
    elsewhere: bool = False


def decide(
    policy: Retry,
    failed: Failed,
    tries: Tries,
    *,
    left: float | None,
    wall: float,
    draw: Callable[[], float],
) -> Decision:
    """Whether *failed* is followed by another attempt.  If so that one is counted in *tries*.

    :param left: seconds to the deadline of the request, ``None`` without one.
    :param wall: seconds since the epoch.
    :param draw: a random number, 0 ≤ x < 1.
    """
    worth = _worth(policy, failed)
    if not worth.again:
        return Decision(None, worth.reason, hopeless=not worth.elsewhere)
    if not policy.max_retries:
        return Decision(None, "retries are off")
    if tries.retries >= policy.max_retries:
        return Decision(None, _all_spent(policy.max_retries, "retry", "retries"), spent=True)
    if worth.limit is not None and tries.conditional >= worth.limit:
        words = _all_spent(worth.limit, "conditional retry", "conditional retries")
        return Decision(None, words, spent=True)
    decision = _timed(policy, failed, worth, tries.retries, left=left, wall=wall, draw=draw)
    if decision.delay is not None:
        tries.retries += 1
        tries.conditional += worth.limit is not None
    return decision


def _worth(policy: Retry, failed: Failed) -> _Worth:
    """Whether another attempt could help, by what went wrong."""
    status = failed.status
    if failed.permanent:
        return _Worth(False, "it would fail in the same way again", elsewhere=True)
    # An upstream may be a proxy like us: beside an error's status our codes are its own.
    if status is None or status < 300:
        return _broken(policy, failed)
    if status == 402 and in_flight(failed.body) and 402 not in (policy.fail_codes or ()):
        return _Worth(True, "status 402 (other requests are under way)")
    if (cause := hopeless(failed.code, failed.body)) is not None:
        paid = too_long(failed.code, failed.body) is not None
        return _Worth(False, f"{cause} is never retried", elsewhere=not paid)
    said = should_retry(failed.headers) if policy.respect_retry_after else None
    if said is False:
        return _Worth(False, "the upstream asks for no retry (x-should-retry)")
    return _listed(policy, failed, status) or _native(failed, status, said)


def _broken(policy: Retry, failed: Failed) -> _Worth:
    """No answer, or one whose stream failed before it had any content."""
    code = failed.code
    if code == "headers_timeout" and failed.sent and not policy.retry_timeouts:
        return _Worth(False, "it may be billed twice (retry_timeouts)")
    if code == "empty_stream" and not policy.retry_empty:
        return _Worth(False, "an empty stream is not retried (retry_empty)")
    if code is not None and (code in BROKEN or code in ("headers_timeout", "empty_stream")):
        return _Worth(True, code)
    return _Worth(False, "it is no failure that is retried")


def _listed(policy: Retry, failed: Failed, status: int) -> _Worth | None:
    """What the file's lists say of *status*."""
    if status in (policy.retry_codes or ()):
        return _Worth(True, f"status {status}")
    if status in (policy.conditional_retry_codes or ()):
        limit = _conditional(status, failed.metadata, policy.conditional_retry_max_attempts)
        if policy.conditional_retry_enabled and limit > 0:
            return _Worth(True, f"status {status}", limit)
        return _Worth(False, f"status {status} is not retried (conditional retries are off)")
    if status in (policy.fail_codes or ()):
        return _Worth(False, f"status {status} is not retried (fail_codes)")
    return None


def _native(failed: Failed, status: int, said: bool | None) -> _Worth:
    """What holds for a *status* that no list names."""
    no = denied(status, failed.code, failed.body)
    if (said or status in NATIVE) and not no:
        return _Worth(True, f"status {status}")
    return _Worth(False, f"status {status} is not retried", elsewhere=no)


def _conditional(status: int, metadata: bool, most: int) -> int:
    """How many retries a conditional *status* is worth, *most* at most.

    A model list that is missing may be one that is being set up, which is asked for again;
    elsewhere 404 is mostly a wrong name.  411 to 421 find fault with the request, and only a
    confused gateway changes its mind; 423 to 451 speak of states that pass.
    """
    if status == 404:
        return min(most, 2 if metadata else 1)
    if 411 <= status <= 421:
        return min(most, 1)
    if 423 <= status <= 451:
        return min(most, 2)
    return most


def _timed(
    policy: Retry,
    failed: Failed,
    worth: _Worth,
    made: int,
    *,
    left: float | None,
    wall: float,
    draw: Callable[[], float],
) -> Decision:
    """When to try again after *made* retries, if there is time for it."""
    asked = None
    reason = worth.reason
    if policy.respect_retry_after:
        asked = wait_asked(failed.headers, failed.body, wall, failed.status or 0)
    # Asked for no time at all, ours is waited: that is no invitation to hammer.
    if asked:
        if asked > policy.max_wait:
            over = f"max_wait ({_seconds(policy.max_wait)})"
            return Decision(None, f"the wait of {_seconds(asked)} that it asks for is over {over}")
        delay = _drawn_out(asked, policy.jitter, draw)
        reason = f"{reason}; it asks for {_seconds(asked)}"
    elif asked is None and failed.status == 429 and policy.rate_limit_wait is not None:
        delay = _drawn_out(policy.rate_limit_wait, policy.jitter, draw)
    else:
        delay = backoff(policy, made, draw)
        if worth.limit is not None:
            delay *= policy.conditional_retry_delay_multiplier
    if left is not None and delay >= left:
        return Decision(None, "the deadline comes first")
    return Decision(delay, reason)


def backoff(policy: Retry, made: int, draw: Callable[[], float]) -> float:
    """Seconds that we wait of our own accord after *made* retries.

    ``full`` jitter draws from 0 to the delay, ``equal`` from its half, ``quarter`` from a quarter
    less to a quarter more.
    """
    # Beyond 2**64 any delay that is not 0 is over its bound.
    delay = min(policy.max_delay, policy.base_delay * 2.0 ** min(made, 64))
    if policy.jitter == "full":
        return delay * draw()
    if policy.jitter == "equal":
        return delay * (0.5 + draw() / 2)
    if policy.jitter == "quarter":
        return delay * (0.75 + draw() / 2)
    return delay


def _drawn_out(seconds: float, jitter: Jitter, draw: Callable[[], float]) -> float:
    return seconds if jitter == "none" else seconds * (1 + _SPREAD * draw())


def _all_spent(count: int, one: str, many: str) -> str:
    return f"the only {one} is spent" if count == 1 else f"all {count} {many} are spent"


def _seconds(value: float) -> str:
    return f"{round(value, 3):.12g} s"
