"""The floor: bytes from one connection to another in Python, with no idea of HTTP."""

from __future__ import annotations

import argparse
import asyncio


class End(asyncio.Protocol):
    """One of the two ends."""

    other: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.close()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.resume_reading()


class Accepted(End):
    """The client's end: it reads when the upstream's end is there."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, far = await loop.create_connection(End, "127.0.0.1", self._upstream)
        self.other, far.other = far.transport, self.transport
        if self._early:
            self.other.write(self._early)
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        # Some versions of asyncio begin to read although they were told not to.
        if self.other is None:
            self._early += data
        else:
            self.other.write(data)


async def serve(port: int, upstream: int) -> None:
    """Listen until the process is ended."""
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Accepted(upstream), "127.0.0.1", port, backlog=4096)
    await asyncio.Event().wait()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--upstream", type=int, required=True, help="port of the upstream")
    chosen = options.parse_args()
    asyncio.run(serve(chosen.port, chosen.upstream))
