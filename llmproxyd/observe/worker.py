"""A thread of one's own for what may block: a slow disk holds up its user alone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")

FromThread = Callable[[Callable[[], object]], object]
"""Calls a function in the reactor's thread (``reactor.callFromThread``)."""


class Work(Protocol):
    """Does one job after the other, elsewhere."""

    def do(self, job: Callable[[], T]) -> Deferred[T]:
        """Have *job* done; its result, or what it raised, in the reactor's thread."""
        ...

    def close(self) -> None:
        """End after the jobs that wait."""
        ...


class Worker:
    """One thread, which begins with the first job.

    The process does not wait for it at its end: a disk may never answer.  What waits is bounded
    by its user, who has one job under way at a time.
    """

    def __init__(self, name: str, from_thread: FromThread) -> None:
        self._name = name
        self._from_thread = from_thread
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._closed = False
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[], T]) -> Deferred[T]:
        """Have *job* done.  A :class:`Deferred` that is cancelled does not end its job.

        :raises RuntimeError: after :meth:`close`.
        """
        if self._closed:
            raise RuntimeError("the worker is closed")
        done: Deferred[T] = Deferred()
        with self._changed:
            self._jobs.append(partial(self._one, job, done))
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"llmproxyd-{self._name}", daemon=True)
            self._thread.start()
        return done

    def close(self) -> None:
        """End after the jobs that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    # In the thread.

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                job = self._jobs.popleft()
            job()

    def _one(self, job: Callable[[], T], done: Deferred[T]) -> None:
        tell: Callable[[], None]
        try:
            tell = partial(done.callback, job())
        except Exception:
            tell = partial(done.errback, Failure())
        with suppress(Exception):  # the reactor may be gone
            self._from_thread(tell)
