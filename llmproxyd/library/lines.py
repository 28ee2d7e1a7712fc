"""What goes to a site's log: a line for each request, and failures without the secrets in them."""

from __future__ import annotations

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from llmproxyd.model import BreakerChanged, CredentialRested, Event, Finished, Retrying
from llmproxyd.observe.logs import LEVELS
from llmproxyd.observe.requestlog import text_event
from llmproxyd.redaction import Redactor

NAMESPACE = "llmproxyd"


def logger_of(given: Logger | ILogObserver | None, redactor: Redactor) -> Logger:
    """A logger to where *given* leads, by default the global log; failures pass *redactor*."""
    observer: ILogObserver = globalLogPublisher
    namespace = NAMESPACE
    if isinstance(given, Logger):
        observer, namespace = given.observer, given.namespace
    elif given is not None:
        observer = given
    return Logger(namespace=namespace, observer=Redacting(observer, redactor))


@implementer(ILogObserver)
class Redacting:
    """Hands events on; of failures the text alone, without secrets.

    An exception may hold what it failed on.  An event's ``secrets`` are further ones.
    """

    def __init__(self, observer: ILogObserver, redactor: Redactor) -> None:
        self._observer = observer
        self._redactor = redactor

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is not None:
            redactor = self._redactor.knowing(event.get("secrets", ()))
            kept = {name: value for name, value in event.items() if name.startswith("log_")}
            del kept["log_failure"]
            event = kept | {
                "log_format": "{message}\n{trace}",
                "message": redactor.text(formatEvent(event)),
                "trace": redactor.text(failure.getTraceback()),
            }
        self._observer(event)


class RequestLines:
    """Writes a line for each request, and for what was done about failures.  A subscriber of the sink.

    The event has ``line`` and, of a request, its parts: ``request_id``, ``method``, ``path``,
    ``provider``, ``upstream``, ``status``, ``seconds``, ``sent``, ``end``, ``code``.

    :param least: level below which nothing is written (``logging.level``).
    """

    def __init__(self, logger: Logger, least: str) -> None:
        self._log = logger
        self._least = LEVELS[least]

    def __call__(self, event: Event) -> None:
        if isinstance(event, Finished):
            level = LogLevel.info if event.code is None else LogLevel.warn
            if level >= self._least:
                self._log.emit(level, "{line}", line=text_event(event, symbols=False), **_parts(event))
        elif isinstance(event, Retrying | BreakerChanged | CredentialRested) and LogLevel.warn >= self._least:
            self._log.warn("{line}", line=text_event(event, symbols=False))


def _parts(event: Finished) -> dict[str, object]:
    return {
        "request_id": event.request_id,
        "method": event.method,
        "path": event.path,
        "provider": event.provider,
        "upstream": event.upstream,
        "status": event.status,
        "seconds": event.duration,
        "sent": event.sent,
        "end": event.end.value,
        "code": event.code,
    }
