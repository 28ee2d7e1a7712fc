"""A proxy with FastAPI and httpx, as it is written everywhere: one route, one client, streams as streams.

One worker of uvicorn with what ``uvicorn[standard]`` brings (uvloop, httptools).
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

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
METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]


def end_to_end(fields: Iterable[tuple[str, str]], *also: str) -> dict[str, str]:
    """Only those that are not for this connection, and none of *also*."""
    left_out = HOP.union(also)
    return {name: value for name, value in fields if name.lower() not in left_out}


def application(base: str) -> FastAPI:
    """An application that sends everything to *base*."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # trust_env off: no proxy of this machine comes between; the pool is httpx's own.
        async with httpx.AsyncClient(base_url=base, timeout=600, trust_env=False) as client:
            app.state.client = client
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.api_route("/{path:path}", methods=METHODS)
    async def proxy(request: Request, path: str) -> Response:
        client: httpx.AsyncClient = request.app.state.client
        sent = client.build_request(
            request.method,
            httpx.URL(path=request.url.path, query=request.url.query.encode()),
            headers=end_to_end(request.headers.items(), "host", "content-length"),
            content=await request.body(),
        )
        answer = await client.send(sent, stream=True)
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return StreamingResponse(
                answer.aiter_raw(),
                status_code=answer.status_code,
                headers=end_to_end(answer.headers.items()),
                background=BackgroundTask(answer.aclose),
            )
        # httpx has decoded the body.
        body = await answer.aread()
        headers = end_to_end(answer.headers.items(), "content-encoding", "content-length")
        return Response(body, status_code=answer.status_code, headers=headers)

    return app


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--base", required=True, help="base URL of the upstream")
    chosen = options.parse_args()
    uvicorn.run(
        application(chosen.base),
        host="127.0.0.1",
        port=chosen.port,
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        backlog=4096,
    )
