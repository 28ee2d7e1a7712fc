"""``check_provider`` says what is missing in a provider's entry, one from outside included::

def test_my_provider():
check_provider(my_package.PROVIDER)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product

from llmproxyd.http.framing import Framing, tracker
from llmproxyd.model import Reply
from llmproxyd.providers.base import (
    Endpoint,
    EndpointKind,
    ErrorContext,
    ErrorKind,
    ErrorSpec,
    Facts,
    Provider,
    StreamForm,
    Streams,
)
from llmproxyd.providers.registry import registry

# -- providers ---------------------------------------------------------------------------

STATUSES: Mapping[ErrorKind, frozenset[int]] = {
    ErrorKind.CONTEXT_LENGTH: frozenset({400, 413, 422}),
    ErrorKind.RATE_LIMIT: frozenset({429}),
    ErrorKind.SERVER_ERROR: frozenset({500}),
    ErrorKind.OVERLOADED: frozenset({429, 498, 503, 529}),
    ErrorKind.QUOTA: frozenset({400, 402, 403, 412, 429}),
    ErrorKind.AUTHENTICATION: frozenset({400, 401, 403, 498}),
    ErrorKind.PERMISSION: frozenset({401, 403}),
    ErrorKind.NOT_FOUND: frozenset({400, 404}),
    ErrorKind.CONTENT_FILTER: frozenset({200, 400, 403, 422}),
    ErrorKind.TOO_LARGE: frozenset({400, 413}),
    ErrorKind.BAD_GATEWAY: frozenset({502}),
    ErrorKind.GATEWAY_TIMEOUT: frozenset({408, 504, 524}),
}
"""What providers are known to answer for each kind.  A 200 is a soft error, told in the body."""

_LOCAL_STATUSES = (400, 401, 403, 404, 405, 413, 429, 500, 502, 503, 504)
_LOCAL_CODE = "code_to_be_found"
_PLACEHOLDER = re.compile(r"\{[a-z_]+\}")
_UNLISTED = "unknown"


def check_provider(provider: Provider) -> None:
    """Fail with the list of everything that is incomplete or inconsistent in *provider*.

    It renders every error for every operation, as a whole answer and as an event within each
    of its streams.

    :raises AssertionError: naming each shortcoming, one a line.
    """
    found = [*_names(provider), *_endpoints(provider)]
    missing = [kind for kind in ErrorKind if kind not in provider.errors]
    found += [f"errors: there is no entry for {kind.value}" for kind in missing]
    if not missing:
        found += [*_catalogue(provider), *_local_errors(provider), *_streams(provider)]
    if found:
        raise AssertionError(f"provider {provider.name!r} is incomplete:\n  " + "\n  ".join(found))


def _names(provider: Provider) -> Iterator[str]:
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", provider.name):
        yield f"name: {provider.name!r} must be lower case: letters, digits, '-' and '_'"
    if not provider.title or not provider.sample_model:
        yield "title, sample_model: must not be empty"
    url = provider.base_url
    if url is not None and (not re.match(r"https?://[^/]", url) or url.endswith("/")):
        yield f"base_url: {url!r} must be http(s)://host[/path] without a slash at its end"
    for variable, suffix in provider.hosts.items():
        if suffix and (not suffix.startswith("/") or suffix.endswith("/")):
            yield f"hosts: path {suffix!r} of {variable} must start with a slash and not end with one"
    for variable in (*provider.hosts, *provider.keys):
        if variable != variable.upper():
            yield f"hosts, keys: environment variable {variable!r} must be upper case"
    if provider.credential.header != provider.credential.header.lower():
        yield f"credential: field name {provider.credential.header!r} must be lower case"
    for signal in provider.signals:
        if not isinstance(signal.matches(Facts(b"GET", b"/")), bool):
            yield f"signals: row {signal.row:g} must answer with a bool"


def _endpoints(provider: Provider) -> Iterator[str]:
    inference = [one for one in provider.endpoints if one.kind is EndpointKind.INFERENCE]
    if not inference:
        yield "endpoints: there is none of kind inference, so no fault could ever hit"
    elif not any(one.usage for one in inference):
        yield "endpoints: no inference endpoint tells where its usage stands"
    seen = set()
    for one in provider.endpoints:
        key = (one.operation, one.pattern.pattern, one.methods)
        if key in seen:
            yield f"endpoints: {one.operation} is there twice with the same pattern"
        seen.add(key)
        if (one.streams is Streams.NEVER) == bool(one.forms):
            yield f"endpoints: {one.operation} must have stream forms if it streams, and only then"
        if not one.methods or any(method != method.upper() for method in one.methods):
            yield f"endpoints: methods of {one.operation} must be there, in upper case"
        if set(one.pattern.groupindex) - {"model"}:
            yield f"endpoints: the pattern of {one.operation} has a named group other than 'model'"
        if one.speaks is not None and _speaker(provider, one) is None:
            yield f"endpoints: {one.operation} speaks {one.speaks!r}, which is no known provider"


def _speaker(provider: Provider, endpoint: Endpoint) -> Provider | None:
    """The provider in whose words *endpoint* fails."""
    if endpoint.speaks in (None, provider.name):
        return provider
    return registry().get(endpoint.speaks or "")


def _operations(provider: Provider) -> list[str]:
    """Its own operations, and the word for a path that is not listed."""
    own = {one.operation for one in provider.endpoints if one.speaks in (None, provider.name)}
    return [*sorted(own), _UNLISTED]


def _context(
    provider: Provider,
    kind: ErrorKind | None,
    operation: str,
    *,
    retry_after: float | None = None,
    array: bool = False,
    streaming: bool = False,
) -> ErrorContext:
    return ErrorContext(
        kind=kind,
        operation=operation,
        model=provider.sample_model,
        request_id="check-1",
        wall=1_800_000_000.0,
        retry_after=retry_after,
        array=array,
        streaming=streaming,
    )


def _catalogue(provider: Provider) -> Iterator[str]:
    for kind in provider.errors:
        if kind not in STATUSES:
            yield f"errors: {kind!r} is no ErrorKind"
    if provider.unknown not in provider.errors:
        yield f"unknown: there is no entry for {provider.unknown!r}"
    operations = _operations(provider)
    for kind, operation in provider.variants:
        if operation not in operations:
            yield f"variants: {kind.value} is there for {operation!r}, which is none of its operations"
    for kind, operation in product(ErrorKind, operations):
        spec = provider.spec(kind, operation)
        if spec.status not in STATUSES[kind]:
            yield f"errors: {kind.value} for {operation}: status {spec.status} is not plausible"
        for retry_after, array, streaming in product((None, 7.0, 1.5), (False, True), (False, True)):
            context = _context(
                provider, kind, operation, retry_after=retry_after, array=array, streaming=streaming
            )
            where = f"errors: {kind.value} for {operation}"
            yield from _rendered(where, provider.error(spec, context), spec, context)
        yield from _soft(provider, spec, kind, operation)


def _rendered(where: str, reply: Reply, spec: ErrorSpec, context: ErrorContext) -> Iterator[str]:
    """One whole answer: its status, its fields, its body."""
    fields = {name.lower(): value for name, value in reply.headers}
    if reply.status != spec.status:
        yield f"{where}: status {reply.status} instead of the entry's {spec.status}"
    wait = context.retry_after
    if wait is None:
        if b"retry-after" in fields or b"retry-after-ms" in fields:
            yield f"{where}: retry-after is there although nobody asked for it"
    elif fields.get(b"retry-after") != b"%d" % -int(-wait // 1):
        yield f"{where}: retry-after is {fields.get(b'retry-after')!r}, asked for {wait:g} s (round up)"
    media = fields.get(b"content-type", b"").partition(b";")[0]
    text = reply.body.decode("utf-8", "replace")
    if left := _PLACEHOLDER.search(text):
        yield f"{where}: the placeholder {left.group()} is left in the body"
    if media == b"application/json":
        if not _is_json(text):
            yield f"{where}: the body is no JSON"
        elif context.array and not text.startswith("["):
            yield f"{where}: an array was wanted"
    elif media == b"text/html":
        if not text.lstrip().lower().startswith(("<html", "<!doctype")):
            yield f"{where}: the body is no HTML page"
    elif media == b"text/event-stream" and context.streaming:
        yield from _event(where, Framing.SSE, reply.body)
    else:
        yield f"{where}: unexpected content type {media!r}"


def _soft(provider: Provider, spec: ErrorSpec, kind: ErrorKind, operation: str) -> Iterator[str]:
    """A soft error is an answer: to a call that streams, it must come as a stream."""
    if spec.status >= 300:
        return
    for endpoint in provider.endpoints:
        if endpoint.operation == operation and endpoint.forms and endpoint.speaks is None:
            reply = provider.error(spec, _context(provider, kind, operation, streaming=True))
            media = dict(reply.headers).get(b"content-type", b"")
            if endpoint.form_of(media) is None:
                yield f"errors: {kind.value} for {operation}: status {spec.status}, but it is no stream"


def _local_errors(provider: Provider) -> Iterator[str]:
    for status, operation in product(_LOCAL_STATUSES, _operations(provider)):
        spec = provider.dialect.local(status, _LOCAL_CODE, "A sentence for people.")
        context = _context(provider, None, operation)
        where = f"local error {status} for {operation}"
        if spec.status != status:
            yield f"{where}: the status has become {spec.status}"
        reply = provider.error(spec, context)
        yield from _rendered(where, reply, spec, context)
        texts = list(_strings(json.loads(reply.body))) if _is_json(reply.body.decode()) else []
        if _LOCAL_CODE not in texts:
            yield f"{where}: its code is not found in the body"
        if "A sentence for people." not in texts:
            yield f"{where}: its message is not found in the body"


def _streams(provider: Provider) -> Iterator[str]:
    for endpoint in provider.endpoints:
        speaker = _speaker(provider, endpoint)
        if speaker is None:
            continue
        for form, kind in product(endpoint.forms, ErrorKind):
            where = f"stream form {form.name} of {endpoint.operation}: {kind.value}"
            context = _context(speaker, kind, endpoint.operation, streaming=True)
            event = speaker.stream_error(form, speaker.spec(kind, endpoint.operation), context)
            yield from _stream_event(where, form, event)


def _stream_event(where: str, form: StreamForm, event: bytes | None) -> Iterator[str]:
    if form.error is None:
        return
    if event is None:
        yield f"{where}: the error's value is no object, so it cannot be an event"
        return
    if form.terminator is not None and form.framing is Framing.SSE and form.terminator in event:
        yield f"{where}: the error event holds the terminator of a complete stream"
    if left := _PLACEHOLDER.search(event.decode("utf-8", "replace")):
        yield f"{where}: the placeholder {left.group()} is left in the event"
    yield from _event(where, form.framing, event)


def _event(where: str, framing: Framing, event: bytes) -> Iterator[str]:
    """One event alone: it must end where an event ends, and hold JSON."""
    follower = tracker(framing)
    if follower is None:
        yield f"{where}: no event of ours can be told in a stream of {framing.value}"
        return
    if framing is Framing.JSON_ARRAY:
        # It is appended to an element; the comma goes where there is none before it.
        follower.feed(b"[{}" + event)
        parts = ["[{}" + event.decode() + "]", event.decode().removeprefix(",")]
    elif framing is Framing.NDJSON:
        follower.feed(event)
        parts = event.decode().splitlines()
    else:
        follower.feed(event)
        parts = [line[5:] for line in event.decode().splitlines() if line.startswith("data:")]
    if not follower.at_boundary:
        yield f"{where}: the event does not end at a boundary of {framing.value}"
    if not parts or not all(_is_json(part) for part in parts):
        yield f"{where}: the event does not hold JSON"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _strings(value: object) -> Iterable[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from _strings(member)
    elif isinstance(value, list):
        for member in value:
            yield from _strings(member)
