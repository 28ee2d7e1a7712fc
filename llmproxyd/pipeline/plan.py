"""What the head of a request decides: the way it goes, or why it may not.

All of it follows from the head and the policy, so it is worked out once while a client repeats
itself on one connection.
"""

from __future__ import annotations

from llmproxyd.errors import Refused
from llmproxyd.http.headers import first
from llmproxyd.model import Request
from llmproxyd.pipeline.guard import check_browser
from llmproxyd.pipeline.policy import Policy, Upstream
from llmproxyd.pipeline.route import Route
from llmproxyd.pipeline.upstream import Outgoing, outgoing
from llmproxyd.providers.base import Provider, Streams

PATIENCE = b"x-stainless-read-timeout"
"""The field in which the official SDKs tell how many seconds they wait for an answer."""


class Plan:
    """The way of all requests with one head.

    :ivar dialect: in whose words errors are told.
    :ivar route: where it goes, ``None`` when it goes nowhere.
    :ivar refusal: why it is refused, whatever its body holds.
    :ivar outgoing: what is sent upstream, but for the body.
    :ivar method: as text.
    :ivar path: as received, without query values; what would steer a terminal is escaped.
    :ivar model: as far as the path tells it.
    :ivar streaming: whether a stream is asked for, as far as the path tells it.
    :ivar expected: what was found out of answers to it, by upstream, media type and coding.
    :ivar patience: seconds that the client's SDK waits for an answer, where it says so.
    """

    __slots__ = (
        "dialect",
        "expected",
        "method",
        "model",
        "outgoing",
        "path",
        "patience",
        "refusal",
        "route",
        "streaming",
    )

    def __init__(self, request: Request, dialect: Provider) -> None:
        path = request.path.decode("latin-1")
        self.dialect = dialect
        self.method = request.method.decode("latin-1")
        self.path = path if path.isprintable() else repr(path)[1:-1]
        self.route: Route[Upstream] | None = None
        self.refusal: Refused | None = None
        self.outgoing: Outgoing | None = None
        self.model: str | None = None
        self.streaming: bool | None = None
        self.patience: float | None = None
        self.expected: dict[tuple[str, bytes, bytes], object] = {}


def plan_of(request: Request, policy: Policy) -> Plan:
    """The plan for *request* under *policy*."""
    memo = request.memo
    if memo.key is policy:
        plan = memo.value
        assert isinstance(plan, Plan)
        return plan
    plan = memo.value = _planned(request, policy)
    memo.key = policy
    return plan


def no_plan(request: Request, policy: Policy, refusal: Refused) -> Plan:
    """The plan for a request that is refused before anything else is looked at."""
    plan = Plan(request, policy.router.dialect_of(request))
    plan.refusal = refusal
    return plan


def _patience(request: Request) -> float | None:
    text = first(request.headers, PATIENCE)
    try:
        seconds = 0.0 if text is None else float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds < 10**6 else None


def _planned(request: Request, policy: Policy) -> Plan:
    try:
        route = policy.router.route(request)
    except Refused as refusal:
        return no_plan(request, policy, refusal.with_traceback(None))
    plan = Plan(request, route.dialect)
    plan.route = route
    if policy.guard_browsers:
        try:
            check_browser(request, route.upstream)
        except Refused as refusal:
            plan.refusal = refusal.with_traceback(None)
            return plan
    plan.outgoing = outgoing(route.upstream, request, route.target)
    plan.patience = _patience(request)
    endpoint = route.endpoint
    if endpoint is not None:
        match = endpoint.pattern.search(route.target.partition(b"?")[0])
        model = match.groupdict().get("model") if match else None
        plan.model = None if model is None else model.decode("latin-1")
        plan.streaming = {Streams.ALWAYS: True, Streams.NEVER: False}.get(endpoint.streams)
    return plan
