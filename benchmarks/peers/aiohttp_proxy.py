"""A proxy with aiohttp's server and client, as somebody would write it who knows aiohttp.

The low-level server (no routing), one session with its pool, bodies streamed both ways; small
bodies are passed in one piece, which is aiohttp's fastest way.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
SMALL = 1 << 16


def end_to_end(fields: CIMultiDictProxy[str], *also: str) -> CIMultiDict[str]:
    """Only those that are not for this connection, and none of *also*."""
    named = {name.strip().lower() for value in fields.getall("connection", ()) for name in value.split(",")}
    left_out = HOP | named.union(also)
    return CIMultiDict((name, value) for name, value in fields.items() if name.lower() not in left_out)


class Proxy:
    """Sends everything to *base*."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self._base = base
        self._session = session

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Forward one request."""
        body: object = None
        if request.body_exists:
            length = request.content_length
            body = await request.read() if length is not None and length <= SMALL else request.content
        async with self._session.request(
            request.method,
            URL(self._base + request.raw_path, encoded=True),
            headers=end_to_end(request.headers, "host"),
            data=body,
            allow_redirects=False,
        ) as upstream:
            headers = end_to_end(upstream.headers)
            length = upstream.content_length
            if length is not None and length <= SMALL:
                small = await upstream.read()
                return web.Response(
                    status=upstream.status, reason=upstream.reason, headers=headers, body=small
                )
            response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=headers)
            await response.prepare(request)
            async for piece in upstream.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response


async def serve(port: int, base: str, ca_file: str | None) -> None:
    """Listen until the process is ended."""
    context = ssl.create_default_context(cafile=ca_file) if ca_file else True
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        auto_decompress=False,
    ) as session:
        server = web.Server(Proxy(base, session).handle, access_log=None)
        runner = web.ServerRunner(server)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--base", required=True, help="base URL of the upstream")
    options.add_argument("--ca-file", help="PEM certificates to trust")
    chosen = options.parse_args()
    asyncio.run(serve(chosen.port, chosen.base, chosen.ca_file))
