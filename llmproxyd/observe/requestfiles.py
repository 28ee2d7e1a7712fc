"""The request log as files: one for each request, with all that passed by.

Names, sections and their order are those of the SillyTavern middleware, so that what was made
to read its logs reads these; attempts and the outcome are sections of their own.  Bodies are
shown in the clear, streams as the answer that they amount to, all of it without secrets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

from llmproxyd.config.schema import Logging
from llmproxyd.http.headers import first
from llmproxyd.inspection.assemble import assemble
from llmproxyd.inspection.inflate import LIMIT, inflater
from llmproxyd.model import AttemptMade, Body, End, Event, RawHeaders, Recorded
from llmproxyd.observe.files import STAMP, Folder, file_word, local_time, stamp
from llmproxyd.observe.writer import Writer
from llmproxyd.redaction import Redactor, printable

NAMES = re.compile(rf"{STAMP}_[A-Za-z0-9.-][A-Za-z0-9._-]*\.log")
"""What the files are called: ``YYYYMMDD_HHMMSS_mmm_requestid.log``."""

RULE = "=" * 80
LINE = "-" * 40

PRETTY = 256 * 1024
"""Bytes of JSON that are laid out at most: that is slow work, and others wait for it."""

_OVERHEAD = 4096
"""Bytes that a record holds beside its bodies, about."""

_TEXTUAL = re.compile(
    rb"text/|application/(?:.*\b(?:json|xml|yaml|javascript|x-www-form-urlencoded)\b|graphql)"
)
_STREAMED = frozenset({b"text/event-stream", b"application/x-ndjson", b"application/stream+json"})
_BINARY = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_ESCAPED = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160)) if number not in (9, 10)}
_PHRASES = {520: "Unknown Error", 521: "Web Server Is Down", 522: "Connection Timed Out"} | {
    498: "Capacity Exceeded",
    499: "Client Closed Request",
    523: "Origin Is Unreachable",
    524: "A Timeout Occurred",
    529: "Overloaded",
}


class RequestFiles:
    """A subscriber of the sink: takes :class:`~llmproxyd.model.Recorded`, and nothing else.

    :ivar folder: where they go.
    :ivar redactor: for the records from now on.
    """

    def __init__(self, settings: Logging, writer: Writer, redactor: Redactor) -> None:
        self._settings = settings
        self.folder = Folder(settings.folder, max_files=settings.max_files, names=NAMES)
        self._writer = writer
        self.redactor = redactor

    def __call__(self, event: Event) -> None:
        """Have *event* written; it is not looked at before that."""
        if isinstance(event, Recorded):
            self._writer.put(RequestRecord(event, self.folder, self.redactor, self._settings))


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """The file of one request, to be."""

    event: Recorded
    folder: Folder
    redactor: Redactor
    settings: Logging

    @property
    def stem(self) -> str:
        """``20250830_143045_123_a1b2c3d4-7``."""
        return f"{stamp(self.event.started)}_{file_word(self.event.finished.request_id, '0')}"

    @property
    def size(self) -> int:
        """Bytes that it holds, about."""
        bodies = [self.event.body, self.event.response_body, *(one.body for one in self.event.attempts)]
        return _OVERHEAD + sum(len(body.data) for body in bodies if body is not None)

    def render(self, name: str) -> str:
        """The whole file."""
        redactor = self.redactor.knowing(self.event.secrets)
        lines = list(_Sections(self.event, redactor, self.settings).lines())
        # Once more as a whole: what is a secret in none of its parts may be one in the text.
        return redactor.text("\n".join(lines) + "\n")


class _Sections:
    """The lines of one file."""

    def __init__(self, event: Recorded, redactor: Redactor, settings: Logging) -> None:
        self._event = event
        self._redactor = redactor
        self._settings = settings

    def lines(self) -> Iterator[str]:
        event, settings, finished = self._event, self._settings, self._event.finished
        began, ended = local_time(event.started), local_time(event.ended)
        began_text = began.isoformat(timespec="microseconds")
        yield from (RULE, f"UNIFIED REQUEST LOG - {began_text}", RULE)
        yield f"Request ID: {printable(finished.request_id)}"
        yield f"Endpoint: {printable(self._redactor.url(finished.path))}"
        yield f"Timestamp: {began_text}"
        yield f"Start Time: {event.started:.6f}"
        yield f"Method: {printable(finished.method)}"
        yield f"Target: {printable(self._redactor.url(event.request.target.decode('latin-1')))}"
        yield f"Provider: {finished.provider}"
        yield f"Upstream: {finished.upstream}"
        headers = event.request.headers
        if settings.include_headers:
            yield from self._section("REQUEST HEADERS", self._fields(headers))
        if settings.include_request_data:
            yield from self._section("REQUEST DATA", [self._body(event.body, headers)])
        for attempt in event.attempts:
            title = f"ATTEMPT {attempt.number} of {len(event.attempts)}"
            yield from self._section(title, self._attempt(attempt))
        yield from self._answer()
        yield from self._section("OUTCOME", self._outcome())
        if settings.include_timing:
            times = (f"End Time: {event.ended:.6f}", f"Total Duration: {finished.duration:.3f} seconds")
            yield from self._section("TIMING INFORMATION", times)
        yield from ("", RULE, f"LOG COMPLETE - {ended.isoformat(timespec='microseconds')}", RULE)

    def _section(self, title: str, lines: Iterator[str] | tuple[str, ...] | list[str]) -> Iterator[str]:
        yield from ("", LINE, f"{title}:", LINE)
        yield from lines

    def _fields(self, headers: RawHeaders) -> Iterator[str]:
        for name, value in self._redactor.fields(headers):
            yield f"{name}: {value}"

    def _body(
        self, body: Body, headers: RawHeaders, form: str | None = None, coding: bytes | None = None
    ) -> str:
        return body_text(body, headers, self._redactor, form=form, coding=coding)

    def _attempt(self, attempt: AttemptMade) -> Iterator[str]:
        redactor = self._redactor
        yield f"Upstream: {attempt.upstream}"
        yield f"URL: {printable(redactor.url(attempt.url))}"
        yield f"Status: {'none' if attempt.status is None else status_line(attempt.status)}"
        if attempt.code is not None:
            message = "" if attempt.message is None else f": {printable(redactor.text(attempt.message))}"
            yield f"Error: {attempt.code}{message}"
        if self._settings.include_timing:
            yield f"Started: {local_time(attempt.started).isoformat(timespec='microseconds')}"
            yield f"Duration: {attempt.duration:.3f} seconds"
        if attempt.delay is not None:
            yield f"Retry Delay: {attempt.delay:.2f} seconds"
        if self._settings.include_headers and attempt.headers:
            yield ""
            yield from self._fields(attempt.headers)
        if self._settings.include_response_data and attempt.body is not None:
            yield ""
            yield self._body(attempt.body, attempt.headers)

    def _answer(self) -> Iterator[str]:
        event, response = self._event, self._event.response
        if response is None:
            return
        if self._settings.include_headers:
            yield from self._section("FINAL RESPONSE HEADERS", self._fields(response.headers))
        if self._settings.include_response_data and event.response_body is not None:
            text = self._body(event.response_body, response.headers, event.form, event.coding)
            yield from self._section("FINAL RESPONSE DATA", [text])

    def _outcome(self) -> Iterator[str]:
        finished = self._event.finished
        yield f"Status: {status_line(finished.status)}"
        yield f"Bytes Sent: {finished.sent}"
        if finished.end is not End.COMPLETE:
            yield f"End: {finished.end.value}"
        if finished.fault is not None:
            yield f"Injected: {finished.fault}"
        if finished.code is not None:
            detail = "" if finished.detail is None else f": {printable(self._redactor.text(finished.detail))}"
            yield f"Error: {finished.code}{detail}"


def status_line(status: int) -> str:
    """``503 Service Unavailable``; the number alone where it has no name."""
    return f"{status} {phrase(status)}".rstrip()


def phrase(status: int) -> str:
    """What *status* is called, also where only its users named it."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return _PHRASES.get(status, "")


def body_text(
    body: Body,
    headers: RawHeaders,
    redactor: Redactor,
    *,
    form: str | None = None,
    coding: bytes | None = None,
    pretty: bool = True,
) -> str:
    """*body* as it is shown: in the clear, laid out if it is JSON, without secrets.

    :param headers: of the message that it is the body of.
    :param redactor: knows the presented credentials.
    :param form: of the stream that it is; where it is not known *headers* tell that it is one.
    :param coding: instead of what *headers* say.
    :param pretty: whether JSON is laid out; else it stays as it came.
    """
    if not body.data:
        return ""
    media = (first(headers, b"content-type") or b"").partition(b";")[0].strip().lower()
    if form is None and media in _STREAMED:
        form = ""  # its events will tell
    coding = coding if coding is not None else first(headers, b"content-encoding") or b""
    source = inflater(coding, LIMIT + len(body.data))
    clear = None if source is None else source.feed(body.data)
    if source is None or clear is None or (source.broken and not clear):
        return _unreadable(body, media, f" coded {coding.decode('latin-1')}")
    text = assemble(form, clear) if form is not None else _decoded(clear, media)
    if text is None or (form is not None and _BINARY.search(text[:512])):
        return _unreadable(body, media, "")
    cut = body.cut or source.full or source.broken
    if pretty and form is None and not cut:
        text = _laid_out(text)
    text = redactor.text(text)
    if cut:
        text = redactor.cut(text) + f"\n[cut after {len(body.data)} of {body.length} bytes]"
    return text.translate(_ESCAPED)


def _unreadable(body: Body, media: bytes, how: str) -> str:
    kind = printable(f" of {media.decode('latin-1')}" if media else "")
    return f"<{max(body.length, len(body.data))} bytes{kind}{printable(how)}>"


def _decoded(data: bytes, media: bytes) -> str | None:
    """*data* as text; ``None`` if it is none."""
    if _TEXTUAL.match(media):
        return data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    try:
        # Forms with files in them have texts too: what is text throughout is shown.
        text = data.decode()
    except UnicodeDecodeError as error:
        if error.start < len(data) - 3:
            return None
        text = data[: error.start].decode()  # cut within its last character
    return None if _BINARY.search(text) else text.replace("\r\n", "\n")


def _laid_out(text: str) -> str:
    if len(text) > PRETTY or text.lstrip()[:1] not in ("{", "["):
        return text
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return text
