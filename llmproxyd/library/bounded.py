"""A bound in time for work that is somebody else's."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")


def bounded(work: Deferred[T], seconds: float, clock: IReactorTime) -> Deferred[T]:
    """What comes of *work*, or :exc:`TimeoutError` after so many seconds.

    Unlike :meth:`~twisted.internet.defer.Deferred.addTimeout` it does not depend on whether the work
    lets itself be cancelled; it is, and what comes of it later is dropped.
    """
    if work.called and not work.paused:
        return work
    bound: Deferred[T] = Deferred(lambda _: work.cancel())

    def expire() -> None:
        if not bound.called:
            bound.errback(TimeoutError(f"no answer within {seconds:g} s"))
            work.cancel()

    late = clock.callLater(seconds, expire)

    def done(result: T | Failure) -> None:
        if late.active():
            late.cancel()
        if bound.called:
            return
        if isinstance(result, Failure):
            bound.errback(result)
        else:
            bound.callback(result)

    work.addBoth(done)
    return bound
