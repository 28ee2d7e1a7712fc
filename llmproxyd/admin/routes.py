"""The table of the admin API: what is answered where, and the description of it.

The resource walks this table, and :mod:`llmproxyd.admin.openapi` writes it out; nothing is said twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmproxyd.admin.operations import Operations
from llmproxyd.control.accessforms import MOMENT
from llmproxyd.control.caches import Caches
from llmproxyd.control.calls import Caller
from llmproxyd.control.forms import Choice, Form, Kind, Text, Whole
from llmproxyd.control.ledger import MOST, PAGE
from llmproxyd.control.probes import Probes
from llmproxyd.control.projects import MONTH, Projects
from llmproxyd.control.switches import Switches
from llmproxyd.control.verdictverbs import Verdicts

BASE = "/admin/v1"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, read.

    :param path: the names in the path, decoded.
    :param query: as the route's form reads it, as is *body*, which is the value as it came.
    """

    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Page:
    """An answer that is no JSON.

    :param media: its type.
    """

    body: bytes
    media: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation.

    :param path: below :data:`BASE`; a part in braces takes a name.
    :param name: of the operation.
    :param handle: does it; a value, or a Deferred of one.
    :param answer: name of the schema of a good answer; ``None`` where it is a :class:`Page` of text.
    :param status: of a good answer.
    :param body: what is taken; the verb itself reads it.
    :param body_optional: it may be left out.
    """

    method: str
    path: str
    name: str
    summary: str
    handle: Callable[[Call], object]
    answer: str | None
    status: int = 200
    query: Form = field(default_factory=lambda: Form({}))
    body: Form | None = None
    body_optional: bool = False

    @property
    def parts(self) -> list[str]:
        """The path, part by part."""
        return self.path[1:].split("/")


_LIMIT = Whole(1, MOST)
_CURSOR = Text("the id of an item of the list", "[A-Za-z0-9_-]{1,64}", 64)
_TEST = Text("the name of a test", r"[^\x00-\x1f\x7f-\x9f]{1,128}", 128)
_YES = Choice(("true", "false"))
_PAGE: dict[str, Kind] = {"limit": _LIMIT, "after": _CURSOR}
_PROJECT = Text(
    "id or name of a project",
    r"[^\x00-\x20\x7f-\xa0](?:[^\x00-\x1f\x7f-\xa0]{0,98}[^\x00-\x20\x7f-\xa0])?",
    100,
)

OFF: Mapping[str, tuple[str, str]] = {
    "projects": ("access_disabled", "Access is off here; access.enabled: true switches it on."),
    "tokens": ("access_disabled", "Access is off here; access.enabled: true switches it on."),
    "usage": ("access_disabled", "Access is off here; access.enabled: true switches it on."),
    "key": ("access_disabled", "Access is off here; access.enabled: true switches it on."),
    "cache": ("cache_disabled", "The cache is off here; cache.enabled: true switches it on."),
    "upstreams": ("test_unavailable", "Upstreams cannot be tested here."),
    "requests": ("journal_unavailable", "No journal of requests is kept here."),
    "metrics": ("metrics_disabled", "Metrics are off here; metrics.enabled: true switches them on."),
    "verdicts": ("verdicts_unavailable", "Clients are not watched here."),
    "errors": ("error_log_disabled", "There is no error log here."),
}
"""What is said of paths that stand for something that is off, by their first part."""


def routes(operations: Operations, document: Callable[[], object]) -> list[Route]:
    """The operations that there are.

    :param document: makes the description of them.
    """
    found = [
        Route(
            method="GET",
            path="/openapi.json",
            name="getDescription",
            summary="This description",
            handle=lambda call: document(),
            answer="Anything",
        ),
        Route(
            method="GET",
            path="/status",
            name="getStatus",
            summary="How everything stands",
            handle=lambda call: operations.status.show(),
            answer="Anything",
        ),
        Route(
            method="GET",
            path="/config",
            name="getConfig",
            summary="The configuration in force, secrets redacted",
            handle=lambda call: operations.config(),
            answer="Anything",
        ),
        *_switches(operations.switches),
    ]
    if operations.projects is not None:
        found += [*_projects(operations.projects), *_tokens(operations.projects)]
        found += _usage(operations.projects)
    if operations.caches is not None:
        found += _caches(operations.caches)
    if operations.probes is not None:
        found += _probes(operations.probes)
    if (requests := operations.requests) is not None:
        last = Route(
            method="GET",
            path="/requests",
            name="listRequests",
            summary="The last requests, the newest first",
            query=Form({"limit": _LIMIT}),
            handle=lambda call: {"requests": list(requests(call.query.get("limit", PAGE)))},
            answer="Requests",
        )
        found.append(last)
    if operations.verdicts is not None:
        found += _verdicts(operations.verdicts)
    return [*found, *_watched(operations)]


def _watched(operations: Operations) -> Iterator[Route]:
    if (metrics := operations.metrics) is not None:
        yield Route(
            method="GET",
            path="/metrics",
            name="getMetrics",
            summary="The page that Prometheus reads",
            handle=lambda call: Page(*metrics()),
            answer=None,
        )
    if (errors := operations.errors) is not None:
        yield Route(
            method="GET",
            path="/errors",
            name="getErrors",
            summary="What the error log holds, summed up",
            handle=lambda call: errors(),
            answer="Anything",
        )


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
        query=Form({"by": Choice(("project", "token", "model")), "since": MOMENT, "limit": _LIMIT}),
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


def _caches(caches: Caches) -> Iterator[Route]:
    yield Route(
        method="GET",
        path="/cache",
        name="getCache",
        summary="What the cache holds",
        handle=lambda call: caches.stats(),
        answer="Anything",
    )
    yield Route(
        method="POST",
        path="/cache/purge",
        name="purgeCache",
        summary="Forget a URL, all below a prefix, all of a project, or everything",
        body=caches.form,
        handle=lambda call: caches.purge(call.caller, call.body),
        answer="Purged",
    )


def _switches(switches: Switches) -> Iterator[Route]:
    yield Route(
        method="GET",
        path="/breakers",
        name="listBreakers",
        summary="The circuit breakers that have been needed so far",
        handle=lambda call: switches.breakers(),
        answer="Breakers",
    )
    yield Route(
        method="POST",
        path="/breakers",
        name="switchBreaker",
        summary="Open or close one breaker",
        body=switches.breaker_form,
        handle=lambda call: switches.switch_breaker(call.caller, call.body),
        answer="Breakers",
    )
    yield Route(
        method="GET",
        path="/faults",
        name="getFaults",
        summary="The faults at work",
        handle=lambda call: switches.faults(),
        answer="Faults",
    )
    yield Route(
        method="POST",
        path="/faults",
        name="runCommand",
        summary="Do what a line of the operator's language says",
        body=switches.command_form,
        handle=lambda call: switches.run(call.caller, call.body),
        answer="Commanded",
    )


def _verdicts(verdicts: Verdicts) -> Iterator[Route]:
    yield Route(
        method="GET",
        path="/verdicts",
        name="listVerdicts",
        summary="What clients did wrong after a failure; over=true adds what there would be to say if none "
        "of them came back any more",
        query=Form({"test": _TEST, "over": _YES}),
        handle=lambda call: verdicts.list(call.query.get("test"), over=call.query.get("over") == "true"),
        answer="Verdicts",
    )
    yield Route(
        method="DELETE",
        path="/verdicts",
        name="clearVerdicts",
        summary="Forget the verdicts, and what the next ones would rest on",
        handle=lambda call: verdicts.clear(call.caller),
        answer="VerdictsCleared",
    )


def _probes(probes: Probes) -> Iterator[Route]:
    yield Route(
        method="POST",
        path="/upstreams/{upstream}/test",
        name="testUpstream",
        summary="One cheap call to an upstream: what was sent, what came, the verdict",
        handle=lambda call: probes.test(call.path["upstream"]),
        answer="Tested",
    )
