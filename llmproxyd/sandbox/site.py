"""The sandbox as a web site: ``/PROVIDER/CLIENT'S RAW PATH``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import count
from typing import Any
from urllib.parse import parse_qsl

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from llmproxyd.config.schema import SandboxSettings
from llmproxyd.errors import Refused
from llmproxyd.model import RawHeaders
from llmproxyd.providers import openai
from llmproxyd.providers.base import ErrorContext, Provider
from llmproxyd.providers.registry import registry
from llmproxyd.sandbox.fields import fields, identify
from llmproxyd.sandbox.reply import DEFAULT_MODEL
from llmproxyd.sandbox.routes import find
from llmproxyd.sandbox.values import Answer, Ask, Whole
from llmproxyd.sandbox.writer import send
from llmproxyd.wire.head import Limits
from llmproxyd.wire.site import WireSite
from llmproxyd.wire.wheel import Wheel

MAX_BODY = 2**40
"""Bytes of a body: the proxy in front has its own limit."""

IDLE = 120
"""Seconds that an idle connection is kept: longer than a pool of ours keeps one."""


def make_site(clock: IReactorTime, settings: SandboxSettings) -> WireSite:
    """The site of a sandbox with *settings*, paced by *clock*."""
    limits = Limits(max_body=MAX_BODY, idle_timeout=IDLE)
    resource = SandboxResource(clock, settings, registry())
    return WireSite(resource, clock=clock, wall=time.time, wheel=Wheel(clock), limits=limits)


class SandboxResource(Resource):
    """The one resource: every path is a leaf of it.

    :param providers: by name; errors are worded by them.
    """

    isLeaf = True

    def __init__(
        self, clock: IReactorTime, settings: SandboxSettings, providers: Mapping[str, Provider]
    ) -> None:
        super().__init__()
        self._clock = clock
        self._settings = settings
        self._providers = providers
        self._numbers = count(1)

    def render(self, request: Request) -> Any:
        """Answer *request*, now or later."""
        number = next(self._numbers)
        path, _, query = request.uri.partition(b"?")
        first, slash, rest = path[1:].partition(b"/")
        name, path = first.decode("ascii", "replace"), slash + rest
        asked = dict(parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True))
        dialect, operation = name, "unknown"
        head: RawHeaders
        try:
            route, named = find(request.method, name, path)
            dialect, operation = route.speaks or name, route.operation
            ask = Ask(
                name,
                named,
                asked,
                _content(request),
                self._base(request, name),
                self._models(name),
            )
            answer = route.handler(ask)
            head = [*fields(dialect, number), *(answer.headers if isinstance(answer, Whole) else ())]
        except Refused as refused:
            array = operation == "stream" and asked.get("alt") != "sse"
            answer, head = self._error(refused, dialect, operation, number, array)
        self._set_head(request, answer, head)
        send(request, answer, self._settings, self._clock)
        return NOT_DONE_YET

    def _base(self, request: Request, name: str) -> str:
        """The URL under which the client reached the provider *name* here."""
        host = request.getHeader(b"host")
        if not host:
            address = request.getHost()
            host = f"{address.host}:{address.port}".encode()
        return f"http://{host.decode('ascii', 'replace')}/{name}"

    def _models(self, name: str) -> tuple[str, ...]:
        """The models listed for the provider *name*: a plausible one of its own, and ours."""
        provider = self._providers.get(name)
        return (provider.sample_model, DEFAULT_MODEL) if provider else (DEFAULT_MODEL,)

    def _error(
        self, refused: Refused, dialect: str, operation: str, number: int, array: bool
    ) -> tuple[Answer, RawHeaders]:
        """The answer to a request that cannot be met, in the provider's own words."""
        provider = self._providers.get(dialect, openai.PROVIDER)
        context = ErrorContext(
            kind=None,
            operation=operation,
            model=provider.sample_model,
            request_id=identify(number),
            wall=self._clock.seconds(),
            array=array,
        )
        spec = provider.dialect.local(refused.status, refused.code, refused.message)
        reply = provider.error(spec, context)
        head = [*reply.headers, *refused.headers]
        types = [value for key, value in head if key == b"content-type"]
        rest = [field for field in head if field[0] != b"content-type"]
        return Whole(reply.body, types[0], reply.status), rest

    @staticmethod
    def _set_head(request: Request, answer: Answer, head: RawHeaders) -> None:
        request.setResponseCode(answer.status if isinstance(answer, Whole) else 200)
        request.responseHeaders.removeHeader(b"server")
        request.setHeader(b"content-type", answer.content_type)
        for key, value in head:
            request.responseHeaders.addRawHeader(key, value)


def _content(request: Request) -> bytes:
    """The whole body; the request was given a file for it when its head was read."""
    return request.content.read() if request.content is not None else b""
