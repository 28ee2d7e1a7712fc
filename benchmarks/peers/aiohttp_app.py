"""A proxy with aiohttp as its documentation teaches it: an application with a route, and streams."""

from __future__ import annotations

import argparse
import asyncio
import ssl

import aiohttp
from aiohttp import web
from aiohttp_proxy import end_to_end
from yarl import URL

SESSION = web.AppKey("session", aiohttp.ClientSession)
BASE = web.AppKey("base", str)


async def handle(request: web.Request) -> web.StreamResponse:
    """Forward one request; both bodies as streams."""
    async with request.app[SESSION].request(
        request.method,
        URL(request.app[BASE] + request.raw_path, encoded=True),
        headers=end_to_end(request.headers, "host"),
        data=request.content if request.body_exists else None,
        allow_redirects=False,
    ) as upstream:
        response = web.StreamResponse(
            status=upstream.status, reason=upstream.reason, headers=end_to_end(upstream.headers)
        )
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
        app = web.Application(client_max_size=2**40)
        app[SESSION], app[BASE] = session, base
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None)
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
