"""What the daemon tells of itself over HTTP: health, readiness, the last errors, metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version

from twisted.internet.threads import deferToThreadPool
from twisted.web.resource import Resource

from llmproxyd.assembly import Assembly
from llmproxyd.config.dump import dumped
from llmproxyd.listen import Listening, listen
from llmproxyd.site.detailed import Detailed
from llmproxyd.site.health import Health
from llmproxyd.site.logs import ErrorLogs
from llmproxyd.site.metrics import MetricsPage, metrics_site
from llmproxyd.site.ready import Ready


class Pages:
    """The local pages of the public listener, and what stands on them.

    :param mode: what is rehearsed, in words.
    :param running: whether the daemon has been started and does not stop yet.
    """

    def __init__(self, works: Assembly, *, mode: Callable[[], str], running: Callable[[], bool]) -> None:
        self._works = works
        self._mode = mode
        self._running = running

    def resources(self) -> dict[bytes, Resource]:
        """Each by its path."""
        works = self._works
        token = works.config.admin.token
        in_thread = partial(deferToThreadPool, works.reactor, works.reactor.getThreadPool())
        pages: dict[bytes, Resource] = {
            b"/health": Health(self.state),
            b"/health/ready": Ready(self.why_not_ready),
            b"/health/detailed": Detailed(self.details, token),
            b"/logs/errors": ErrorLogs(works.recording.summary, in_thread, token),
        }
        if works.config.metrics.enabled:
            pages[b"/metrics"] = MetricsPage(works.metrics.render, token)
        return pages

    def state(self) -> dict[str, object]:
        """What ``/health`` tells beside its status."""
        works = self._works
        single = works.config.server.single_upstream
        target = {} if single is None else {"target": works.upstreams[single].base_url}
        return {
            **target,
            "version": version("llmproxyd"),
            "uptime": round(works.uptime(), 1),
            "mode": self._mode(),
            "requests": works.pipeline.handled,
            "upstreams": {
                name: {"provider": one.provider.name, "target_status": works.targets.status(name)}
                for name, one in sorted(works.upstreams.items())
            },
        }

    def details(self) -> dict[str, object]:
        """What ``/health/detailed`` tells beside that."""
        works = self._works
        return {
            **self.state(),
            **works.live.report(),
            **works.gateway.state(),
            "active": len(works.pipeline.active),
            "records": works.recording.state(),
            **works.deck.state(),
            "configuration": dumped(works.config),
        }

    def why_not_ready(self) -> str | None:
        """Why no request should come now; ``None`` where it may."""
        if not self._running():
            return "it stops"
        return None if self._works.gateway.ready else "the store of projects and tokens does not answer"


def listeners(works: Assembly) -> Iterator[Listening]:
    """Open the listener that metrics have to themselves, where they have one.

    :raises StartError: it cannot be opened, in one line.
    """
    metrics = works.config.metrics
    if metrics.enabled and metrics.listen is not None:
        yield listen(works.reactor, [metrics.listen], metrics_site(works.metrics.render, **works.wire()))
