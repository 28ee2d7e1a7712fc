"""The description of the admin API, OpenAPI 3.1, written out from its table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from llmproxyd.admin.route import BASE, Route
from llmproxyd.admin.schemas import ANSWERS, TEXT, named

DESCRIPTION = """\
What an operator can do, over HTTP.  Over a Unix socket the user who runs the daemon, and root, are let
in; elsewhere a bearer token is asked for: admin.token, or a project's token with the scope "admin".
Every change is on record in the audit log before it is made.  Errors are
{"error": {"code", "message"}}, with the list "problems" where a body or a query has some."""

_WHY = {
    400: "The request cannot be meant",
    401: "No token, or none that is known",
    403: "It may not be done with this token, or not by a web page",
    404: "There is no such thing",
    409: "It cannot be done as things stand",
    413: "The body is too long",
    415: "The body is not application/json",
    429: "Too many wrong tokens from this address",
    503: "The audit log or the store does not answer, and nothing has changed",
}


def describe(table: Iterable[Route], version: str) -> dict[str, Any]:
    """The document for the operations of *table*.

    :param version: of this program.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    failure = {"application/json": {"schema": named("Error")}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "llmproxyd admin API", "version": version, "description": DESCRIPTION},
        "servers": [{"url": BASE}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": dict(ANSWERS),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "responses": {
                f"E{status}": {"description": why, "content": failure} for status, why in _WHY.items()
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    content: dict[str, Any] = {"text/plain": {"schema": TEXT}}
    if route.answer is not None:
        content = {"application/json": {"schema": named(route.answer)}}
    good = {"description": route.summary, "content": content}
    told: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [*_in_path(route), *_in_query(route)],
        "responses": {
            str(route.status): good,
            **{str(status): {"$ref": f"#/components/responses/E{status}"} for status in _WHY},
        },
    }
    if route.body is not None:
        content = {"application/json": {"schema": route.body.schema()}}
        told["requestBody"] = {"required": not route.body_optional, "content": content}
    return told


def _in_path(route: Route) -> list[dict[str, Any]]:
    schema = {**TEXT, "minLength": 1, "description": "id or name"}
    return [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]


def _in_query(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": name in route.query.required, "schema": kind.schema()}
        for name, kind in route.query.members.items()
    ]
