"""A few threads with a connection each, whose calls are bounded in time.

:mod:`twisted.enterprise.adbapi` has the threads and the connections.  What it lacks is here: a
call that fails when its time is up although its thread hangs, threads that hang are replaced,
lost connections too, and nobody waits for either when the daemon stops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from llmproxyd.store.interface import Conflict, StoreUnavailable
from llmproxyd.store.session import Dialect, Session

T = TypeVar("T")

DEADLINE = 5.0
"""Seconds that a call may take."""

MAX_WAITING = 500
"""Calls that may wait for a thread."""

MAX_LOST = 4
"""Sets of threads that may hang; no more are made until one comes back."""

STOP = 3.0
"""Seconds that calls have to end when the store is closed."""


class _Connection(adbapi.Connection):
    """A thread's connection, made when it is first needed: within the time of a call."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._connection: Any = None

    def opened(self) -> Any:
        if self._connection is None:
            self._connection = self._pool.connect()
        return self._connection

    def commit(self) -> None:
        if self._connection is not None:
            self._connection.commit()

    def rollback(self) -> None:
        """Roll back; a connection that cannot is dropped, and the next call makes another one."""
        if self._connection is None:
            return
        try:
            self._connection.rollback()
            lost = self._pool.dialect.lost(self._connection)
        except Exception:
            lost = True
        if lost:
            connection, self._connection = self._connection, None
            self._pool.disconnect(connection)


class _Pool(adbapi.ConnectionPool):
    """Threads that nobody waits for."""

    connectionFactory = _Connection

    def __init__(self, dialect: Dialect, reactor: Any, size: int, writes: bool) -> None:
        self.dialect = dialect
        self._writes = writes
        self.whenEnded: list[Callable[[], object]] = []
        super().__init__(
            dialect.dbapi,
            cp_reactor=reactor,
            cp_min=1,
            cp_max=size,
            cp_name=f"llmproxyd-store-{'write' if writes else 'read'}",
            **dialect.arguments(writes),
        )
        # Not waited for at the end of the process: a database may never answer.
        self.threadpool.threadFactory = partial(threading.Thread, daemon=True)  # type: ignore[assignment]

    def connect(self) -> Any:
        """The connection of this thread; one that could not be made ready is not kept open."""
        known = self.connections.get(self.threadID())
        if known is not None:
            return known
        self.dialect.prepare(self._writes)
        connection = self.dbapi.connect(**self.connkw)
        try:
            self.dialect.opened(connection, self._writes)
        except BaseException:
            connection.close()
            raise
        self.connections[self.threadID()] = connection
        return connection

    def _close(self, conn: Any) -> None:
        try:
            conn.close()
        except Exception:
            return  # it was lost, which is why it is closed

    def finalClose(self) -> None:
        self.shutdownID = None
        self.running = False
        threading.Thread(target=self._end, name="llmproxyd-store-end", daemon=True).start()

    def _end(self) -> None:
        self.threadpool.stop()
        for connection in list(self.connections.values()):
            self._close(connection)
        self.connections.clear()
        for call in self.whenEnded:
            call()


class _Call(Generic[T]):
    """One call: what is to be done, and how far it has come."""

    def __init__(
        self, work: Callable[[Session], T], conflict: str, schema: bool, result: Deferred[T]
    ) -> None:
        self.work = work
        self.conflict = conflict
        self.schema = schema
        self.result = result
        self.late: IDelayedCall | None = None
        # Below is shared by threads, under the lane's lock.
        self.pool: _Pool | None = None
        """Where it is to be done."""
        self.began = False
        self.abandoned = False
        self.connection: Any = None


class Lane:
    """Transactions of one kind, in a few threads.

    Use it from the reactor's thread.

    :param size: threads.
    :param writes: whether its transactions change anything.
    """

    def __init__(self, dialect: Dialect, reactor: Any, size: int, *, writes: bool) -> None:
        self._dialect = dialect
        self._reactor = reactor
        self._size = size
        self._writes = writes
        self._lock = threading.Lock()
        self._pool: _Pool | None = None
        self._calls: dict[_Call[Any], None] = {}
        self._lost = 0
        self._closed = False

    def run(
        self,
        work: Callable[[Session], T],
        *,
        conflict: str = "",
        deadline: float = DEADLINE,
        schema: bool = False,
    ) -> Deferred[T]:
        """Do *work* in a transaction, which is rolled back if it raises.

        A transaction that was broken off by the database before its end is begun once more.

        :param conflict: what the :exc:`Conflict` says with which it fails when a rule of the schema
            is broken.
        :param deadline: seconds; after them it fails with :exc:`StoreUnavailable`, and nothing is
            committed unless that has begun.
        :param schema: the transaction is the only one of all processes that has this set.
        """
        if self._closed:
            return fail(StoreUnavailable("the store is closed"))
        if len(self._calls) >= MAX_WAITING or (self._pool is None and self._lost >= MAX_LOST):
            return fail(StoreUnavailable("too many calls wait for the store"))
        result: Deferred[T] = Deferred(lambda _: self._abandon(call))
        call = _Call(work, conflict, schema, result)
        call.late = self._reactor.callLater(deadline, self._too_late, call, deadline)
        self._calls[call] = None
        self._submit(call)
        return result

    def close(self) -> Deferred[None]:
        """End the threads; calls that are under way have :data:`STOP` seconds."""
        self._closed = True
        ended: Deferred[None] = Deferred()
        if self._pool is None:
            ended.callback(None)
            return ended

        def over() -> None:
            if not ended.called:
                if late.active():
                    late.cancel()
                for call in list(self._calls):
                    self._fail(call, StoreUnavailable("the store is closed"))
                ended.callback(None)

        late = self._reactor.callLater(STOP, over)
        pool, self._pool = self._pool, None
        pool.whenEnded.append(lambda: self._from_thread(over))
        pool.close()
        return ended

    def _submit(self, call: _Call[Any]) -> None:
        if self._pool is None:
            self._pool = _Pool(self._dialect, self._reactor, self._size, self._writes)
        pool = call.pool = self._pool
        pool.runWithConnection(self._work, pool, call).addCallbacks(
            self._done, self._failed, callbackArgs=(pool, call), errbackArgs=(pool, call)
        )

    def _finished(self, pool: _Pool, call: _Call[Any]) -> bool:
        """Take *call* off the list; whether anybody waits for it."""
        if call.pool is not pool or call not in self._calls:
            return False  # done elsewhere, or nobody waits any more
        del self._calls[call]
        if call.late is not None and call.late.active():
            call.late.cancel()
        return not call.result.called

    def _done(self, value: Any, pool: _Pool, call: _Call[Any]) -> None:
        if self._finished(pool, call):
            call.result.callback(value)

    def _failed(self, failure: Failure, pool: _Pool, call: _Call[Any]) -> None:
        if self._finished(pool, call):
            call.result.errback(self._in_words(failure, pool, call))

    def _fail(self, call: _Call[Any], error: Exception) -> None:
        self._abandon(call)
        if not call.result.called:
            call.result.errback(error)

    def _abandon(self, call: _Call[Any]) -> None:
        """Nobody waits for *call* any more."""
        with self._lock:
            call.abandoned = True
        self._calls.pop(call, None)
        if call.late is not None and call.late.active():
            call.late.cancel()

    def _too_late(self, call: _Call[Any], deadline: float) -> None:
        self._abandon(call)
        with self._lock:
            hangs, connection = call.began and call.pool is self._pool, call.connection
        if hangs and connection is not None:
            self._dialect.break_off(connection)
        if hangs:
            self._replace()
        self._fail(call, StoreUnavailable(f"no answer within {deadline:g} seconds"))

    def _replace(self) -> None:
        """Leave threads that hang to themselves; what waits for them is done by others."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        self._lost += 1
        pool.whenEnded.append(lambda: self._from_thread(self._came_back))
        with self._lock:
            moved = [call for call in self._calls if call.pool is pool and not call.began]
            for call in moved:
                call.pool = None
        pool.close()
        for call in moved:
            if self._lost >= MAX_LOST:
                self._fail(call, StoreUnavailable("the store hangs"))
            else:
                self._submit(call)

    def _came_back(self) -> None:
        self._lost -= 1

    def _from_thread(self, call: Callable[[], None]) -> None:
        self._reactor.callFromThread(call)

    def _in_words(self, failure: Failure, pool: _Pool, call: _Call[Any]) -> Exception:
        error = failure.value
        dbapi: Any = pool.dbapi
        if isinstance(error, dbapi.IntegrityError):
            return Conflict(call.conflict or "it is there already")
        if isinstance(error, dbapi.DataError):
            return ValueError("the database takes no such value")
        if isinstance(error, (dbapi.Error, OSError)):
            return StoreUnavailable(self._dialect.reason(error))
        if not isinstance(error, Exception):
            return StoreUnavailable(type(error).__name__)
        return error

    # In a thread.

    def _work(self, connection: _Connection, pool: _Pool, call: _Call[T]) -> T:
        with self._lock:
            if call.abandoned or call.pool is not pool:
                raise _AbandonedError
            call.began = True
        try:
            return self._once(connection, call)
        except Exception as error:
            if not self._dialect.again(error, connection._connection):
                raise
        connection.rollback()
        return self._once(connection, call)

    def _once(self, connection: _Connection, call: _Call[T]) -> T:
        raw = connection.opened()
        with self._lock:
            call.connection = raw
        session = Session(self._dialect, raw)
        try:
            if call.schema:
                self._dialect.lock_schema(session)
            else:
                self._dialect.begin(session, self._writes)
            value = call.work(session)
        finally:
            session.close()
        with self._lock:
            if call.abandoned:
                raise _AbandonedError
        return value


class _AbandonedError(Exception):
    """Nobody waits for this call any more: nothing is committed."""
