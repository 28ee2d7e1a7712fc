"""What operators can do, wired to what it is done with, and the listener that administrators reach it on."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from twisted.internet.threads import deferToThreadPool

from llmproxyd.admin import socket
from llmproxyd.admin.operations import Operations
from llmproxyd.admin.site import make_admin
from llmproxyd.assembly import Assembly
from llmproxyd.config.dump import dumped
from llmproxyd.config.scenariofile import folder_of
from llmproxyd.control.caches import Caches
from llmproxyd.control.means import Means, Reloads, SetLevel
from llmproxyd.control.probes import Probes
from llmproxyd.control.projects import Projects
from llmproxyd.control.status import Status
from llmproxyd.control.switches import Switches
from llmproxyd.control.verbs import Control
from llmproxyd.control.verdictverbs import Verdicts
from llmproxyd.listen import Listening, StartError, listen
from llmproxyd.observe.requestlog import NAMESPACE as REQUESTS
from llmproxyd.pipeline.places import Places
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.pipeline.probe import Prober
from llmproxyd.store.doorkeeper import Doorkeeper


def control_of(works: Assembly, means: Means, *, quit: Callable[[], None], symbols: bool) -> Control:
    """What operators can do, on every console and over the admin API.

    :param means: from :func:`means_of`.
    :param quit: stops the daemon gracefully.
    :param symbols: whether the console at standard output shows them.
    """
    config = works.config
    return Control(
        works.engine,
        emit=works.sink.emit,
        monotonic=works.reactor.seconds,
        upstreams=works.upstreams,
        breakers=works.live.breakers,
        handled=lambda: works.pipeline.handled,
        quit=quit,
        draw_seed=lambda: secrets.randbelow(10**6),
        seed=config.faults.seed,
        allowed=config.operator.faults,
        symbols=symbols,
        folder=folder_of(config),
        forget_after=config.faults.forget_after,
        record=works.gateway.audit.record,
        means=means,
    )


def means_of(
    works: Assembly,
    state: Callable[[], Mapping[str, object]],
    *,
    reloads: Reloads | None,
    connections: Callable[[], Sequence[Mapping[str, object]]],
    set_level: SetLevel | None,
    why_not_ready: Callable[[], str | None],
) -> Means:
    """What the verbs of operators work on.

    :param state: the members of the status that stand at its top.
    :param why_not_ready: why no request should come now; ``None`` where it may.
    """
    config, gateway, upstreams = works.config, works.gateway, works.upstreams
    audit = gateway.audit.record
    projects = None
    if gateway.store is not None:
        projects = Projects(
            gateway.store,
            door_changed=gateway.door.changed if isinstance(gateway.door, Doorkeeper) else _nobody,
            audit=audit,
            wall=time.time,
            random_bytes=os.urandom,
            upstreams=upstreams,
        )
    caches = None
    shelf = works.pipeline.shelf
    if gateway.cache is not None and shelf is not None:
        caches = Caches(
            gateway.cache,
            stats=shelf.stats,
            purge=shelf.purge,
            audit=audit,
            upstreams=_BaseURLs(upstreams),
            project=None if projects is None else projects.id_of,
        )
    prober = Prober(upstreams, works.sender, works.reactor, works.redactor, works.reactor.seconds)
    return Means(
        status=Status(
            state,
            {
                "serving": lambda: _serving(works, why_not_ready()),
                "gateway": gateway.state,
                "upstreams": works.live.report,
                "journal": works.journal.state,
            },
        ),
        journal=works.journal if config.journal.requests else None,
        watch=works.watch,
        reloads=reloads,
        scenarios=works.scenarios,
        places=Places(upstreams, works.pipeline, works.live.drained, works.targets.status),
        caches=caches,
        projects=projects,
        probes=Probes(prober.probe, upstreams),
        config=lambda: dumped(works.config),
        connections=connections,
        set_level=set_level,
        namespaces=lambda: ("llmproxyd", REQUESTS, "twisted"),
    )


def listeners(works: Assembly, control: Control) -> Iterator[Listening]:
    """Open the admin listener, where there is one: access is on, or the operator asks for it.

    :raises StartError: it cannot be opened, in one line.
    """
    config = works.config
    if not config.access.enabled and config.admin.listen is None:
        return
    door = works.gateway.door
    site = make_admin(
        operations_of(works, control),
        reactor=works.reactor,
        token=config.admin.token,
        admit=None if door is None else door.admit,
        denied=works.sink.emit,
    )
    endpoint = config.admin.listen
    if endpoint is None:
        endpoint = socket.endpoint(socket.default_socket(os.environ, config.state_folder))
    if (path := socket.unlocked(endpoint)) is not None:
        try:
            socket.prepare(path)
        except socket.SocketError as error:
            raise StartError(f"admin.listen: {error}") from error
    yield listen(works.reactor, [endpoint], site)


def operations_of(works: Assembly, control: Control) -> Operations:
    """All that the admin API can do: what the verbs of *control* do, as resources."""
    means = control.means
    assert means.status is not None
    assert means.config is not None
    switches = Switches(
        control,
        breakers=works.live.breakers,
        monotonic=works.reactor.seconds,
        audit=works.gateway.audit.record,
    )
    journal = means.journal
    return Operations(
        status=means.status,
        switches=switches,
        config=means.config,
        projects=means.projects,
        caches=means.caches,
        probes=means.probes,
        requests=None if journal is None else lambda limit: list(reversed(journal.recent((), limit))),
        verdicts=None if means.watch is None else Verdicts(means.watch, audit=works.gateway.audit.record),
        metrics=works.metrics.render if works.config.metrics.enabled else None,
        errors=lambda: deferToThreadPool(
            works.reactor, works.reactor.getThreadPool(), works.recording.summary
        ),
    )


def _serving(works: Assembly, why_not_ready: str | None) -> Mapping[str, object]:
    """Whether clients are let in, and what is under way for them."""
    active = works.pipeline.active
    told: dict[str, object] = {"ready": why_not_ready is None}
    if why_not_ready is not None:
        told["reason"] = why_not_ready
    return {**told, "active": len(active), "streams": sum(one.streamed for one in active)}


class _BaseURLs(Mapping[str, str]):
    """The base URL of each upstream that there is now."""

    def __init__(self, upstreams: Mapping[str, Upstream]) -> None:
        self._upstreams = upstreams

    def __getitem__(self, name: str) -> str:
        return self._upstreams[name].base_url

    def __iter__(self) -> Iterator[str]:
        return iter(self._upstreams)

    def __len__(self) -> int:
        return len(self._upstreams)


def _nobody(projects: Sequence[str], tokens: Sequence[str]) -> None:
    """Nothing is remembered of them."""
