"""The upstream of all peers: a stand-in for a provider that is far faster than any proxy.

``POST /v1/chat/completions`` answers JSON of the size that was asked for, or an endless stream of
events at the pace that was asked for; ``GET /v1/files/bytes-N/content`` sends N bytes; ``POST
/v1/files`` reads whatever comes; ``GET /stats`` tells how many connections there were.
Requests must have a Content-Length; that is checked, the rest is not.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import re
import ssl
import time
from collections import deque

from shapes import EVENT_CHUNK, FILE_HEAD, STREAM_HEAD, chat_answer, json_answer, varied, varying

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
WISH = re.compile(rb'"user": ?"(json|sse)=(\d+)"')
FILE = re.compile(rb"GET /v1/files/bytes-(\d+)/content ")
BLOCK = memoryview(bytes(range(256)) * 1024)
TICK = 0.001
"""Seconds between two rounds of the pacer."""

counts = {"connections": 0, "requests": 0}
answers: dict[bytes, bytes] = {}


class Pacer:
    """Gives the streams of one pace their events in turn, spread evenly over time.

    :param pace: events a second for each stream.
    """

    def __init__(self, pace: int) -> None:
        self._pace = pace
        self._ring: deque[Upstream] = deque()
        self._due = 0.0
        self._then = 0.0

    def add(self, stream: Upstream) -> None:
        """Feed *stream* from now on."""
        self._ring.append(stream)
        if len(self._ring) == 1:
            self._then = time.monotonic()
            self._due = 0.0
            self._tick()

    def remove(self, stream: Upstream) -> None:
        """Feed it no more."""
        self._ring.remove(stream)

    def _tick(self) -> None:
        ring = self._ring
        if not ring:
            return
        asyncio.get_running_loop().call_later(TICK, self._tick)
        now = time.monotonic()
        self._due += (now - self._then) * self._pace * len(ring)
        self._then = now
        # Who falls behind does not send all of it later.
        number = min(int(self._due), max(len(ring), 500))
        self._due = min(self._due - number, float(number))
        for _ in range(number):
            stream = ring[0]
            ring.rotate(-1)
            if not stream.paused:
                stream.write(EVENT_CHUNK % time.monotonic_ns())


pacers: dict[int, Pacer] = {}


class Upstream(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.paused = False
        self._buffer = b""
        self._swallow = 0
        self._swallowed = 0
        self._to_send = 0
        self._pacer: Pacer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        counts["connections"] += 1
        self._transport = transport
        self.write = transport.write
        transport.set_write_buffer_limits(high=1 << 20)

    def connection_lost(self, exc: Exception | None) -> None:
        self._to_send = 0
        self.paused = True
        if self._pacer is not None:
            self._pacer.remove(self)

    def data_received(self, data: bytes) -> None:
        if self._swallow:
            data = self._upload(data)
        buffer = self._buffer + data if self._buffer else data
        while buffer and not self._swallow:
            end = buffer.find(b"\r\n\r\n") + 4
            if end < 4:
                break
            length = self._length(buffer[:end])
            if buffer.startswith(b"POST /v1/files "):
                self._swallow = self._swallowed = length
                buffer = self._upload(buffer[end:])
                continue
            if len(buffer) < end + length:
                break
            self._answer(buffer[:end], buffer[end : end + length])
            buffer = buffer[end + length :]
        self._buffer = buffer

    def _length(self, head: bytes) -> int:
        found = LENGTH.search(head)
        if found is None and head.startswith(b"POST"):
            self.write(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self._transport.close()
        return 0 if found is None else int(found[1])

    def _upload(self, data: bytes) -> bytes:
        """Swallow a piece; what is left belongs to the next request."""
        taken = min(self._swallow, len(data))
        self._swallow -= taken
        if self._swallow == 0:
            self.write(json_answer(b'{"bytes": %d}' % self._swallowed))
        return data[taken:]

    def _answer(self, head: bytes, body: bytes) -> None:
        counts["requests"] += 1
        known = answers.get(body[:32])
        if known is not None:
            self.write(varied(known, counts["requests"]))
        elif wish := WISH.search(body[:64]) or WISH.search(body):
            number = int(wish[2])
            if wish[1] == b"sse":
                self._stream(number)
                return
            answer = varying(chat_answer(number))
            if wish.end() <= 32:  # not where a proxy has written the body anew, in an order of its own
                answers[body[:32]] = answer
            self.write(varied(answer, counts["requests"]))
        elif file := FILE.match(head):
            self._to_send = int(file[1])
            self.write(FILE_HEAD % self._to_send)
            self.resume_writing()
        elif head.startswith(b"GET /stats "):
            self.write(json_answer(json.dumps(counts).encode()))
        else:
            self.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def _stream(self, pace: int) -> None:
        self.write(STREAM_HEAD + EVENT_CHUNK % time.monotonic_ns())
        self._pacer = pacers.setdefault(pace, Pacer(pace))
        self._pacer.add(self)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        while self._to_send and not self.paused:
            block = BLOCK[: self._to_send]
            self._to_send -= len(block)
            self.write(block)


async def serve(port: int, tls_port: int, certificate: str | None) -> None:
    """Listen until the process is ended."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Upstream, "127.0.0.1", port, backlog=4096)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        await loop.create_server(Upstream, "127.0.0.1", tls_port, ssl=context, backlog=4096)
    # Clients that go away in the middle of a stream are what is wanted here.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000)
    await asyncio.Event().wait()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--tls-port", type=int, default=0)
    options.add_argument("--certificate", help="PEM file with a certificate and its key, for --tls-port")
    chosen = options.parse_args()
    asyncio.run(serve(chosen.port, chosen.tls_port, chosen.certificate))
