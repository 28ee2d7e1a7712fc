"""Who calls a verb, and the one way in which a verb changes anything: on record first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from llmproxyd.errors import Refused
from llmproxyd.model import Change
from llmproxyd.store.interface import Conflict, Outdated, StoreUnavailable

P = ParamSpec("P")
T = TypeVar("T")

RETRY = ((b"Retry-After", b"5"),)
"""Said with every 503: what failed may be back in a few seconds."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, for the audit log.

    :param who: ``stdin``, ``socket uid=1000``, ``admin token``, ``token tok_…``.
    :param address: without its port, ``-`` for this machine.
    """

    who: str
    address: str = "-"


class Auditing(Protocol):
    """Puts a change on record; the Deferred fails where that is impossible."""

    def __call__(self, change: Change) -> Deferred[None]: ...


def auditing(record: Callable[[Change], object]) -> Auditing:
    """*record*, which may take its time, or be done at once."""

    def told(change: Change) -> Deferred[Any]:
        return maybeDeferred(record, change)

    return told


def verb(method: Callable[P, Coroutine[Deferred[Any], Any, T]]) -> Callable[P, Deferred[T]]:
    """*method*, started at once, as a Deferred that fails with :exc:`Refused` where the store does."""

    async def told(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return await method(*arguments, **named)
        except (StoreUnavailable, Conflict) as error:
            raise in_words(error) from error

    @wraps(method)
    def started(*arguments: P.args, **named: P.kwargs) -> Deferred[T]:
        return Deferred.fromCoroutine(told(*arguments, **named))

    return started


class Recorder:
    """Makes changes, each on record before it is made.

    :param audit: takes the records.
    """

    log = Logger()

    def __init__(self, audit: Auditing) -> None:
        self._audit = audit

    async def make(
        self,
        caller: Caller,
        action: str,
        target: str,
        do: Callable[[], Awaitable[T]],
        *,
        before: Mapping[str, object] | None = None,
        after: Mapping[str, object] | None = None,
    ) -> T:
        """Record the change, then *do* it; where that fails, record this too.

        :param before: without any secret, as is *after*.
        :raises Refused: 503 ``audit_unavailable``, and nothing has changed; else what *do* raises.
        """
        change = Change(
            who=caller.who, address=caller.address, action=action, target=target, before=before, after=after
        )
        try:
            await self._audit(change)
        except Exception as error:
            self.log.error(
                "{action} is refused, as it cannot be recorded: {error}", action=action, error=error
            )
            raise Refused(
                503,
                "audit_unavailable",
                "The change cannot be recorded in the audit log, so it was not made; "
                "the daemon's log says why.",
                RETRY,
            ) from None
        try:
            return await do()
        except Exception as error:
            await self._failed(change, error)
            raise

    async def _failed(self, change: Change, error: Exception) -> None:
        # What was refused in words is told; of other errors the kind alone, as they may quote anything.
        told = error.message if isinstance(error, Refused) else type(error).__name__
        outcome = "refused" if isinstance(error, Refused | Conflict) else "failed"
        try:
            await self._audit(replace(change, outcome=outcome, detail=told))
        except Exception:
            self.log.error("that {action} failed cannot be recorded", action=change.action)


def in_words(error: StoreUnavailable | Conflict) -> Refused:
    """*error* as what the caller is told."""
    if isinstance(error, StoreUnavailable):
        return Refused(503, "store_unavailable", "The store of projects and tokens does not answer.", RETRY)
    if isinstance(error, Outdated):
        return Refused(409, "outdated", "Others change it at the same time; look at it, and try again.")
    return Refused(409, "conflict", "There is one of this name or id already.")
