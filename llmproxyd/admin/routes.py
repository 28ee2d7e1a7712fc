"""The table of the admin API: what is answered where, and the description of it.

The resource walks this table, and :mod:`llmproxyd.admin.openapi` writes it out; nothing is said twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from llmproxyd.admin.accessroutes import access_routes
from llmproxyd.admin.operations import Operations
from llmproxyd.admin.route import LIMIT, Page, Route
from llmproxyd.control.caches import Caches
from llmproxyd.control.forms import Choice, Form, Text
from llmproxyd.control.ledger import PAGE
from llmproxyd.control.probes import Probes
from llmproxyd.control.switches import Switches
from llmproxyd.control.verdictverbs import Verdicts

_TEST = Text("the name of a test", r"[^\x00-\x1f\x7f-\x9f]{1,128}", 128)
_YES = Choice(("true", "false"))

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
        found += access_routes(operations.projects)
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
            query=Form({"limit": LIMIT}),
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
