"""From an HTTP request to a verb, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web import server
from twisted.web.http import Request
from twisted.web.resource import Resource

from llmproxyd.admin.gate import Gate
from llmproxyd.admin.openapi import describe
from llmproxyd.admin.operations import Operations
from llmproxyd.admin.reading import body_of, names_in, query_of, split_target
from llmproxyd.admin.route import BASE, Call, Page, Route
from llmproxyd.admin.routes import OFF, routes
from llmproxyd.config.problems import did_you_mean
from llmproxyd.control.calls import Caller
from llmproxyd.control.wrong import Invalid
from llmproxyd.errors import Refused


class AdminResource(Resource):
    """All of the admin API.

    :param gate: lets callers in.
    """

    isLeaf = True
    log = Logger()

    def __init__(self, operations: Operations, gate: Gate) -> None:
        super().__init__()
        self._gate = gate
        self._version = version("llmproxyd")
        self._routes = routes(operations, self.document)

    def document(self) -> dict[str, Any]:
        """The description of what there is, OpenAPI 3.1."""
        return describe(self._routes, self._version)

    def render(self, request: Request) -> int:
        """Answer *request* when its verb is through; it goes on when the client has left."""
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        Deferred.fromCoroutine(self._answer(request)).addCallback(_write, request, gone)
        return server.NOT_DONE_YET

    async def _answer(self, request: Request) -> tuple[int, Mapping[bytes, bytes], object]:
        try:
            caller = await self._gate.caller(request)
            return await self._done(request, caller)
        except Refused as error:
            told: dict[str, object] = {"code": error.code, "message": error.message}
            if isinstance(error, Invalid):
                told["problems"] = [
                    {"pointer": one.pointer, "found": one.found, "accepted": one.accepted}
                    for one in error.wrong
                ]
            return error.status, dict(error.headers), {"error": told}
        except Exception:
            self.log.failure("a call of the admin API failed")
            message = "The call failed; the daemon's log says why."
            return 500, {}, {"error": {"code": "internal_error", "message": message}}

    async def _done(self, request: Request, caller: Caller) -> tuple[int, Mapping[bytes, bytes], object]:
        path, query = split_target(request.uri)
        route, names = self._found(request.method.decode("latin-1"), path)
        asked = query_of(route, query)
        result = route.handle(Call(caller, names, asked, body_of(route, request)))
        if isinstance(result, Deferred):
            result = await result
        return route.status, {}, result

    def _found(self, method: str, path: bytes) -> tuple[Route, dict[str, str]]:
        """The route for *path* (raw), and the names in it.

        :raises Refused: 404, or 405 with ``Allow``.
        """
        parts = names_in(path)
        here = [route for route in self._routes if _fits(route, parts)]
        if not here:
            raise self._missing(parts)
        wanted = "GET" if method == "HEAD" else method
        for route in here:
            if route.method == wanted:
                named = zip(route.parts, parts, strict=True)
                return route, {part[1:-1]: name for part, name in named if part.startswith("{")}
        allowed = sorted({*(route.method for route in here), *({"HEAD"} & _head(here))})
        raise Refused(
            405,
            "method_not_allowed",
            f"Here {', '.join(allowed)} can be done.",
            ((b"Allow", ", ".join(allowed).encode()),),
        )

    def _missing(self, parts: list[str]) -> Refused:
        first = parts[0] if parts else ""
        known = sorted({route.parts[0] for route in self._routes})
        if first in OFF and first not in known:
            return Refused(404, *OFF[first])
        hint = did_you_mean(first, known) if first and first not in known else ""
        return Refused(404, "no_such_path", f"There is nothing here{hint}; see {BASE}/openapi.json")


def _head(here: list[Route]) -> set[str]:
    return {"HEAD"} if any(route.method == "GET" for route in here) else set()


def _fits(route: Route, parts: list[str]) -> bool:
    if len(route.parts) != len(parts):
        return False
    return all(
        bool(part) if known.startswith("{") else known == part
        for known, part in zip(route.parts, parts, strict=True)
    )


def _write(answer: tuple[int, Mapping[bytes, bytes], object], request: Request, gone: list[object]) -> None:
    if gone:
        return
    status, fields, told = answer
    if not isinstance(told, Page):
        told = Page(json.dumps(told, default=str).encode() + b"\n", b"application/json")
    body = told.body
    request.setResponseCode(status)
    request.setHeader(b"content-type", told.media)
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"x-content-type-options", b"nosniff")
    request.setHeader(b"content-length", b"%d" % len(body))
    for name, value in fields.items():
        request.setHeader(name, value)
    if status == 413:
        request.setHeader(b"connection", b"close")
    request.write(body)
    request.finish()
