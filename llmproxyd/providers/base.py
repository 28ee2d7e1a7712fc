"""The vocabulary in which a provider describes its API.

A provider is data and a few pure functions: where it lives, which endpoints it has, how a
request for it is recognised, what its errors look like (whole answers as well as events in
the middle of a stream), and where a model and its usage stand.  A file in this package, or
an object named by the entry-point group ``llmproxyd.providers``, is all it takes to add one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum

from llmproxyd.http.framing import Framing as Framing
from llmproxyd.model import RawHeaders, Reply
from llmproxyd.providers.events import any_event, error_event, everything, no_tool, objects
from llmproxyd.providers.limits import Meter, openai_fields
from llmproxyd.providers.places import Place as Place
from llmproxyd.providers.places import Places

JSON = b"application/json"
SSE = b"text/event-stream"

READ = frozenset({b"GET", b"HEAD"})
"""Methods of what can only be looked at."""


class EndpointKind(StrEnum):
    """What an endpoint is for.  Faults hit ``inference`` unless a rule says otherwise."""

    INFERENCE = "inference"
    METADATA = "metadata"
    AUTH = "auth"


class ErrorKind(StrEnum):
    """Every failure that can be rehearsed, in the operator's words."""

    CONTEXT_LENGTH = "context_length"
    RATE_LIMIT = "rate_limit"
    SERVER_ERROR = "server_error"
    OVERLOADED = "overloaded"
    QUOTA = "quota"
    AUTHENTICATION = "authentication"
    PERMISSION = "permission"
    NOT_FOUND = "not_found"
    CONTENT_FILTER = "content_filter"
    TOO_LARGE = "too_large"
    BAD_GATEWAY = "bad_gateway"
    GATEWAY_TIMEOUT = "gateway_timeout"


class Streams(Enum):
    """What decides whether an endpoint answers with a stream."""

    NEVER = "never"
    ALWAYS = "always"
    BODY = "body"
    """The request's body says ``"stream": true``."""
    BODY_UNLESS_FALSE = "body_unless_false"
    """It streams unless the request's body says ``"stream": false`` (Ollama)."""


@dataclass(frozen=True, slots=True)
class StreamForm:
    """One way in which a dialect streams.

    :param content_type: the media type by which a response is known to have this form.
    :param error: turns a dialect's error object into the bytes of an in-stream error event;
        ``None`` where the dialect has no such event (the connection is then just cut).
    :param terminator: the bytes that close a complete stream; ``None`` where its last event
        or the end of the body does.
    :param final: event types, or keys of the last object, that mark a complete stream.
    :param content: whether an event, by its name and its JSON object, holds something that the
        model said: text, reasoning, a refusal, the name or the arguments of a call, or why it
        ended.  Openings, pings, and chunks of usage alone do not.
    :param failure: the error object of an event that is an error, ``None`` for any other event.
    :param said: what of an event the model said, in any shape; its texts are what takes time.
    :param tool: the piece of a call's arguments that an event holds, empty for any other event.  Where
        arguments come whole, in one event, it is a JSON object by itself.
    :param empty: an event as it is in a stream in which the model says nothing: the same object where
        nothing is changed, ``None`` where such a stream does not have it.  With no such function, what
        is content and does not close the stream is left out.
    """

    name: str
    framing: Framing
    content_type: bytes
    error: Callable[[Mapping[str, object]], bytes] | None
    terminator: bytes | None = None
    final: tuple[str, ...] = ()
    content: Callable[[str, Mapping[str, object]], bool] = any_event
    failure: Callable[[str, Mapping[str, object]], Mapping[str, object] | None] = error_event
    said: Callable[[str, Mapping[str, object]], object] = everything
    tool: Callable[[str, Mapping[str, object]], str] = no_tool
    empty: Callable[[str, Mapping[str, object]], Mapping[str, object] | None] | None = None

    def closes(self, name: str, value: Mapping[str, object]) -> bool:
        """Whether an event says that the stream is complete: by its type, or by a member of :attr:`final`.

        The member is not empty, and may stand in the objects of a list: ``finish_reason`` does in
        ``choices``.
        """
        final = self.final
        if name in final or value.get("type") in final or value.get("event_type") in final:
            return True
        places = [value, *(item for member in value.values() for item in objects(member))]
        return any(place.get(key) for key in final for place in places)


@dataclass(frozen=True, slots=True)
class Usage:
    """Where an answer tells its model and its token counts.

    :param model: place of the answering model, empty where answers do not tell it.
    :param tokens: places by meaning: ``input``, ``output``, and where told ``total``,
        ``cached`` (input that was read from the provider's cache), ``written`` (input that was put
        there), ``reasoning``.  In streams the last value seen wins, under any of ``roots``.
    :param roots: keys below which the same places stand in stream events
        (``("response",)`` for OpenAI responses, ``("message",)`` for Anthropic).
    :param finish: places of why the model stopped; the first of them that holds a word tells.
        Where an array stands in the way, the first of its objects that has the rest.
    :param apart: by meaning, which other counts the provider leaves out of it, so that they are
        added: Anthropic's ``input`` is without what was ``cached``, OpenAI's is not.
    :param cost: place of what the answer cost by the provider's own account, empty where none tells.
    :param members: the members that hold counts and nothing else, below any root; by default those
        with which the places of tokens and of the cost begin.
    :ivar finder: the places of *tokens*, to be found in one walk.
    :ivar names: the first members of all these places, below any root.
    """

    model: Place
    tokens: Mapping[str, Place]
    roots: tuple[Place, ...] = ((),)
    finish: tuple[Place, ...] = ()
    apart: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cost: Place = ()
    members: tuple[Place, ...] = ()
    finder: Places = field(init=False, repr=False, compare=False)
    names: frozenset[str] = field(init=False, repr=False, compare=False)
    telling: re.Pattern[bytes] = field(init=False, repr=False, compare=False)
    """Found in JSON that may hold counts or a finish reason: one of their members, and it is not null."""

    def __post_init__(self) -> None:
        counts = [place for place in (*self.tokens.values(), self.cost) if place]
        sought = {place[0] for place in counts} | {place[-1] for place in self.finish}
        everything = [place for place in (self.model, *counts, *self.finish) if place]
        names = frozenset((root + place)[0] for root in self.roots for place in everything)
        words = "|".join(map(re.escape, sorted(sought)))
        told = {meaning: place for meaning, place in self.tokens.items() if place}
        object.__setattr__(self, "finder", Places(told))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "telling", re.compile(rf'"(?:{words})"\s*:\s*[^n\s]'.encode()))

    @property
    def counts(self) -> frozenset[Place]:
        """Where the members stand without which an answer tells no counts."""
        first = {place[:1] for place in (*self.tokens.values(), self.cost) if place}
        return frozenset(root + member for root in self.roots for member in self.members or first)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint.

    :param operation: a word for what it does (``chat``, ``responses``, ``models``…).
    :param pattern: searched in the raw path, without query.  A group ``model`` marks where the
        path names the model; without it the body's ``model`` does.
    :param methods: the methods it takes.
    :param streams: what decides whether it streams.
    :param forms: the forms its streams can have, told apart by content type.
    :param usage: where its answers tell model and usage, ``None`` for endpoints that have none.
    :param speaks: name of the provider whose dialect it speaks, when that is another one.
    """

    operation: str
    pattern: re.Pattern[bytes]
    kind: EndpointKind = EndpointKind.INFERENCE
    methods: frozenset[bytes] = frozenset({b"POST"})
    streams: Streams = Streams.NEVER
    forms: tuple[StreamForm, ...] = ()
    usage: Usage | None = None
    speaks: str | None = None

    @property
    def streams_always(self) -> bool:
        """Whether every answer is a stream, whatever the body says."""
        return self.streams is Streams.ALWAYS

    def answers_array(self, query: bytes) -> bool:
        """Whether a request with this raw *query* is answered with a streamed JSON array.

        Gemini's ``:streamGenerateContent`` does so unless ``alt=sse`` is asked for.
        """
        return (
            self.streams_always
            and any(form.framing is Framing.JSON_ARRAY for form in self.forms)
            and b"alt=sse" not in query.split(b"&")
        )

    def form_of(self, content_type: bytes) -> StreamForm | None:
        """The stream form of a response with this ``Content-Type`` value, if it has one."""
        media = _media_types.get(content_type)
        if media is None:
            media = content_type.partition(b";")[0].strip().lower()
            if len(_media_types) < 256 and len(content_type) <= 64:
                _media_types[content_type] = media
        for form in self.forms:
            if form.content_type == media:
                return form
        return None


_media_types: dict[bytes, bytes] = {}
"""Media types by the values of ``Content-Type`` that came with them: the same few again and again."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that detection may look at: never a body, never a whole credential.

    :param path: raw path without query.
    :param query_names: names in the query, raw.
    :param header_names: lower case.
    :param scheme: authorization scheme, lower case, empty without the field.
    :param key_prefix: the first 12 bytes of the presented credential.
    :param agent: the User-Agent up to its first slash, included (``b"Groq/"``).
    """

    method: bytes
    path: bytes
    query_names: frozenset[bytes] = frozenset()
    header_names: frozenset[bytes] = frozenset()
    scheme: bytes = b""
    key_prefix: bytes = field(default=b"", repr=False)
    agent: bytes = b""


@dataclass(frozen=True, slots=True)
class Signal:
    """One sign by which requests for a provider are recognised.

    :param row: its place in the order over all providers; the lowest that matches wins.
    :param by_key: it rests on the prefix of a key, so it does not hold where clients present
        tokens of our own.
    """

    row: float
    matches: Callable[[Facts], bool]
    by_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSpec:
    """One entry of an error catalogue.

    :param message: may hold ``{model}`` and ``{retry_after}`` (seconds as a number, 20 where the
        operator names none).
    :param type: the dialect's class of error, where it has one.
    :param code: the dialect's code, where it has one.
    :param extra: further members, placed by the dialect (details, metadata).
    :param body: makes the whole JSON value instead of the dialect's shape.
    :param stream: turns the JSON value into the whole body of a streaming call's answer, sent as
        ``text/event-stream``: for soft errors, which come with status 200 and so as a stream.
    :param html: the body of an edge server, sent as ``text/html`` instead of JSON.
    """

    status: int
    message: str
    type: str | None = None
    code: str | int | None = None
    param: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    body: Callable[[ErrorContext], object] | None = None
    stream: Callable[[object], bytes] | None = None
    html: str | None = None
    headers: RawHeaders = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorContext:
    """What an error answer may depend on.

    :param kind: the rehearsed failure; ``None`` for an error of the proxy itself.
    :param operation: of the endpoint asked for (``chat``, ``responses``…).
    :param model: as asked for, or a plausible one of this provider.
    :param array: the answer is wanted as a one-element JSON array (Gemini without ``alt=sse``).
    :param streaming: the request asked for a stream.
    :param retry_after: seconds, ``None`` for none.
    :param request_id: unique, of letters, digits and ``-``.
    :param wall: seconds since the epoch.
    """

    kind: ErrorKind | None
    operation: str
    model: str
    request_id: str
    wall: float
    retry_after: float | None = None
    array: bool = False
    streaming: bool = False


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a family of APIs words its errors.

    :param shape: the JSON value of an error, from its entry, its finished message and context.
    :param local: the entry for an error of the proxy itself, from ``(status, code, message)``;
        the code must come out at one stable place.
    :param headers: the fields of an injected error beside Content-Type: request id, rate-limit
        family, ``retry-after``.
    :param limits: how rate limits of ours are told, from meters and seconds since the epoch.
    """

    shape: Callable[[ErrorSpec, str, ErrorContext], Mapping[str, object]]
    local: Callable[[int, str, str], ErrorSpec]
    headers: Callable[[ErrorSpec, ErrorContext], list[tuple[bytes, bytes]]]
    limits: Callable[[Sequence[Meter], float], list[tuple[bytes, bytes]]] = openai_fields


@dataclass(frozen=True, slots=True)
class CredentialPlace:
    """Where a provider wants its key: ``field: prefix + key``."""

    header: bytes = b"authorization"
    prefix: bytes = b"Bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """All that is known of one provider.

    :param name: lower case, as in configuration and ``/to/NAME``.
    :param title: as people write it.
    :param base_url: origin plus optional path, to which the client's raw path is appended;
        ``None`` where there is no global one.
    :param base_url_variable: environment variable that names the base URL where there is no
        global one.
    :param hosts: environment variables by which clients are pointed at a proxy, with the path
        to append to the proxy's URL (``{"OPENAI_BASE_URL": "/v1"}``); shown at start.
    :param keys: environment variables that hold this provider's key in client SDKs.
    :param signals: how a request for it is recognised; empty where only its name, a route or
        the default selects it.
    :param errors: an entry for every kind.
    :param variants: entries for one operation only, by ``(kind, operation)``.
    :param unknown: the kind that the operator's ``u`` means here.
    :param sample_model: a plausible model name for texts that hold one.
    """

    name: str
    title: str
    base_url: str | None
    endpoints: tuple[Endpoint, ...]
    errors: Mapping[ErrorKind, ErrorSpec]
    dialect: Dialect
    signals: tuple[Signal, ...] = ()
    variants: Mapping[tuple[ErrorKind, str], ErrorSpec] = field(default_factory=dict)
    unknown: ErrorKind = ErrorKind.SERVER_ERROR
    base_url_variable: str | None = None
    hosts: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    credential: CredentialPlace = CredentialPlace()
    sample_model: str = "model-x"

    def endpoint(self, method: bytes, path: bytes) -> Endpoint | None:
        """The endpoint that *method* and raw *path* name, ``None`` for one not listed."""
        for endpoint in self.endpoints:
            if method in endpoint.methods and endpoint.pattern.search(path):
                return endpoint
        return None

    def spec(self, kind: ErrorKind, operation: str) -> ErrorSpec:
        """The catalogue's entry for *kind* at the endpoint that does *operation*."""
        return self.variants.get((kind, operation)) or self.errors[kind]

    def error(self, spec: ErrorSpec, context: ErrorContext) -> Reply:
        """The whole answer for one error: status, content type and further fields, body."""
        headers = [*spec.headers, *self.dialect.headers(spec, context)]
        if spec.html is not None:
            return Reply(spec.status, [(b"content-type", b"text/html"), *headers], spec.html.encode())
        value: object = self.error_value(spec, context)
        if context.array:
            value = [value]
        elif context.streaming and spec.stream is not None:
            return Reply(spec.status, [(b"content-type", SSE), *headers], spec.stream(value))
        return Reply(spec.status, [(b"content-type", JSON), *headers], encode(value))

    def error_value(self, spec: ErrorSpec, context: ErrorContext) -> object:
        """The JSON value of one error, without envelope or framing."""
        if spec.body is not None:
            return spec.body(context)
        seconds = 20 if context.retry_after is None else context.retry_after
        message = spec.message.replace("{model}", context.model).replace("{retry_after}", f"{seconds:g}")
        return self.dialect.shape(spec, message, context)

    def stream_error(self, form: StreamForm, spec: ErrorSpec, context: ErrorContext) -> bytes | None:
        """The bytes of *spec* as an event within a stream of *form*, ``None`` if it has none."""
        value = self.error_value(spec, context)
        if form.error is None or not isinstance(value, Mapping):
            return None
        return form.error(value)


def encode(value: object) -> bytes:
    """*value* as compact JSON, non-ASCII text kept as UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def data_event(value: object, end: bytes = b"\n\n") -> bytes:
    """*value* as one server-sent event without a name."""
    return b"data: " + encode(value) + end


def adapted(
    endpoints: Iterable[Endpoint], convert: Callable[[Mapping[str, object]], Mapping[str, object]]
) -> tuple[Endpoint, ...]:
    """*endpoints* of another dialect for one whose error objects look otherwise.

    :param convert: turns this dialect's error object into the one that the stream forms, and so
        the clients that read such streams, expect within a stream.
    """

    def form_for(form: StreamForm) -> StreamForm:
        error = form.error
        if error is None:
            return form
        return replace(form, error=lambda value: error(convert(value)))

    return tuple(replace(endpoint, forms=tuple(map(form_for, endpoint.forms))) for endpoint in endpoints)


def counted(endpoints: Iterable[Endpoint], convert: Callable[[Usage], Usage]) -> tuple[Endpoint, ...]:
    """*endpoints* of another provider for one that tells more of usage than that one."""
    return tuple(one if one.usage is None else replace(one, usage=convert(one.usage)) for one in endpoints)


def path(pattern: str) -> re.Pattern[bytes]:
    """A pattern over raw paths.  Anchor with ``^`` and ``$`` as needed."""
    return re.compile(pattern.encode())


def edge_page(status: int, reason: str) -> str:
    """The plain page that an edge server in front of an API shows."""
    return (
        f"<html>\r\n<head><title>{status} {reason}</title></head>\r\n"
        f"<body>\r\n<center><h1>{status} {reason}</h1></center>\r\n</body>\r\n</html>\r\n"
    )


def retry_after_fields(context: ErrorContext) -> list[tuple[bytes, bytes]]:
    """``retry-after`` in whole seconds (rounded up), when the operator asked for one.

    A fraction is told exactly in ``retry-after-ms`` beside it, as OpenAI's and Anthropic's
    clients read that field first.
    """
    seconds = context.retry_after
    if seconds is None:
        return []
    whole = -int(-seconds // 1)
    fields = [(b"retry-after", b"%d" % whole)]
    if whole != seconds:
        fields.insert(0, (b"retry-after-ms", b"%d" % round(seconds * 1000)))
    return fields
