"""The door: whose token is it, may it be used, for this, and so often?"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

from twisted.internet.defer import Deferred

from llmproxyd.access.allowlist import Allow, Allowlist
from llmproxyd.access.presented import CHALLENGE, MISSING
from llmproxyd.access.projects import Grant, Limits, Scope
from llmproxyd.access.tokens import looks_like, shown
from llmproxyd.errors import Refused
from llmproxyd.limits.interface import Limiter, Taken, Want
from llmproxyd.model import Denied, Event, Finished, Reading, WallClock
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.marks import tightest
from llmproxyd.pipeline.plan import Granted, Plan
from llmproxyd.pipeline.record import secrets_of
from llmproxyd.pipeline.upstream import outgoing
from llmproxyd.providers.base import EndpointKind
from llmproxyd.providers.limits import Meter
from llmproxyd.store.interface import Door

TOGETHER = 64
"""Requests of which the door is told at once what they have used, at most."""

ALLOWLISTS = 1000
"""Projects whose allowlists are kept ready."""


class Entrance:
    """What every request passes where access is on.

    :param cost: what a request has cost, by what its answer told.
    :param priced: whether that can be told of an answer that does not tell its cost itself.
    """

    def __init__(
        self,
        door: Door,
        limiter: Limiter,
        emit: Callable[[Event], None],
        wall: WallClock,
        cost: Callable[[Finished], float],
        *,
        priced: bool = True,
    ) -> None:
        self._door = door
        self._limiter = limiter
        self._emit = emit
        self._wall = wall
        self._cost = cost
        self._priced = priced
        self._used: list[tuple[Grant, Reading, Finished]] = []
        self._allowlists: dict[str, tuple[Allow, Allowlist]] = {}

    def enter(self, exchange: Exchange, plan: Plan) -> Deferred[None] | None:
        """Let the request in; at once where nothing need be waited for.

        :raises Refused: it may not; a Deferred fails with the same.
        """
        token = plan.presented
        if token is None:
            unclear = plan.unclear
            error = Refused(401, "token_missing", MISSING, CHALLENGE) if unclear is None else _anew(unclear)
            self._note(exchange, error, None)
            raise error
        granted = plan.granted
        try:
            if (
                granted is not None
                and granted.free
                and exchange.usage is None
                and self._door.again(granted.grant)
            ):
                exchange.grant, exchange.outgoing = granted, granted.outgoing
                return None
            grant = self._door.admit(token)
        except Refused as refusal:
            self._note(exchange, refusal, token)
            raise
        if isinstance(grant, Deferred):
            # A client that leaves meanwhile has not asked anything.
            exchange.work = grant.cancel
            return grant.addCallbacks(
                self._admitted, self._not_admitted, (exchange, plan), {}, (exchange, token), {}
            )
        return self._admitted(grant, exchange, plan)

    def leave(self, granted: Granted, finished: Finished) -> None:
        """Count what a request has used, or that it came to nothing."""
        reading = finished.reading
        if not finished.attempts and _came_to_nothing(finished):
            self._door.returned(granted.grant)
        if reading is None or not reading.tokens:
            return
        self._used.append((granted.grant, reading, finished))
        if len(self._used) >= TOGETHER:
            self.settle()
        if granted.metered:
            tokens = reading.tokens
            spent = tokens.get("total") or tokens.get("input", 0) + tokens.get("output", 0)
            if spent:
                self._limiter.spend([Want(key, limit, spent) for key, limit in granted.metered])

    def settle(self) -> None:
        """Tell the door what requests have used that it was not told of yet."""
        used, self._used = self._used, []
        sums: dict[tuple[int, str], _Sum] = {}
        for grant, reading, finished in used:
            model = reading.model or finished.model or "unknown"
            key = id(grant), model
            sum = sums.get(key)
            if sum is None:
                sum = sums[key] = _Sum(grant, model)
            get = reading.tokens.get
            sum.requests += 1
            sum.input += get("input", 0)
            sum.output += get("output", 0)
            if self._priced or reading.cost is not None:
                cost = self._cost(finished)
                if cost > 0 and isfinite(cost):
                    sum.cost += cost
        for one in sums.values():
            self._door.used(one.grant, one.model, one.input, one.output, one.cost, one.requests)

    def _admitted(self, grant: Grant, exchange: Exchange, plan: Plan) -> Deferred[None] | None:
        granted = plan.granted
        if granted is None or granted.grant is not grant:
            granted = plan.granted = self._granted(grant, exchange, plan)
        exchange.work = None
        exchange.grant = granted
        usage = exchange.usage
        if usage is not None and usage.secrets:
            usage.secrets = secrets_of(exchange)
        if granted.refusal is not None:
            raise _anew(granted.refusal)
        exchange.outgoing = granted.outgoing
        if not granted.wants:
            return None
        taken = self._limiter.take(granted.wants)
        if isinstance(taken, Deferred):
            return taken.addCallback(self._taken, exchange)
        self._taken(taken, exchange)
        return None

    def _taken(self, taken: Taken, exchange: Exchange) -> None:
        exchange.standings = taken.standings
        if taken.admitted:
            return
        wall = self._wall()
        meters = [
            Meter(kind, one.want.per_minute, one.remaining, one.reset)
            for kind, one in tightest(taken.standings).items()
        ]
        after = -int(-taken.wait // 1)
        raise Refused(
            429,
            "rate_limit_exceeded",
            f"The limit of this token or its project is reached; try again in {after} s.",
            ((b"retry-after", b"%d" % after), *exchange.dialect.dialect.limits(meters, wall)),
        )

    def _not_admitted(self, failure: object, exchange: Exchange, token: str) -> None:
        error = getattr(failure, "value", None)
        if isinstance(error, Refused):
            self._note(exchange, error, token)
        assert isinstance(error, BaseException)
        raise error

    def _note(self, exchange: Exchange, error: Refused, token: str | None) -> None:
        """Tell who was turned away."""
        if error.status in (401, 403):
            address = exchange.request.peer.rpartition(":")[0] or "-"
            part = shown(token) if token is not None and looks_like(token) else None
            self._emit(Denied(address=address, code=error.code, shown=part))

    def _granted(self, grant: Grant, exchange: Exchange, plan: Plan) -> Granted:
        """Work out what follows from *grant* for requests with this head."""
        granted = Granted(grant)
        granted.wants = (
            *_wants("token", grant.token.id, grant.token.limits),
            *_wants("project", grant.project.id, grant.project.limits),
        )
        granted.metered = [(one.key, one.per_minute) for one in granted.wants if one.amount == 0]
        granted.free = not granted.wants
        route, request = plan.route, exchange.request
        if route is None:
            granted.refusal, granted.free = plan.denied, False
            return granted
        upstream = route.upstream
        try:
            credential = grant.project.credentials.get(upstream.name)
            if credential is None:
                message = f'This project may not use the upstream "{upstream.name}".'
                raise Refused(403, "upstream_not_allowed", message)
            if plan.denied is not None:
                raise plan.denied
            allowlist = self._allowlist(grant)
            if not allowlist.open:
                allowlist.check_head(request, route.target)
        except Refused as refusal:
            granted.refusal, granted.free = refusal.with_traceback(None), False
            return granted
        granted.reads_body = _reader(exchange, plan, [upstream.allowlist, allowlist])
        key = credential if credential.reveal() else None
        granted.outgoing = outgoing(upstream, request, route.target, key, withheld=True)
        return granted

    def _allowlist(self, grant: Grant) -> Allowlist:
        project = grant.project
        known = self._allowlists.get(project.id)
        if known is None or (known[0] is not project.allow and known[0] != project.allow):
            if len(self._allowlists) >= ALLOWLISTS:
                self._allowlists.clear()
            known = self._allowlists[project.id] = project.allow, Allowlist(project.allow)
        return known[1]


class _Sum:
    """What several requests of one grant have used of one model."""

    __slots__ = ("cost", "grant", "input", "model", "output", "requests")

    def __init__(self, grant: Grant, model: str) -> None:
        self.grant = grant
        self.model = model
        self.requests = self.input = self.output = 0
        self.cost = 0.0


def _came_to_nothing(finished: Finished) -> bool:
    """Whether nothing was sent anywhere and no answer was found here: such a request does not count.

    What is revalidated behind a client's back was never counted.
    """
    return (
        not finished.attempts
        and finished.code is not None
        and finished.fault is None
        and finished.cache in (None, "miss", "bypass")
    )


def _anew(refusal: Refused) -> Refused:
    """*refusal*, to be raised: one that is kept and raised would keep every request that it ended."""
    return Refused(refusal.status, refusal.code, refusal.message, refusal.headers, refusal.detail)


def may_ask_for_faults(exchange: Exchange) -> bool:
    """Whether ``x-llmproxyd-fault`` counts: by configuration, or by the scope of the token."""
    granted = exchange.grant
    if granted is not None:
        return Scope.FAULT in granted.grant.token.scopes
    return exchange.policy.fault_header


def body_check(exchange: Exchange) -> Callable[[bytes], None] | None:
    """What holds a request's body against the allowlists; ``None`` where they do not ask for it."""
    if exchange.grant is not None:
        return exchange.grant.reads_body
    plan, route = exchange.plan, exchange.route
    if plan is None or route is None or not route.upstream.allowlist.reads_body:
        return None
    return _reader(exchange, plan, [route.upstream.allowlist])


def _reader(exchange: Exchange, plan: Plan, lists: list[Allowlist]) -> Callable[[bytes], None] | None:
    checks = [one for one in lists if one.reads_body]
    if not checks:
        return None
    route, request, model = plan.route, exchange.request, plan.model
    inference = route is None or route.endpoint is None or route.kind is EndpointKind.INFERENCE

    def read(body: bytes) -> None:
        for one in checks:
            one.check_body(request, body, model, inference=inference)

    return read


def _wants(what: str, id: str, limits: Limits) -> list[Want]:
    found = []
    if limits.rpm is not None:
        found.append(Want(f"{what}:{id}:requests", limits.rpm))
    if limits.tpm is not None:
        found.append(Want(f"{what}:{id}:tokens", limits.tpm, 0))
    return found
