"""What the tests of faults in streams share: answers to break, and rules that break them."""

from __future__ import annotations

import gzip
from typing import Any

from wireclient import request, until

from llmproxyd.faults.rules import Always, At, FaultKind, Manner, Rule, Side, Spot, When
from llmproxyd.model import Finished
from llmproxyd.testing.proxy import ProxyUnderTest
from llmproxyd.testing.upstream import LAST_CHUNK, Action, Send, chunk, event, json_answer, stream_head

ALWAYS = Always()
CHAT = b"/v1/chat/completions"
ASK = request(CHAT)


def content(word: bytes) -> bytes:
    """An event of OpenAI's chat with something said in it."""
    return event(b'{"choices":[{"index":0,"delta":{"content":"%s"}}]}' % word)


ROLE = event(b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}')
STOP = event(b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}')
DONE = event(b"[DONE]")
WORDS = [content(word) for word in (b"one", b"two", b"three", b"four")]
EVENTS = [ROLE, *WORDS, STOP, DONE]
STREAM = b"".join(EVENTS)
WHOLE_STREAM: list[Action] = [
    Send(stream_head()),
    *(Send(chunk(one)) for one in EVENTS),
    Send(LAST_CHUNK),
]
IN_ONE_WRITE: list[Action] = [Send(stream_head() + b"".join(map(chunk, EVENTS)) + LAST_CHUNK)]
BODY = {"id": "x", "choices": [{"message": {"content": "Hello there"}}], "usage": {"total_tokens": 3}}
JSON = Send(json_answer(BODY))


def zipped(*fields: bytes, times: int = 1) -> list[Action]:
    """The stream in gzip."""
    data = gzip.compress(STREAM * times)
    head = stream_head(b"text/event-stream", b"content-encoding: gzip", *fields)
    return [Send(head + chunk(data) + LAST_CHUNK)]


def rule(kind: FaultKind, when: When = ALWAYS, *, side: Side = Side.CLIENT, **manner: Any) -> Rule:
    """A rule for every request."""
    at = manner.pop("at", None)
    number = manner.pop("number", 0.0)
    place = None if at is None else At(Spot(at), number)
    seconds = manner.pop("retry_after", None)
    manners = Manner(at=place, **manner)
    return Rule(name="mode", kind=kind, when=when, side=side, retry_after=seconds, manner=manners)


def set_fault(proxy: ProxyUnderTest, kind: FaultKind | None, when: When = ALWAYS, **more: Any) -> None:
    """Make it the operator's mode."""
    engine = proxy.daemon.works.engine
    engine.set_mode(None if kind is None else rule(kind, when, **more))


async def finished(proxy: ProxyUnderTest) -> Finished:
    """How the one request ended."""
    await until(lambda: proxy.finished and not proxy.daemon.pipeline.active, "the end of the request")
    (one,) = proxy.finished
    return one
