"""One request and its answer, from arrival to the one event that says how it ended."""

from __future__ import annotations

from collections.abc import Callable

from llmproxyd.errors import ProxyError
from llmproxyd.faults.choose import Chosen
from llmproxyd.faults.exporting import fault_line
from llmproxyd.http.body import BodySource
from llmproxyd.http.headers import relayed
from llmproxyd.limits.interface import Standing
from llmproxyd.model import End, Finished, RawHeaders, Reading, Request, Response
from llmproxyd.pipeline.plan import UNPLANNED, Granted, Plan
from llmproxyd.pipeline.policy import Policy, Upstream
from llmproxyd.pipeline.roles import NOBODY, Charged, Instead, OnStage, Record, Responder, Tap
from llmproxyd.pipeline.route import Route
from llmproxyd.pipeline.taps import UsageTap, read_whole
from llmproxyd.pipeline.upstream import Outgoing
from llmproxyd.providers.base import ErrorContext, ErrorKind, Provider, Usage

Notes = tuple[bytes, bytes, bytes]
"""What a client is told of the cache: ``Cache-Status`` (RFC 9211), ``X-Cache-Status``, ``X-Cache-Debug``."""

_new = object.__new__


class Exchange:
    """What is known and held of one request.

    :param number: from 1, over all requests of this process.
    :param request_id: unique, of letters, digits and ``-``.
    :param arrived: monotonic seconds.
    :param ended: called once with the final event.
    :ivar plan: what its head decides.
    :ivar work: stops what is done for the client, which has left.
    :ivar give_up: breaks off a body on its way, visibly, for the reason given.
    :ivar upstream: name of the upstream that answered, where it is not the route's own.
    :ivar upstream_id: what that one calls the request.
    :ivar failed: the upstream is to blame for how it ended.
    :ivar closing: called once when it ends, before the final event.
    :ivar said_all: the client was sent the word that closes its stream: what is missing is the
        framing's end, for which many do not wait.
    :ivar record: keeps what passes, where somebody wants a record of it.
    :ivar taps: read the answer along.
    :ivar outgoing: what is sent upstream, but for the body.
    :ivar grant: of the token presented, and what follows from it here; ``None`` where access is off.
    :ivar standings: how the limits of its token and project stand.
    :ivar instead: may answer in the upstream's place.
    :ivar awaited: whether others wait for the answer, so that it is fetched whoever leaves.
    :ivar orphan: its client has left, and it is fetched for those others, or to its very end.
    :ivar attempts: that were made at upstreams.
    :ivar asked: when the last one was, monotonic seconds.
    :ivar began: when the head of the answer went to the client.
    :ivar streamed: the answer is a stream.
    :ivar cache: what the cache did, in a word.
    :ivar cache_notes: the same for the client.
    :ivar usage: reads along what the answer tells of itself.
    :ivar unread: the whole answer, which will be read for that, and where its dialect tells it.
    :ivar cors: fields that let a web page read the answer.
    :ivar watched: the watch on clients was shown it.
    :ivar charge: what rehearsed limits have charged it; ``None`` where there is none for it.
    :ivar stage: breaks the answer on its way to the client, where a fault is to.
    :ivar unreached: the fault that was chosen came to nothing.
    """

    __slots__ = (
        "_ended",
        "arrived",
        "asked",
        "attempts",
        "awaited",
        "began",
        "body",
        "cache",
        "cache_notes",
        "charge",
        "closing",
        "code",
        "committed",
        "cors",
        "detail",
        "failed",
        "fault",
        "give_up",
        "grant",
        "instead",
        "model",
        "number",
        "orphan",
        "outgoing",
        "plan",
        "policy",
        "record",
        "request",
        "request_id",
        "responder",
        "said_all",
        "sent",
        "stage",
        "standings",
        "status",
        "streamed",
        "streaming",
        "taps",
        "unreached",
        "unread",
        "upstream",
        "upstream_id",
        "usage",
        "watched",
        "work",
    )

    def __init__(
        self,
        number: int,
        request_id: str,
        request: Request,
        body: BodySource,
        responder: Responder,
        policy: Policy,
        arrived: float,
        ended: Callable[[Exchange, Finished], None],
    ) -> None:
        self.number = number
        self.request_id = request_id
        self.request = request
        self.body = body
        self.responder: Responder | None = responder
        self.policy = policy
        self.arrived = arrived
        self._ended: Callable[[Exchange, Finished], None] | None = ended
        self.plan: Plan | None = None
        self.model: str | None = None
        self.streaming: bool | None = None
        self.fault: Chosen | None = None
        self.charge: Charged | None = None
        self.stage: OnStage | None = None
        self.work: Callable[[], None] | None = None
        self.give_up: Callable[[ProxyError], None] | None = None
        self.upstream: str | None = None
        self.closing: Callable[[End], None] | None = None
        self.record: Record | None = None
        self.taps: list[Tap] | None = None
        self.outgoing: Outgoing | None = None
        self.grant: Granted | None = None
        self.standings: tuple[Standing, ...] = ()
        self.instead: Instead | None = None
        self.awaited: Callable[[], bool] | None = None
        self.orphan = False
        self.attempts = 0
        self.asked = self.began = 0.0
        self.streamed = self.said_all = self.watched = self.unreached = False
        self.upstream_id: str | None = None
        self.cache: str | None = None
        self.cache_notes: Notes | None = None
        self.usage: UsageTap | None = None
        self.unread: tuple[Usage, bytes] | None = None
        self.cors: RawHeaders = ()
        self.failed = False
        self.committed = False
        self.status = 0
        self.sent = 0
        self.code: str | None = None
        self.detail: str | None = None

    @property
    def done(self) -> bool:
        """Whether the answer is over, in whatever way."""
        return self._ended is None

    @property
    def dialect(self) -> Provider:
        """In whose words errors are told."""
        assert self.plan is not None
        return self.plan.dialect

    @property
    def route(self) -> Route[Upstream] | None:
        """Where it goes, ``None`` when it goes nowhere."""
        return None if self.plan is None else self.plan.route

    def inform(self, response: Response) -> None:
        """Pass an interim answer of the upstream on, as long as the final one has not begun."""
        if self.responder is not None and not self.committed:
            fields = relayed(response.headers)
            self.responder.inform(Response(response.status, response.reason, fields))

    def start(self, response: Response, now: float) -> None:
        """Commit: send the head to the client."""
        assert self.responder is not None
        if self.charge is not None:
            response = self.charge.amended(response)
        self.committed = True
        self.began = now
        if not self.orphan:
            self.status = response.status
        if self.record is not None and self.stage is None:
            self.record.head(response)
        self.responder.start(response)

    def write(self, data: bytes, *, last: bool = False, ours: bool = False) -> None:
        """Send a piece of the body to the client.

        :param ours: it is none of the upstream's.
        """
        assert self.responder is not None
        if self.stage is None:
            if self.responder is not NOBODY:
                self.sent += len(data)
            if self.record is not None:
                self.record.piece(data)
        if self.taps is not None and not ours:
            for tap in self.taps:
                tap.piece(data)
        self.responder.write(data, last=last)

    def finish(self, now: float) -> None:
        """The answer is whole."""
        if self._ended is not None and self.responder is not None:
            if self.stage is not None:
                self.stage.ended()
                return
            self.responder.finish()
            self._close(End.COMPLETE, now)

    def over(self, end: End, now: float, *, whole: bool) -> None:
        """The stage has ended the client's answer.

        :param whole: the upstream's has ended as well, and well.
        """
        work, self.work = self.work, None
        self._close(End.COMPLETE if whole else End.TRUNCATED, now, end)
        if work is not None:
            work()

    def hang_up(self, now: float) -> None:
        """A fault closes the client's connection without any answer."""
        if self._ended is not None and self.responder is not None:
            self.status = 444
            self.responder.hang_up()
            self._close(End.TRUNCATED, now)

    def cut(self, end: End, code: str, detail: str, now: float) -> None:
        """The answer breaks off here, visibly."""
        if self._ended is not None and self.responder is not None:
            self.code, self.detail = code, detail
            self.responder.cut()
            self._close(end, now)

    def client_gone(self, now: float) -> None:
        """The client left: whatever is done for it stops at once (logged as 499)."""
        if self._ended is None or self.orphan:
            return
        if not self.committed:
            self.status = 499
        if not self.said_all:
            self.code = "client_gone"
        if (self.said_all and self.stage is None) or (self.awaited is not None and self.awaited()):
            self.orphan = True
            self.responder = NOBODY
            return
        self.abandon(now)

    def abandon(self, now: float) -> None:
        """Nobody is interested any more: stop what is done."""
        work, self.work = self.work, None
        self._close(End.CLIENT_GONE, now)
        if work is not None:
            work()

    def error_context(
        self, wall: float, kind: ErrorKind | None = None, retry_after: float | None = None
    ) -> ErrorContext:
        """What an error answer to this request may depend on."""
        route, dialect = self.route, self.dialect
        endpoint = None if route is None else route.endpoint
        always = endpoint is not None and endpoint.streams_always
        return ErrorContext(
            kind=kind,
            operation="unknown" if route is None else route.operation,
            model=self.model or dialect.sample_model,
            request_id=self.request_id,
            wall=wall,
            retry_after=retry_after,
            streaming=always or bool(self.streaming),
            array=endpoint is not None and endpoint.answers_array(self.request.query),
        )

    def _close(self, end: End, now: float, told: End | None = None) -> None:
        """It is over.

        :param end: of the upstream's answer.
        :param told: how the client's ended, where that is another matter.
        """
        ended, self._ended = self._ended, None
        if self.stage is not None:
            self.stage.closed()
            self.stage = None
        self.work = self.give_up = self.responder = self.instead = self.awaited = None
        if ended is None:
            return
        closing, self.closing = self.closing, None
        if closing is not None:
            closing(end)
        taps, self.taps = self.taps, None
        if taps is not None:
            for tap in taps:
                tap.ended(end)
        reading = None
        if self.unread is not None:
            reading = read_whole(*self.unread, complete=end is End.COMPLETE)
        elif self.usage is not None:
            reading = self.usage.reading
        end = told or end
        if not self.said_all:
            end = End.CLIENT_GONE if self.orphan else end
        elif end is End.CLIENT_GONE:
            end = End.COMPLETE
        ended(self, self._finished(end, now, reading))

    def _finished(self, end: End, now: float, reading: Reading | None) -> Finished:
        plan, fault, granted, usage = self.plan, self.fault, self.grant, self.usage
        arrived = self.arrived
        # Its __init__ would do no more than this, at several times the cost: it has so many parameters.
        event = _new(Finished)
        event.number = self.number
        event.request_id = self.request_id
        (
            event.method,
            event.path,
            event.provider,
            event.upstream,
            event.operation,
            event.kind,
            event.traceparent,
        ) = UNPLANNED if plan is None else plan.told
        if self.upstream is not None:
            event.upstream = self.upstream
        event.test = None if plan is None else plan.test
        event.status = self.status
        event.duration = now - arrived
        event.sent = self.sent
        event.code = self.code
        event.detail = self.detail
        event.failed = self.failed
        event.model = self.model
        event.attempts = self.attempts
        event.began = self.began - arrived if self.committed else None
        event.received = self.body.length
        event.streamed = self.streamed
        event.cache = self.cache
        event.peer = self.request.peer
        event.upstream_id = self.upstream_id
        event.unreached = self.unreached
        event.wall = 0.0
        if fault is None:
            event.fault = event.injected = None
        else:
            event.fault, event.injected = str(fault.rule.kind), fault_line(fault.rule)
        if granted is None:
            event.project = event.token = None
        else:
            event.project, event.token = granted.project, granted.token
        if usage is None:
            event.first = event.captured = None
        else:
            event.captured = usage.captured
            event.first = None if usage.first is None else usage.first - arrived
        event.reading = reading
        if reading is not None and reading.failed and end is End.COMPLETE:
            end = End.IN_BAND_ERROR
        event.end = end
        return event
