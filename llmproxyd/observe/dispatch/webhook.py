"""Events to an HTTP server: batches by POST, each a JSON array.

2xx takes the batch.  408, 429, 5xx, a connection that fails and ten seconds without an answer are
tried again, not before ``Retry-After``; whatever else is answered is final, redirects included:
who is sent a request there was not chosen by the operator.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast
from urllib.parse import unquote, urlsplit, urlunsplit

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from llmproxyd.model import WallClock
from llmproxyd.observe.dispatch.destination import Undelivered
from llmproxyd.observe.eventjson import EventFormat, Told
from llmproxyd.observe.worker import Work
from llmproxyd.redaction import Secret
from llmproxyd.resilience.hints import wait_asked

TIMEOUT = 10.0
"""Seconds for one attempt, from the connection to the head of the answer."""

READ = 64 * 1024
"""Bytes of an answer's body that are read away, so that its connection can be used again."""

LONGEST_ASKED = 3600.0
"""Seconds of ``Retry-After`` that are obeyed."""

_AGAIN = frozenset({408, 429})


class WebhookDestination:
    """Posts to *url*.

    :param url: may hold a login, which becomes a field; it is shown by its origin alone.
    :param headers: further fields, which replace those of ours.
    :param close: lets go of *agent*'s connections.
    """

    def __init__(
        self,
        url: Secret,
        headers: Mapping[str, Secret],
        form: EventFormat,
        work: Work,
        agent: IAgent,
        clock: Any,
        wall: WallClock,
        close: Callable[[], Deferred[None]],
    ) -> None:
        self._url, login = _without_login(url.reveal())
        split = urlsplit(self._url)
        self.name = f"webhook {split.scheme}://{split.netloc}"
        self._fields = {b"content-type": b"application/json", b"user-agent": b"llmproxyd"}
        if login:
            self._fields[b"authorization"] = b"Basic " + b64encode(login.encode())
        for name, value in headers.items():
            self._fields[name.lower().encode("ascii")] = value.reveal().encode("ascii")
        self._form = form
        self._work = work
        # It takes no cookies: who sets some has no say in what is sent next.
        self._client = HTTPClient(agent, cast(Any, CookieJar(DefaultCookiePolicy(allowed_domains=()))))
        self._unread: set[Discard] = set()
        self._clock = clock
        self._wall = wall
        self._close = close

    def deliver(self, batch: Sequence[Told]) -> Deferred[None]:
        """Post *batch*."""
        rendering = self._work.do(lambda: [self._form.text(told) for told in batch])
        return rendering.addCallback(self._post)

    def close(self) -> Deferred[None]:
        """Close all connections."""
        self._work.close()
        for unread in list(self._unread):
            unread.end()
        return self._close()

    def _post(self, texts: list[str]) -> Deferred[None]:
        body = ("[" + ",\n".join(texts) + "]").encode("utf-8", "backslashreplace")
        headers = Headers({name: [value] for name, value in self._fields.items()})
        sent: Deferred[Any] = self._client.request(
            "POST",
            self._url,
            headers=headers,
            data=Whole(body),
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,
        )
        sent.addTimeout(TIMEOUT, self._clock, _timed_out)
        return sent.addCallbacks(self._judge, _explained)

    def _judge(self, treated: Any) -> None:
        # Its body is read away as it came: inflated, it could be any size.
        while (inner := getattr(treated, "original", None)) is not None:
            treated = inner
        response = cast(IResponse, treated)
        status = response.code
        response.deliverBody(Discard(self._clock, self._unread))
        if 200 <= status < 300:
            return
        again = status in _AGAIN or status >= 500
        raw = [(name, one) for name, values in response.headers.getAllRawHeaders() for one in values]
        after = wait_asked(raw, None, self._wall(), status) if again else None
        why = f"the server answered {status}"
        if 300 <= status < 400:
            why += ", and redirects are not followed"
        after = None if after is None else min(after, LONGEST_ASKED)
        raise Undelivered(why, final=not again, answered=True, after=after)


@implementer(IBodyProducer)
class Whole:
    """A body in one piece."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def stopProducing(self) -> None:
        """Nothing is under way."""

    pauseProducing = resumeProducing = stopProducing


class Discard(Protocol):
    """Reads a body away, for a while and so much of it; else it ends the connection.

    :param unread: holds those that are not through.
    """

    def __init__(self, clock: IReactorTime, unread: set[Discard]) -> None:
        self._left = READ
        self._unread = unread
        self._late = clock.callLater(TIMEOUT, self.end)
        unread.add(self)

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._unread.discard(self)
        if self._late.active():
            self._late.cancel()

    def end(self) -> None:
        """Read no further."""
        self._unread.discard(self)
        if self._late.active():
            self._late.cancel()
        if self.transport is not None:
            self.transport.loseConnection()


def agent_for(reactor: Any) -> tuple[Agent, Callable[[], Deferred[None]]]:
    """An agent for one webhook, and what closes its connections."""
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = 1
    pool.cachedConnectionTimeout = 60
    pool.retryAutomatically = False
    return Agent(reactor, connectTimeout=TIMEOUT, pool=pool), pool.closeCachedConnections


def _without_login(url: str) -> tuple[str, str]:
    """*url* less its login, and that."""
    split = urlsplit(url)
    login, _, host = split.netloc.rpartition("@")
    return urlunsplit(split._replace(netloc=host, fragment="")), unquote(login)


def _timed_out(result: Any, _: float) -> Any:
    if not isinstance(result, Failure):
        return result
    answered = result.check(ConnectingCancelledError) is None
    raise Undelivered(f"no answer within {TIMEOUT:g} s", answered=answered)


def _explained(failure: Failure) -> None:
    """Why there was no answer; an exception's own text may hold the URL."""
    error = failure.value
    if isinstance(error, Undelivered | CancelledError):
        raise error
    if isinstance(error, DNSLookupError):
        raise Undelivered("its name is not known")
    if isinstance(error, ConnectError):
        raise Undelivered(error.__doc__.strip(".") if error.__doc__ else "no connection")
    if isinstance(error, ResponseFailed) and error.reasons:
        raise Undelivered(f"no whole answer: {error.reasons[0].type.__name__}", answered=True)
    raise Undelivered(type(error).__name__, answered=True)
