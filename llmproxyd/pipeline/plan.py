"""What the head of a request decides: the way it goes, or why it may not.

All of it follows from the head and the policy, so it is worked out once while a client repeats
itself on one connection.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from llmproxyd.access.presented import credential_of, credentials_of
from llmproxyd.access.projects import Grant
from llmproxyd.cache.key import CREDENTIALS, Keys
from llmproxyd.cache.policy import Wants, wants_of
from llmproxyd.errors import Refused
from llmproxyd.http.headers import first
from llmproxyd.limits.interface import Want
from llmproxyd.model import RawHeaders, Request
from llmproxyd.pipeline.guard import check_browser, cross_origin, preflight_of
from llmproxyd.pipeline.policy import CachePolicy, CacheRule, Policy, Upstream
from llmproxyd.pipeline.route import Route
from llmproxyd.pipeline.upstream import Outgoing, outgoing
from llmproxyd.providers.base import EndpointKind, Provider, Streams, Usage

PATIENCE = b"x-stainless-read-timeout"
"""The field in which the official SDKs tell how many seconds they wait for an answer."""

REQUEST_ID = b"x-request-id"
"""The field in which most name a request."""

TEST_FIELD = b"x-llmproxyd-test"
"""The field that says which test a request belongs to."""

FAULT_FIELD = b"x-llmproxyd-fault"
"""The field by which a request asks for a fault of its own."""

LONGEST_TEST = 128
"""Characters of a test's name that are looked at."""

EVENT_STREAM = b"text/event-stream"
"""A client that accepts this alone, or first, asks for a stream."""


Told = tuple[str, str, str, str, str, str, str | None]

UNPLANNED: Told = ("-", "-", "-", "-", "unknown", "metadata", None)
"""What is told of a request that came to no plan."""


class Granted:
    """What follows from one grant for all requests with one head.

    :ivar project: id of its project.
    :ivar token: id of its token.
    :ivar outgoing: what is sent upstream, but for the body, with the project's credential.
    :ivar refusal: why it may not be sent.
    :ivar reads_body: holds the body against the allowlists, where they ask for it.
    :ivar wants: what it asks of the limits.
    :ivar metered: limits of tokens (key, tokens a minute), to which its answers are charged.
    :ivar free: as long as it holds they are let in, and no limit asks for more.
    """

    __slots__ = (
        "free",
        "grant",
        "metered",
        "outgoing",
        "project",
        "reads_body",
        "refusal",
        "token",
        "wants",
    )

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.project, self.token = grant.project.id, grant.token.id
        self.free = False
        self.outgoing: Outgoing | None = None
        self.refusal: Refused | None = None
        self.reads_body: Callable[[bytes], None] | None = None
        self.wants: tuple[Want, ...] = ()
        self.metered: list[tuple[str, int]] = []


class Caching:
    """What the head of a request says of caching.

    :ivar rule: the first of the configured rules that is for it.
    :ivar ttl: seconds of freshness where the answer names none.
    :ivar turn: it has a turn at the cache.  Inference by POST has none unless somebody opts it in: it
        makes nothing that is stored invalid.
    :ivar whole: its body belongs to the key, so that it must be at hand.
    :ivar plain: it says nothing by which a fresh entry would not do, and nothing to be done without one.
    :ivar known: whose requests had this head last, their tenant and the keys of these.
    """

    __slots__ = ("known", "plain", "rule", "ttl", "turn", "wants", "whole")

    def __init__(
        self, wants: Wants, rule: CacheRule | None, ttl: float | None, *, posted: bool, inference: bool
    ) -> None:
        self.wants = wants
        self.rule = rule
        self.ttl = ttl
        opted = wants.lookup or wants.store
        self.turn = opted or not (posted and inference)
        self.whole = opted and posted
        self.plain = wants.lookup and not (wants.limited or wants.conditional or wants.only_if_cached)
        self.known: tuple[Granted | None, str, Keys] | None = None


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
    :ivar usage: where answers tell what they used, if anybody wants to know.
    :ivar expected: what was found out of answers to it, by upstream, media type and coding.
    :ivar patience: seconds that the client's SDK waits for an answer, where it says so.
    :ivar presented: the credential that the client presents, where that matters here.
    :ivar unclear: why it cannot be told which one it presents.
    :ivar straight: it goes the short way, unless a fault is to be injected: nothing is asked for that
        would have to be looked at first.
    :ivar absorbed: the same, but that its upstream's policy absorbs failure.
    :ivar short: beside its token and the cache nothing need be looked at, either.
    :ivar told: what its final event tells: method, path, provider, upstream, operation and kind of the
        endpoint, trace.
    :ivar granted: what followed from the last grant.
    :ivar denied: why it is refused once it is known whose it is: its upstream's allowlist, or no way
        to go.
    :ivar preflight: the answer to a browser that asks what a web page may do.
    :ivar cors: fields that let a web page read the answer.
    :ivar caching: ``None`` where nothing is stored.
    :ivar called: what the client calls its requests (``X-Request-ID``).
    :ivar test: the test that it belongs to, by its path or its field; ``None`` for none.
    """

    __slots__ = (
        "absorbed",
        "caching",
        "called",
        "cors",
        "denied",
        "dialect",
        "expected",
        "granted",
        "method",
        "model",
        "outgoing",
        "path",
        "patience",
        "preflight",
        "presented",
        "refusal",
        "route",
        "short",
        "straight",
        "streaming",
        "test",
        "told",
        "unclear",
        "usage",
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
        self.usage: Usage | None = None
        self.expected: dict[tuple[str, bytes, bytes], object] = {}
        self.presented: str | None = None
        self.unclear: Refused | None = None
        self.granted: Granted | None = None
        self.denied: Refused | None = None
        self.preflight: RawHeaders | None = None
        self.cors: RawHeaders = ()
        self.caching: Caching | None = None
        self.called = first(request.headers, REQUEST_ID)
        self.straight = self.absorbed = self.short = False
        self.test: str | None = None
        self.told: Told = (self.method, self.path, dialect.name, "-", "unknown", "metadata", None)


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
        plan = no_plan(request, policy, refusal.with_traceback(None))
        if policy.access:
            # Told after the door: which upstreams there are is not for everyone to find out.
            plan.denied, plan.refusal = plan.refusal, None
            _present(plan, request)
        return plan
    plan = Plan(request, route.dialect)
    plan.route = route
    named = first(request.headers, TEST_FIELD)
    plan.test = route.test if named is None else named[:LONGEST_TEST].decode("latin-1")
    traced = first(request.headers, b"traceparent")
    trace = None if traced is None else traced[:64].decode("latin-1")
    way = (plan.dialect.name, route.upstream.name, route.operation, str(route.kind), trace)
    plan.told = (plan.method, plan.path, *way)
    try:
        _guard(plan, request, policy)
    except Refused as refusal:
        plan.refusal = refusal.with_traceback(None)
        return plan
    if not policy.access:
        plan.outgoing = outgoing(route.upstream, request, route.target)
    plan.patience = _patience(request)
    endpoint = route.endpoint
    if endpoint is not None:
        match = endpoint.pattern.search(route.target.partition(b"?")[0])
        model = match.groupdict().get("model") if match else None
        plan.model = None if model is None else model.decode("latin-1")
        plan.streaming = {Streams.ALWAYS: True, Streams.NEVER: False}.get(endpoint.streams)
        if plan.streaming is None and (first(request.headers, b"accept") or b"").startswith(EVENT_STREAM):
            plan.streaming = True
        plan.usage = endpoint.usage if policy.read_usage else None
    if policy.cache is not None:
        plan.caching = _caching(plan, request, policy.cache)
    if _plain(plan, request, policy):
        absorbs = route.upstream.absorbs
        plan.short = not absorbs
        if not policy.access and policy.cache is None:
            plan.absorbed, plan.straight = absorbs, not absorbs
    return plan


def _plain(plan: Plan, request: Request, policy: Policy) -> bool:
    """Whether nothing need be looked at, read or waited for but the token and the cache."""
    route = plan.route
    assert route is not None
    upstream = route.upstream
    asks = (
        policy.fault_header
        or (policy.access and first(request.headers, FAULT_FIELD) is not None)
        or policy.record_requests
        or policy.read_models
        or policy.capture[0]
        or plan.denied is not None
        or plan.preflight is not None
        or upstream.allowlist.reads_body
        or upstream.names_models
        or upstream.transforms.concerns(route.operation)
    )
    return not asks


def _guard(plan: Plan, request: Request, policy: Policy) -> None:
    """Who asks, and whether the upstream's allowlist lets them.

    :raises Refused: a web page may not.
    """
    route = plan.route
    assert route is not None
    upstream = route.upstream
    if policy.guard_browsers and not policy.access:
        check_browser(request, upstream)
    plan.preflight = preflight_of(request, upstream, access=policy.access)
    if plan.preflight is not None:
        return
    if policy.access:
        _present(plan, request)
    elif policy.cache is not None:
        plan.presented = _whoever(request)
    plan.cors = cross_origin(request, upstream)
    if not upstream.allowlist.open:
        try:
            upstream.allowlist.check_head(request, route.target)
        except Refused as refusal:
            # Told after the door: what is allowed here is not for everyone to find out.
            plan.denied = refusal.with_traceback(None)


def _whoever(request: Request) -> str | None:
    """All that *request* presents: whatever goes upstream may decide there who asks.

    Each argument that belongs to no key is among it, or those who differ in it alone would share.
    """
    found = list(credentials_of(request))
    for part in request.query.split(b"&") if request.query else ():
        if unquote_to_bytes(part.partition(b"=")[0]) in CREDENTIALS:
            found.append(part.decode("latin-1"))
    return "\n".join(found) or None


def _present(plan: Plan, request: Request) -> None:
    """Find the token that *request* presents."""
    try:
        plan.presented = credential_of(request)
    except Refused as refusal:
        plan.unclear = refusal.with_traceback(None)


def _caching(plan: Plan, request: Request, policy: CachePolicy) -> Caching:
    route = plan.route
    assert route is not None
    path = route.target.partition(b"?")[0].decode("latin-1")
    found = (one for one in policy.rules if one.matches(route.upstream.name, request.method, path))
    rule = next(found, None)
    ttl = None if rule is None else rule.ttl
    safe = request.method in (b"GET", b"HEAD")
    wants = wants_of(request, authorized=plan.presented is not None, ttl=ttl)
    posted, inference = request.method == b"POST", route.kind is EndpointKind.INFERENCE
    ttl = policy.ttl if ttl is None and safe else ttl
    return Caching(wants, rule, ttl, posted=posted, inference=inference)
