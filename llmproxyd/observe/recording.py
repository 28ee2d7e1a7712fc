"""Requests and errors on record: both logs of files, the thread that writes them, what they hide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from urllib.parse import unquote

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from llmproxyd.config.schema import Config
from llmproxyd.model import WallClock
from llmproxyd.observe.errorlog import ErrorLog
from llmproxyd.observe.requestfiles import RequestFiles
from llmproxyd.observe.sink import Sink
from llmproxyd.observe.writer import Writer
from llmproxyd.redaction import Redactor, Secret, SecretURL


class Recording:
    """What ``logging`` and ``error_logging`` ask for.

    :param from_thread: calls a function in the reactor's thread.
    :param redactor: knows the secrets of the configuration.
    """

    def __init__(
        self,
        config: Config,
        clock: IReactorTime,
        wall: WallClock,
        from_thread: Callable[[Callable[[], object]], object],
        redactor: Redactor,
    ) -> None:
        self._wanted = config.logging.enabled or config.error_logging.enabled
        self._writer = Writer(from_thread, clock)
        self._requests = RequestFiles(config.logging, self._writer, redactor)
        self._errors = ErrorLog(config.error_logging, self._writer, redactor, wall)
        self._config = config

    def start(self, sink: Sink) -> None:
        """Write what *sink* tells of from now on."""
        places = {}
        if self._config.logging.enabled:
            sink.subscribe(self._requests, arrivals=False)
            places["logging.folder"] = self._requests.folder
        if self._config.error_logging.enabled:
            sink.subscribe(self._errors, arrivals=False)
            places["error_logging.folder"] = self._errors.folder
        if self._wanted:
            self._writer.start(places)

    def stop(self) -> Deferred[None]:
        """Write what waits; fires soon in any case."""
        return self._writer.stop() if self._wanted else succeed(None)

    def summary(self) -> Mapping[str, object]:
        """What ``/logs/errors`` tells.  It reads the folder: not for the reactor's thread."""
        return self._errors.summary()

    def state(self) -> Mapping[str, int]:
        """How many records wait, were written, dropped, failed."""
        return self._writer.state()


def secrets_in(value: object) -> Iterator[Secret]:
    """Every secret within *value*: a dataclass, a mapping, a list.

    Of a field's value (``Bearer …``) also what stands behind its scheme, of a URL the login in it.
    """
    if isinstance(value, SecretURL):
        yield from map(Secret, value.hidden())
    elif isinstance(value, Secret):
        yield value
        yield from map(Secret, _within(value.reveal()))
    elif is_dataclass(value):
        for one in fields(value):
            yield from secrets_in(getattr(value, one.name))
    elif isinstance(value, Mapping):
        for below in value.values():
            yield from secrets_in(below)
    elif isinstance(value, tuple | list):
        for below in value:
            yield from secrets_in(below)


def _within(text: str) -> Iterator[str]:
    """What of the secret *text* is one by itself."""
    scheme, _, rest = text.partition(" ")
    if rest and scheme.isalpha():
        yield rest.strip()
    login, at, _ = text.partition("://")[2].rpartition("@")
    if at:
        login = unquote(login)
        yield login
        yield login.partition(":")[2]
