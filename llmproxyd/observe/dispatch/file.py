"""Events in a file: a JSON object a line, rotated by size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from llmproxyd.observe.dispatch.destination import Undelivered
from llmproxyd.observe.eventjson import EventFormat, Told
from llmproxyd.observe.rotation import LineFile
from llmproxyd.observe.worker import Work


class FileDestination:
    """Appends to *file*, in a thread."""

    log = Logger()

    def __init__(self, file: LineFile, form: EventFormat, work: Work) -> None:
        self.name = f"file {file.path}"
        self._file = file
        self._form = form
        self._work = work
        self._stuck: str | None = None

    def deliver(self, batch: Sequence[Told]) -> Deferred[None]:
        """Write *batch*; what fits stays if the rest does not."""
        return self._work.do(partial(self._write, batch)).addCallback(self._look)

    def close(self) -> Deferred[None]:
        """Close the file after what is still to be written."""
        self._work.do(self._file.close)
        self._work.close()
        return succeed(None)

    def _look(self, _: None) -> None:
        """Tell once that the file grows beyond its bound."""
        stuck, before = self._file.stuck, self._stuck
        self._stuck = stuck
        if stuck is not None and before is None:
            self.log.warn("{name} cannot be rotated and grows on: {why}", name=self.name, why=stuck)

    # In the thread.

    def _write(self, batch: Sequence[Told]) -> None:
        lines = [self._form.line(told) for told in batch]
        done = 0
        while done < len(lines):
            try:
                done += self._file.append(lines[done:])
            except OSError as error:
                raise Undelivered(error.strerror or type(error).__name__, done=done) from None
