"""What is answered about projects, tokens, what was used, and the key that credentials are encrypted with."""

from __future__ import annotations

from collections.abc import Iterator

from llmproxyd.admin.route import LIMIT, Route
from llmproxyd.control.accessforms import MOMENT
from llmproxyd.control.forms import Choice, Form, Kind, Text
from llmproxyd.control.ledger import PAGE
from llmproxyd.control.projects import MONTH, Projects

_CURSOR = Text("the id of an item of the list", "[A-Za-z0-9_-]{1,64}", 64)
_PAGE: dict[str, Kind] = {"limit": LIMIT, "after": _CURSOR}
_PROJECT = Text(
    "id or name of a project",
    r"[^\x00-\x20\x7f-\xa0](?:[^\x00-\x1f\x7f-\xa0]{0,98}[^\x00-\x20\x7f-\xa0])?",
    100,
)


def access_routes(projects: Projects) -> Iterator[Route]:
    """All of them."""
    yield from _projects(projects)
    yield from _tokens(projects)
    yield from _usage(projects)


def _projects(projects: Projects) -> Iterator[Route]:
    forms = projects.forms
    yield Route(
        method="GET",
        path="/projects",
        name="listProjects",
        summary="Projects, by name",
        query=Form(_PAGE),
        handle=lambda call: projects.list(call.query.get("limit", PAGE), call.query.get("after")),
        answer="Projects",
    )
    yield Route(
        method="POST",
        path="/projects",
        name="createProject",
        summary="Make a project",
        body=forms.project,
        handle=lambda call: projects.create(call.caller, call.body),
        answer="Project",
        status=201,
    )
    yield Route(
        method="GET",
        path="/projects/{project}",
        name="getProject",
        summary="One project",
        handle=lambda call: projects.show(call.path["project"]),
        answer="Project",
    )
    yield Route(
        method="PATCH",
        path="/projects/{project}",
        name="updateProject",
        summary="Change what is given and keep the rest (JSON merge patch, RFC 7396)",
        body=forms.project_change,
        handle=lambda call: projects.update(call.caller, call.path["project"], call.body),
        answer="Project",
    )
    yield Route(
        method="DELETE",
        path="/projects/{project}",
        name="deleteProject",
        summary="Take a project away, with its tokens and credentials",
        handle=lambda call: projects.delete(call.caller, call.path["project"]),
        answer="ProjectDeleted",
    )
    yield Route(
        method="POST",
        path="/projects/{project}/rotate",
        name="rotateCredentials",
        summary="Replace credentials that are there already",
        body=forms.credentials,
        handle=lambda call: projects.rotate(call.caller, call.path["project"], call.body),
        answer="Project",
    )


def _tokens(projects: Projects) -> Iterator[Route]:
    forms, tokens = projects.forms, projects.tokens
    yield Route(
        method="GET",
        path="/tokens",
        name="listTokens",
        summary="Tokens, the newest first",
        query=Form({"project": _PROJECT, **_PAGE}),
        handle=lambda call: tokens.list(
            call.query.get("project"), call.query.get("limit", PAGE), call.query.get("after")
        ),
        answer="Tokens",
    )
    yield Route(
        method="POST",
        path="/tokens",
        name="createToken",
        summary="Make a token; it is told once, in this answer",
        body=forms.token,
        handle=lambda call: tokens.create(call.caller, call.body),
        answer="TokenMade",
        status=201,
    )
    yield Route(
        method="GET",
        path="/tokens/{token}",
        name="getToken",
        summary="One token",
        handle=lambda call: tokens.show(call.path["token"]),
        answer="Token",
    )
    yield Route(
        method="PATCH",
        path="/tokens/{token}",
        name="updateToken",
        summary="Change what is given and keep the rest (JSON merge patch, RFC 7396)",
        body=forms.token_change,
        handle=lambda call: tokens.update(call.caller, call.path["token"], call.body),
        answer="Token",
    )
    yield Route(
        method="DELETE",
        path="/tokens/{token}",
        name="deleteToken",
        summary="Take a token away",
        handle=lambda call: tokens.delete(call.caller, call.path["token"]),
        answer="TokenDeleted",
    )
    yield Route(
        method="POST",
        path="/tokens/{token}/rotate",
        name="rotateToken",
        summary="Give a token a new secret; with grace, the old one works for a while still",
        body=forms.token_rotation,
        body_optional=True,
        handle=lambda call: tokens.rotate(call.caller, call.path["token"], call.body),
        answer="TokenMade",
    )
    yield Route(
        method="POST",
        path="/tokens/{token}/revoke",
        name="revokeToken",
        summary="Refuse a token: inactive and expired; it stays on record",
        handle=lambda call: tokens.revoke(call.caller, call.path["token"]),
        answer="Token",
    )


def _usage(projects: Projects) -> Iterator[Route]:
    yield Route(
        method="GET",
        path="/usage",
        name="getUsage",
        summary="What was used, the most first",
        query=Form({"by": Choice(("project", "token", "model")), "since": MOMENT, "limit": LIMIT}),
        handle=lambda call: projects.usage(
            call.query.get("by", "project"), call.query.get("since", MONTH), call.query.get("limit", PAGE)
        ),
        answer="Usage",
    )
    yield Route(
        method="POST",
        path="/key/rotate",
        name="rotateKey",
        summary="Encrypt all credentials under another access.secret_key",
        body=projects.forms.key,
        handle=lambda call: projects.rotate_key(call.caller, call.body),
        answer="KeyRotated",
    )
